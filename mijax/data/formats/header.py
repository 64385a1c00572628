"""What a header of an image file must say, of whatever format: axes, size, kind and place."""

from pathlib import Path

import numpy as np

from mijax.data.volume import spacing_of
from mijax.errors import UserError, tell

_SIZES = (1e-6, 1e4)  # millimetres of a voxel, least and most


def check_header(
    path: Path, shape: tuple[int, ...], bytes_: int, affine: np.ndarray, *, largest: float = 2**32
) -> None:
    """Refuses what is no volume, exceeds any memory, or lies nowhere.

    Args:
      path: of the file, for the message.
      shape: as ``volume_shape`` gives it.
      bytes_: of its voxels.
      affine: (4, 4), voxels to millimetres.
      largest: bytes of voxels of one file.

    Raises:
      UserError: names the file and what is wrong with its header.
    """
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(
            f"{path}: shape {shape}; a volume (x, y, z), or (x, y, z, channel), is needed"
        )
    if bytes_ > largest:
        raise UserError(
            f"{path}: shape {shape} takes {bytes_ / 2**30:.3g} GiB, and {largest / 2**30:g} GiB "
            "can be read; crop or resample it, or repair the header"
        )
    if not np.isfinite(affine).all():
        raise UserError(f"{path}: NaN or infinity in the affine; repair the header")
    lengths = spacing_of(affine)
    if not is_regular(affine):
        raise UserError(f"{path}: singular affine (voxel sizes {lengths}); repair the header")
    if lengths.min() < _SIZES[0] or lengths.max() > _SIZES[1]:
        raise UserError(f"{path}: voxel sizes {lengths} mm; repair the header")


def check_kind(path: Path, dtype: np.dtype) -> None:
    """Refuses voxels that are not real numbers."""
    if not np.issubdtype(dtype, np.number) or np.issubdtype(dtype, np.complexfloating):
        raise UserError(f"{path}: voxels of type {dtype}; convert them to plain numbers")


def tell_of_size(path: Path, axes: str = "xyz") -> None:
    """Tells (``Notice``) that a file has no voxel size along some axes."""
    tell(f"{path}: no voxel size along {', '.join(axes)}; taken as 1 mm, which is a guess")


def volume_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without axes of length 1 after the third: (x, y, z, 1, c) is (x, y, z, c)."""
    return (*shape[:3], *(n for n in shape[3:] if n != 1))


def is_regular(affine: np.ndarray) -> bool:
    """Whether an affine is finite and takes no volume to a plane, a line or a point."""
    if not np.isfinite(affine).all():
        return False
    lengths = spacing_of(affine)
    unit = affine[:3, :3] / np.where(lengths > 0, lengths, 1)
    return bool(abs(np.linalg.det(unit)) > 1e-6)
