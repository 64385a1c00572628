"""What a client sent, as a scan on disk under names of our own, judged by its headers."""

import contextlib
import logging
import math
import shutil
import traceback
from pathlib import Path

import numpy as np
from fastapi import HTTPException
from starlette.datastructures import UploadFile

from mijax.data.formats.dicom.headers import is_dicom, quiet
from mijax.data.formats.imagefile import has_ending, read_header
from mijax.data.patches import slice_options
from mijax.data.scans import Scan, find_scans
from mijax.data.slices import slice_shape
from mijax.errors import UserError, needs, times
from mijax.serving.archive import TooLarge, unpack

ENDINGS = (".nii.gz", ".nii", ".mha", ".nrrd")  # header and voxels in one file
UNPACKED = 4  # times the largest upload that an archive may unpack to
_AREA = 16  # times the area of the slices of a run that a slice may have
# Data sets and frames that are deflated: pydicom inflates them whole, whatever their size.
_DEFLATED = ("1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.8.1", "1.2.840.10008.1.2.4.95")
_log = logging.getLogger("mijax")


@contextlib.contextmanager
def reading():
    """What libraries raise of a damaged image, and is no ``UserError`` yet, becomes one; logged."""
    try:
        yield
    except (UserError, HTTPException, OSError, MemoryError):
        raise
    except Exception as error:
        _log.error("%s", "".join(traceback.format_exception(error)))
        raise UserError("the image cannot be read; copy or convert it again") from error


def store(files: list[UploadFile], folder: Path, *, channels: int, most_bytes: int) -> Path:
    """Writes what was sent into an empty folder.

    Args:
      files: an image file, a DICOM file, or a zip file of a DICOM series; or of a run of several
        channels one image file for each, in their order.
      folder: where to.
      channels: of the run.
      most_bytes: of all.

    Returns:
      The scan, for ``open_scan``.

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
        for path in folder.iterdir():
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

    if not is_dicom(path):
        return
    try:
        with quiet():
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except Exception as error:  # of damaged files pydicom raises nearly anything
        raise UserError(f"{path.name}: damaged DICOM; copy it again") from error
    if syntax in _DEFLATED:
        raise UserError(f"{path.name}: a deflated transfer syntax; send it uncompressed")


def open_scan(path: Path, *, config, channels: int, most_voxels: int) -> Scan:
    """The one scan that was sent. At most headers are read.

    Args:
      path: see ``store``.
      config: of the run.
      channels: of the run.
      most_voxels: of the scan, channels included, and of what is made of it for the network.

    Raises:
      TooLarge: more voxels.
      UserError: damaged, or not one scan.
    """
    scans = find_scans(path, channels=channels)
    if len(scans) > 1:
        raise UserError(f"{len(scans)} scans; send one")
    (scan,) = scans
    if scan.problem:
        raise UserError(scan.problem)
    for image in (scan.reference,) if scan.stack else scan.images:
        shape, affine = read_header(image)
        count = math.prod(shape) * (1 if scan.stack else len(scan.images))
        takes = f"this server takes {most_voxels:,}"
        if count > most_voxels:
            raise TooLarge(f"{count:,} voxels, {times(shape)}; {takes}")
        made = _network_voxels(shape, affine, config.data.patches) * channels
        if made > most_voxels:
            raise TooLarge(f"{made:,} voxels as the network takes them; {takes}")
    return scan


def _network_voxels(shape, affine, patches) -> int:
    """Voxels of a scan as it is resampled and padded, which its spacing may make many times more.

    Raises:
      TooLarge: a slice far larger than those of the run, padded to its own size.
    """
    options = slice_options(patches)
    dims = options["dims"]
    target = slice_shape(
        "the scan",
        shape,
        affine,
        spacing=options["spacing"],
        plane=options["plane"],
        dims=3,
        depth_spacing=options["depth_spacing"] if dims == 3 else None,
    )
    size = np.broadcast_to(options["size"], dims).tolist()
    plane = target[1:]
    if dims == 2 and options["fit"] == "pad" and math.prod(plane) > _AREA * math.prod(size):
        raise TooLarge(f"slices of {times(plane)} pixels; the run learned from {times(size)}")
    return math.prod(map(max, target, [1] * (3 - dims) + size))
