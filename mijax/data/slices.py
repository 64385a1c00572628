"""Volumes to stacks of equal 2-D slices, or to 3-D images."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from nibabel import orientations

from mijax.data.grid import Grid, overlap, resize, resize_labels
from mijax.data.intensity import check_intensity, normalise
from mijax.data.volume import Volume, spacing_of
from mijax.errors import UserError, times

PLANES = ("sagittal", "coronal", "axial")  # by the RAS+ axis that is cut across
_FITS = ("pad", "crop", "resize", "whole")
_LARGEST = 2**14  # pixels along an axis that is resampled
_MOST = 2**31  # of a volume that is: 8 GiB
_WHAT = {2: "slices", 3: "volumes"}  # by the number of axes of an image


class Slices(NamedTuple):
    """The slices of one volume; or, with dims=3, the one 3-D image of it.

    Attributes:
      image: (n, h, w, c) float32; or (1, d, h, w, c).
      label: (n, h, w) uint8, or None; or (1, d, h, w).
      grid: the way back.
    """

    image: np.ndarray
    label: np.ndarray | None
    grid: Grid

    @property
    def inside(self) -> tuple[slice, ...]:
        """The part of an image that shows the volume; what is around it was padded."""
        return overlap(self.grid, self.image.shape[1:-1])[0]


def to_slices(
    volume: Volume,
    *,
    size: int | Sequence[int],
    fit: str,
    spacing: float | None,
    plane: str,
    intensity: str | Sequence[float],
    percentiles: Sequence[float] = (1.0, 99.0),
    dims: int = 2,
    depth_spacing: float | None = None,
    multiple: int | Sequence[int] | None = None,
) -> Slices:
    """Cuts a volume into 2-D slices of one size, or makes a 3-D image of it.

    The volume is turned to the nearest RAS+ axes first, so that all cases face the same way.
    h and w are the axes other than the one across ``plane``, in the order x, y, z; that one is
    the depth of a 3-D image. Images are interpolated linearly and without anti-aliasing, labels
    as ``grid.resize_labels``; edges of first and last pixels, not their centres, are aligned.

    Args:
      volume: as it came. Padding is labelled background, in a slice that nobody annotated too.
      size: h and w, or d, h and w; one number for all or as many as ``dims``.
      fit: "pad" with zeros on all sides; "crop": the same, and an axis that exceeds ``size`` is
        cut on both sides; "resize"; or, with dims=3, "whole": padded, and never cut.
      spacing: millimetres a pixel to resample to before the fit; None keeps the native one.
      plane: "axial", "coronal" or "sagittal".
      intensity: see ``intensity.normalise``; over the whole volume, before resampling.
      percentiles: likewise.
      dims: 2 or 3.
      depth_spacing: millimetres a slice that a 3-D image is resampled to; None keeps the native.
      multiple: with fit="pad", an axis that exceeds ``size`` is padded to the next multiple of
        this, one number or ``dims`` of them, so that nothing is cut off; None refuses it.

    Raises:
      UserError: an unknown option, or an image that is larger than ``size`` with fit="pad" and
        no ``multiple``.
    """
    sizes = check_slice_options(
        size=size,
        fit=fit,
        spacing=spacing,
        plane=plane,
        intensity=intensity,
        percentiles=percentiles,
        dims=dims,
        depth_spacing=depth_spacing,
    )
    axis = _axis_of(plane)
    orientation = orientations.io_orientation(volume.affine)

    def stack(values: np.ndarray) -> np.ndarray:
        cut = _cut(values, orientation, axis)
        return cut if dims == 2 else cut[None]

    target = slice_shape(
        volume.name,
        volume.image.shape,
        volume.affine,
        spacing=spacing,
        plane=plane,
        dims=dims,
        depth_spacing=depth_spacing,
    )
    if fit == "pad" and multiple is not None:
        multiples = np.broadcast_to(multiple, dims)
        sizes = tuple(
            max(n, int(-(-t // m) * m)) for n, t, m in zip(sizes, target, multiples, strict=True)
        )
    if fit == "whole":
        sizes = tuple(map(max, sizes, target))
    if fit == "resize":
        start, target_in_image = (0,) * dims, sizes
    else:
        start = tuple((n - t) // 2 for n, t in zip(sizes, target, strict=True))
        target_in_image = target
        if fit == "pad" and min(start) < 0:
            raise UserError(
                f"case {volume.name}: {_WHAT[dims]} of {times(target)} exceed data.patches.size "
                f"{times(sizes)}; raise --config.data.patches.size or use "
                "--config.data.patches.fit=resize or crop"
            )
    grid = Grid(
        shape=volume.image.shape[:3],
        orientation=tuple((int(a), int(sign)) for a, sign in orientation),
        axis=axis,
        native=stack(volume.image).shape[1:-1],
        start=start,
        size=target_in_image,
    )

    def fitted(values: np.ndarray, resize: Callable) -> np.ndarray:
        return _pad(resize(resize(stack(values), target), grid.size), grid, sizes)

    image = fitted(normalise(volume.image, intensity=intensity, percentiles=percentiles), resize)
    label = None if volume.label is None else fitted(volume.label[..., None], resize_labels)[..., 0]
    return Slices(image, label, grid)


def slice_shape(
    name: str,
    shape: Sequence[int],
    affine: np.ndarray,
    *,
    spacing: float | None,
    plane: str,
    dims: int = 2,
    depth_spacing: float | None = None,
) -> tuple[int, ...]:
    """Pixels of the slices of a volume before they are made to fit a size, from its header.

    Args:
      name: of the case, for the message.
      shape: (x, y, z, …) voxels as they came.
      affine: (4, 4), voxels to millimetres.
      spacing, plane, dims, depth_spacing: see ``to_slices``.

    Returns:
      h and w, or d, h and w with dims=3.

    Raises:
      UserError: far too many pixels at that spacing.
    """
    across = _across_first(np.argsort(orientations.io_orientation(affine)[:, 0]), plane)
    axes, wanted = across[-dims:], (depth_spacing, spacing, spacing)[-dims:]
    pixels = []
    for axis, mm in zip(axes, wanted, strict=True):
        millimetres = int(shape[axis]) * np.linalg.norm(affine[:3, axis])
        pixels.append(int(shape[axis]) if mm is None else max(1, round(millimetres / mm)))
    voxels = math.prod(pixels) * (1 if dims == 3 else int(shape[across[0]]))
    if max(pixels) > _LARGEST or voxels > max(_MOST, math.prod(map(int, shape[:3]))):
        flags = {"depth_spacing": depth_spacing, "spacing": spacing}
        given = ", ".join(f"data.patches.{k}={v!r}" for k, v in flags.items() if v is not None)
        raise UserError(
            f"case {name}: {_WHAT[dims]} of {times(pixels)} pixels at {given}; raise it, or repair "
            "the voxel sizes of the file"
        )
    return tuple(pixels)


def _axis_of(plane: str) -> int:
    if plane not in PLANES:
        raise UserError(f"data.patches.plane={plane!r}: must be one of {', '.join(PLANES)}")
    return PLANES.index(plane)


def _across_first(axes, plane):
    """Axes of x, y, z in the order depth, h, w."""
    axis = _axis_of(plane)
    return [axes[axis], *np.delete(axes, axis)]


def cut(values: np.ndarray, affine: np.ndarray, *, plane: str) -> np.ndarray:
    """(x, y, z, …) as it came -> (n, h, w, …), the native slices in RAS+ order; a view."""
    return _cut(values, orientations.io_orientation(affine), _axis_of(plane))


def pixel_size(affine: np.ndarray, *, plane: str) -> np.ndarray:
    """(2,) millimetres along h and w of the slices of ``cut``."""
    spacing = spacing_of(affine)
    along = np.argsort(orientations.io_orientation(affine)[:, 0])
    return np.delete(spacing[along], _axis_of(plane))


def check_slice_options(
    *,
    size: int | Sequence[int],
    fit: str,
    spacing: float | None,
    plane: str,
    intensity: str | Sequence[float],
    percentiles: Sequence[float],
    dims: int = 2,
    depth_spacing: float | None = None,
) -> tuple[int, ...]:
    """The ``dims`` sizes of an image; refuses options that ``to_slices`` could not follow.

    Raises:
      UserError: for the first of them.
    """
    _axis_of(plane)
    check_intensity(intensity, percentiles)
    if fit not in _FITS:
        raise UserError(f"data.patches.fit={fit!r}: must be one of {', '.join(_FITS)}")
    if dims not in _WHAT:
        raise UserError(f"data.patches.dims={dims!r}: must be 2, for slices, or 3, for volumes")
    for name, mm in (("spacing", spacing), ("depth_spacing", depth_spacing)):
        if mm is not None and not mm > 0:
            raise UserError(f"data.patches.{name}={mm!r}: must be millimetres above 0, or None")
    if dims == 2 and depth_spacing is not None:
        raise UserError("data.patches.depth_spacing is for data.patches.dims=3")
    if dims == 2 and fit == "whole":
        raise UserError("data.patches.fit=whole is for data.patches.dims=3")
    sizes = np.atleast_1d(size)
    if not sizes.size:
        raise UserError(
            "no data.patches.size: give --config.data.patches.size='(H,W)', in 3-D '(D,H,W)', or "
            "--config.plan, which finds it"
        )
    if sizes.size not in (1, dims) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        number = f"one or {'two' if dims == 2 else 'three'} whole numbers"
        raise UserError(f"data.patches.size={size!r}: must be {number} above 0")
    return tuple(int(n) for n in np.broadcast_to(sizes, dims))


def _cut(values: np.ndarray, orientation: np.ndarray, axis: int) -> np.ndarray:
    """(x, y, z, c) as it came -> (n, h, w, c) in RAS+ order."""
    return np.moveaxis(orientations.apply_orientation(values, orientation), axis, 0)


def _pad(values: np.ndarray, grid: Grid, shape: Sequence[int]) -> np.ndarray:
    """(n, *size, c) at its window in zeros of (n, *shape, c), cut where it ends."""
    inside, shown = overlap(grid, shape)
    result = np.zeros((len(values), *shape, values.shape[-1]), values.dtype)
    result[:, *inside] = values[:, *shown]
    return result
