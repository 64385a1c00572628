"""One image file to an array and an affine, in nibabel's conventions (x, y, z; RAS+; mm)."""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.header import check_header, check_kind
from mijax.data.formats.metaimage import (
    METAIMAGE,
    check_metaimage,
    check_metaimage_voxels,
    metaimage_voxels,
)
from mijax.data.formats.nifti import NIFTI, nifti_affines, read_nifti, read_nifti_header
from mijax.data.formats.nrrd import NRRD, check_nrrd, check_nrrd_voxels, nrrd_voxels
from mijax.errors import UserError

ENDINGS = (*NIFTI, *METAIMAGE, ".nrrd")  # what is looked for where nothing else says
READABLE = (*NIFTI, *METAIMAGE, *NRRD)


class _Format(NamedTuple):
    """What stands before SimpleITK for a format: the name of its reader there, and our checks."""

    reader: str
    check_header: Callable[[Path], None]
    check_voxels: Callable[[Path, int], None]
    voxels: Callable[[Path], Path]


_FORMATS = {
    METAIMAGE: _Format("MetaImageIO", check_metaimage, check_metaimage_voxels, metaimage_voxels),
    NRRD: _Format("NrrdImageIO", check_nrrd, check_nrrd_voxels, nrrd_voxels),
}


def has_ending(path: Path, endings: tuple[str, ...]) -> bool:
    """Whether a file's name ends in one of these (in small letters), in letters of any size."""
    return path.name.lower().endswith(endings)


def read_image(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """An image and its geometry; NIfTI through nibabel, MetaImage and NRRD through SimpleITK.

    The header is judged before any voxel is read, so that a bad one costs no memory.

    Args:
      path: an image file.

    Returns:
      The array, (x, y, z) or (x, y, z, c), of real numbers in the file's own type with its
      intensity scaling applied (a MetaImage with one is refused), and the (4, 4) float64 affine
      from voxels to millimetres, RAS+. Of NIfTI, axes of length 1 after the third are left out,
      and lengths in metres or microns become millimetres.

    Raises:
      UserError: unreadable, not three-dimensional, not of numbers, too large, or without a
        geometry.
    """
    return read_nifti(path) if has_ending(path, NIFTI) else _read_itk(path)


def read_header(path: Path | Stack) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of ``read_image``, from the header alone, which is judged as there.

    Those of a stack of DICOM slices are its own.
    """
    if isinstance(path, Stack):
        return path.shape, path.affine
    if has_ending(path, NIFTI):
        return read_nifti_header(path)
    try:
        header = _itk_header(path)
    except (OSError, RuntimeError) as error:
        raise _unreadable(path) from error
    channels = header.GetNumberOfComponents()
    return header.GetSize() + (channels,) * (channels > 1), itk_affine(header)


def affines_of(path: Path | Stack) -> dict[str, np.ndarray]:
    """Every place that a sound file gives its voxels, by name; see ``nifti_affines``."""
    return nifti_affines(path) if has_ending(path, NIFTI) else {"header": read_header(path)[1]}


def files_of(path: Path) -> tuple[Path, ...]:
    """An image's file, and after it that of its voxels, if it is a header that names one.

    Raises:
      UserError: that one is not there, outside the header's folder, or one of several.
    """
    voxels = path if has_ending(path, NIFTI) else _format(path).voxels(path)
    return (path,) if voxels == path else (path, voxels)


def _format(path: Path) -> _Format:
    """Of others nothing would say whether a file is whole, and SimpleITK reads it all the same."""
    for endings, form in _FORMATS.items():
        if has_ending(path, endings):
            return form
    raise UserError(f"{path}: not one of {', '.join(READABLE)}; convert it")


def _read_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk  # half a second, and only for the rarer formats

    try:
        header = _itk_header(path)
        _format(path).check_voxels(path, _itk_bytes(header))
        image = header.Execute()
    except (OSError, RuntimeError) as error:
        raise _unreadable(path) from error
    values = sitk.GetArrayFromImage(image)  # (z, y, x) or (z, y, x, c)
    check_kind(path, values.dtype)
    return np.moveaxis(values, (0, 1, 2), (2, 1, 0)), itk_affine(image)


def _unreadable(path: Path) -> UserError:
    return UserError(f"{path}: SimpleITK cannot read it; copy or convert it again")


def _itk_header(path: Path):
    """``itk_header``, where what it says can be a volume."""
    _format(path).check_header(path)
    header = itk_header(path)
    if header.GetDimension() != 3:
        raise UserError(f"{path}: {header.GetDimension()} axes; a volume (x, y, z) is needed")
    check_header(path, header.GetSize(), _itk_bytes(header), itk_affine(header))
    return header


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
    # Which SimpleITK would tell by the ending, if in small letters.
    reader.SetImageIO(_format(path).reader)
    reader.ReadImageInformation()
    return reader


def itk_affine(image) -> np.ndarray:
    """RAS+ affine of a SimpleITK image, or of a reader that has read its header."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # from LPS+
