"""One image file to an array and an affine, in nibabel's conventions (x, y, z; RAS+)."""

import zlib
from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.errors import UserError

NIFTI = (".nii.gz", ".nii")
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
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise UserError(f"{path}: SimpleITK cannot read it; copy or convert it again") from error
    if image.GetDimension() != 3:
        raise UserError(f"{path}: {image.GetDimension()} axes; a volume (x, y, z) is needed")
    values = sitk.GetArrayFromImage(image)  # (z, y, x) or (z, y, x, c)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    lps_to_ras = np.diag([-1.0, -1.0, 1.0, 1.0])
    return np.moveaxis(values, (0, 1, 2), (2, 1, 0)), lps_to_ras @ affine


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
