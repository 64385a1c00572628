"""One image file to an array and an affine, in nibabel's conventions (x, y, z; RAS+)."""

import math
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.errors import UserError

NIFTI = (".nii.gz", ".nii")
METAIMAGE = (".mha", ".mhd")
ENDINGS = (*NIFTI, *METAIMAGE, ".nrrd")  # what is looked for where nothing else says
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


def read_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image and its geometry; NIfTI through nibabel, everything else through SimpleITK.

    Args:
      path: an image file.

    Returns:
      The array, (x, y, z) or (x, y, z, c), of real numbers in the file's own type with its
      intensity scaling applied, and the (4, 4) float64 affine from voxels to millimetres, RAS+.

    Raises:
      UserError: unreadable, not three-dimensional, not of numbers, or without a geometry.
    """
    values, affine = _read_nifti(path) if path.name.endswith(NIFTI) else _read_itk(path)
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise UserError(f"{path}: voxels of type {values.dtype}; convert them to plain numbers")
    if values.ndim not in (3, 4) or 0 in values.shape:
        raise UserError(f"{path}: shape {values.shape}; a volume (x, y, z) is needed")
    _check_affine(affine, path)
    return values, affine


def files_of(path: Path) -> tuple[Path, ...]:
    """An image's file, and after a MetaImage header that of its voxels, if it names just one.

    Raises:
      UserError: that one is not there.
    """
    if not path.name.endswith(".mhd"):
        return (path,)
    name = _metaimage_header(path)[0].get("ElementDataFile", "")
    if name in ("", "LOCAL", "LIST") or "%" in name:  # in the header, or a file a slice
        return (path,)
    voxels = path.parent / name
    if not voxels.is_file():
        raise UserError(f"{path}: the file of its voxels, {name}, is missing; put it beside it")
    return path, voxels


def check_same_geometry(path: Path, shape, affine, reference: Path, shape_0, affine_0) -> None:
    """Refuses two files that do not lie on the same grid (to a thousandth of a voxel).

    Raises:
      UserError: names both files and the first difference.
    """
    other = f"{reference.parent.name}/{reference.name}"
    if tuple(shape) != tuple(shape_0):
        raise UserError(f"{path}: shape {tuple(shape)}, but {other} has {tuple(shape_0)}")
    difference = np.abs(affine - affine_0).max()
    if difference > 1e-3 * np.linalg.norm(affine_0[:3, :3], axis=0).min():
        raise UserError(
            f"{path}: affine differs from that of {other} by up to {difference:.4g} mm; "
            "resample one onto the other"
        )


def _check_affine(affine: np.ndarray, path: Path) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    volume = abs(np.linalg.det(affine[:3, :3]))
    if not np.isfinite(affine).all() or not volume > 1e-6 * np.prod(lengths):
        raise UserError(f"{path}: singular affine (voxel sizes {lengths}); repair the header")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        image = nib.load(path)
        return np.asarray(image.dataobj), np.asarray(image.affine, np.float64)
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: truncated or not NIfTI ({_first_line(error)}); copy it again"
        ) from error


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # half a second, and only for the rarer formats

    try:
        if path.name.endswith(METAIMAGE):
            _check_voxels(path)
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: SimpleITK cannot read it; copy or convert it again") from error
    if image.GetDimension() != 3:
        raise UserError(f"{path}: {image.GetDimension()} axes; a volume (x, y, z) is needed")
    values = sitk.GetArrayFromImage(image)  # (z, y, x) or (z, y, x, c)
    return np.moveaxis(values, (0, 1, 2), (2, 1, 0)), itk_affine(image)


def _metaimage_header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a MetaImage header, and its length in bytes."""
    fields = {}
    with path.open("rb") as file:
        for line in file:
            key, _, value = line.decode(errors="replace").partition("=")
            fields[key.strip()] = value.strip()
            if key.strip() == "ElementDataFile":  # always the last
                break
        return fields, file.tell()


def _check_voxels(path: Path) -> None:
    """Refuses a MetaImage with damaged voxels: SimpleITK may return noise, and no error.

    Raises:
      RuntimeError: SimpleITK cannot read the header.
      UserError: the voxels are missing, damaged, or not as many as the header says.
    """
    header, offset = _metaimage_header(path)
    voxels = files_of(path)[-1]
    local = header.get("ElementDataFile") == "LOCAL"
    if "HeaderSize" in header or (voxels == path) != local:  # more than voxels, or several files
        return
    offset = offset if local else 0
    if header.get("CompressedData", "").lower() == "true":
        size = _inflated_size(voxels, offset)
    else:
        size = voxels.stat().st_size - offset
    needed = _itk_bytes(path)
    if size != needed:
        raise UserError(f"{voxels}: {size} bytes of voxels instead of {needed}; copy it again")


def _inflated_size(path: Path, offset: int) -> int:
    inflate = zlib.decompressobj()
    try:
        size = len(inflate.decompress(path.read_bytes()[offset:]))
    except zlib.error as error:
        raise UserError(f"{path}: damaged ({error}); copy it again") from error
    if not inflate.eof:
        raise UserError(f"{path}: truncated; copy it again")
    return size


def _itk_bytes(path: Path) -> int:
    """Bytes of voxels that a header announces."""
    import SimpleITK as sitk

    header = itk_header(path)
    kind = sitk.GetPixelIDValueAsString(header.GetPixelID())  # vector of 16-bit signed integer
    bits = int(re.search(r"(\d+)-bit", kind)[1])
    return math.prod(header.GetSize()) * header.GetNumberOfComponents() * bits // 8


def itk_header(path: Path):
    """SimpleITK's reader of a file, after it has read the header alone."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return reader


def itk_affine(image) -> np.ndarray:
    """RAS+ affine of a SimpleITK image, or of a reader that has read its header."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # from LPS+


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
