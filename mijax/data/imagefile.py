"""One image file to an array and an affine, in nibabel's conventions (x, y, z; RAS+)."""

import gzip
import math
import re
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from mijax.data.metaimage import METAIMAGE, check_header, check_voxels
from mijax.errors import UserError

NIFTI = (".nii.gz", ".nii")
ENDINGS = (*NIFTI, *METAIMAGE, ".nrrd")  # what is looked for where nothing else says
_LARGEST = 2**32  # bytes of voxels of one file
_DEFLATE = 1032  # times that deflate can shrink a stream, and no more
_SIZES = (1e-6, 1e4)  # millimetres of a voxel, least and most
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


def has_ending(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of these (in small letters), in letters of any size."""
    return path.name.lower().endswith(endings)


def read_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image and its geometry; NIfTI through nibabel, everything else through SimpleITK.

    The header is judged before any voxel is read, so that a bad one costs no memory.

    Args:
      path: an image file.

    Returns:
      The array, (x, y, z) or (x, y, z, c), of real numbers in the file's own type with its
      intensity scaling applied, and the (4, 4) float64 affine from voxels to millimetres, RAS+.

    Raises:
      UserError: unreadable, not three-dimensional, not of numbers, too large, or without a
        geometry.
    """
    return _read_nifti(path) if has_ending(path, NIFTI) else _read_itk(path)


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


def _check_header(path: Path, shape: tuple[int, ...], bytes_: int, affine: np.ndarray) -> None:
    """Refuses what is no volume, exceeds any memory, or lies nowhere."""
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f"{path}: shape {shape}; a volume (x, y, z) is needed")
    if bytes_ > _LARGEST:
        raise UserError(
            f"{path}: shape {shape} takes {bytes_ / 2**30:.3g} GiB, and {_LARGEST / 2**30:g} GiB "
            "can be read; crop or resample it, or repair the header"
        )
    if not np.isfinite(affine).all():
        raise UserError(f"{path}: NaN or infinity in the affine; repair the header")
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    unit = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    if not abs(np.linalg.det(unit)) > 1e-6:
        raise UserError(f"{path}: singular affine (voxel sizes {lengths}); repair the header")
    if lengths.min() < _SIZES[0] or lengths.max() > _SIZES[1]:
        raise UserError(f"{path}: voxel sizes {lengths} mm; repair the header")


def _check_kind(path: Path, dtype: np.dtype) -> None:
    if not np.issubdtype(dtype, np.number) or np.issubdtype(dtype, np.complexfloating):
        raise UserError(f"{path}: voxels of type {dtype}; convert them to plain numbers")


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the header, then as many bytes as it announces and one more, which must not be there.

    That one makes gzip check its checksum. Header extensions are passed over.
    """
    packed = has_ending(path, (".gz",))
    try:
        with gzip.open(path) if packed else path.open("rb") as file, np.errstate(all="ignore"):
            header = _nifti_header(file.read(nib.Nifti2Header.sizeof_hdr))
            dtype, shape = header.get_data_dtype(), header.get_data_shape()
            affine = np.asarray(header.get_best_affine(), np.float64)
            size = math.prod(shape) * dtype.itemsize
            _check_kind(path, dtype)
            _check_header(path, shape, size, affine)
            if not np.isfinite(header["pixdim"][1:4]).all() or np.isinf(header["scl_slope"]):
                raise UserError(
                    f"{path}: NaN or infinity in pixdim or scl_slope; repair the header"
                )
            start = header.get_data_offset() or header.single_vox_offset
            length = path.stat().st_size * (_DEFLATE if packed else 1)
            if not header.sizeof_hdr <= start <= length - size:
                raise EOFError(f"{size} bytes of voxels at {start} are announced")
            file.seek(start)
            voxels = bytearray(size)
            if (found := file.readinto(voxels)) < size:
                raise EOFError(f"{found} bytes of voxels instead of {size}")
            if file.read(1):
                raise UserError(
                    f"{path}: more than the {size} bytes of voxels that its header announces; "
                    "copy it again"
                )
            values = np.frombuffer(voxels, dtype).reshape(shape, order="F")
            return apply_read_scaling(values, *header.get_slope_inter()), affine
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: truncated or not NIfTI ({_first_line(error)}); copy it again"
        ) from error


def _nifti_header(content: bytes) -> nib.Nifti1Header:
    """The header of a single file that starts with this content."""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(content):
            return kind(content[: kind.sizeof_hdr])
    raise ValueError("no such header")


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # half a second, and only for the rarer formats

    try:
        if has_ending(path, METAIMAGE):
            check_header(path)
        header = itk_header(path)
        if header.GetDimension() != 3:
            raise UserError(f"{path}: {header.GetDimension()} axes; a volume (x, y, z) is needed")
        size = _itk_bytes(header)
        _check_header(path, header.GetSize(), size, itk_affine(header))
        if has_ending(path, METAIMAGE):
            check_voxels(path, size)
        image = header.Execute()
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: SimpleITK cannot read it; copy or convert it again") from error
    values = sitk.GetArrayFromImage(image)  # (z, y, x) or (z, y, x, c)
    _check_kind(path, values.dtype)
    return np.moveaxis(values, (0, 1, 2), (2, 1, 0)), itk_affine(image)


def _itk_bytes(header) -> int:
    """Bytes of voxels that a header announces."""
    import SimpleITK as sitk

    kind = sitk.GetPixelIDValueAsString(header.GetPixelID())  # vector of 16-bit signed integer
    bits = re.search(r"(\d+)-bit", kind)
    if bits is None:
        raise RuntimeError(kind)
    return math.prod(header.GetSize()) * header.GetNumberOfComponents() * int(bits[1]) // 8


def itk_header(path: Path):
    """SimpleITK's reader of a file, after it has read the header alone."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    if has_ending(path, METAIMAGE):  # which SimpleITK knows in lower case only
        reader.SetImageIO("MetaImageIO")
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
