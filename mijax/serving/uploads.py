"""What a client sent, as files on disk under names of our own."""

import shutil
from pathlib import Path

from fastapi import HTTPException
from starlette.datastructures import UploadFile

from mijax.data.formats.dicom.headers import is_dicom, quiet
from mijax.data.formats.imagefile import has_ending
from mijax.errors import UserError, needs
from mijax.serving.archive import unpack

ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")  # header and voxels in one file
UNPACKED = 4  # times the largest upload that an archive may unpack to
# Data sets and frames that are deflated: pydicom inflates them whole, whatever their size.
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.95")


def store(files: list[UploadFile], folder: Path, *, channels: int, most_bytes: int) -> Path:
    """Writes what was sent into an empty folder.

    Args:
      files: an image file, a DICOM file, or a zip file of a DICOM series; or of a run of several
        channels one image file for each, in their order.
      folder: where to.
      channels: of the run.
      most_bytes: of all.

    Returns:
      The scan, for ``scans.open_scan``.

    Raises:
      UserError: another number of files, a kind that is not read, or a bad zip file.
      HTTPException: 501 for DICOM where no package reads it.
    """
    if len(files) > 1:
        endings = [_ending(file) for file in files]
        if len(files) != channels or None in endings:
            raise UserError(
                f"{len(files)} files; send one, a DICOM series as a zip file"
                + f", or {channels} image files, one a channel" * (channels > 1)
            )
        for channel, (file, ending) in enumerate(zip(files, endings, strict=True)):
            _copy(file, folder / f"image_{channel:04}{ending}")
        return folder
    (file,) = files
    if ending := _ending(file):
        path = folder / f"image{ending}"
        _copy(file, path)
        return path
    if file.file.read(4) == b"PK\3\4":
        _needs_dicom()
        unpack(file.file, folder, most_bytes=UNPACKED * most_bytes)
        found = [path for path in folder.iterdir() if is_dicom(path)]
        if not found:
            raise UserError("zip: no DICOM file in it; send an image file as it is")
        for path in found:
            _check_syntax(path)
        return folder
    path = folder / "image"
    _copy(file, path)
    if not is_dicom(path):
        raise UserError(
            f"not one of {', '.join(ENDINGS)} by its name, nor DICOM or a zip file by its content"
        )
    _needs_dicom()
    _check_syntax(path)
    return path


def _ending(file: UploadFile) -> str | None:
    name = Path(file.filename or "")
    return next((ending for ending in ENDINGS if has_ending(name, (ending,))), None)


def _copy(file: UploadFile, path: Path) -> None:
    file.file.seek(0)
    with path.open("xb") as target:
        shutil.copyfileobj(file.file, target, 2**20)


def _needs_dicom():
    try:
        needs("pydicom", "dicom")
    except UserError:
        raise HTTPException(501, "this server reads no DICOM: it lacks mijax[dicom]") from None


def _check_syntax(path: Path) -> None:
    from pydicom.filereader import read_file_meta_info

    try:
        with quiet():
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except Exception as error:  # of damaged files pydicom raises nearly anything
        raise UserError(f"{path.name}: damaged DICOM; copy it again") from error
    if syntax in _DEFLATED:
        raise UserError(f"{path.name}: a deflated transfer syntax; send it uncompressed")
