"""Volumes to stacks of equal 2-D slices, and class probabilities back to the native grid."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from nibabel import orientations
from scipy import ndimage

from mijax.data.intensity import check_intensity, normalise
from mijax.data.volume import Volume
from mijax.errors import UserError

PLANES = ("sagittal", "coronal", "axial")  # by the RAS+ axis that is cut across
_FITS = ("pad", "crop", "resize")
_LARGEST = 2**14  # pixels along a slice that is resampled


class Grid(NamedTuple):
    """How a stack of slices lies on its volume; enough to go back.

    Attributes:
      shape: (3,) voxels of the volume as it came.
      orientation: (3, 2) for each axis as it came, the RAS+ axis it is nearest to and its sign.
      axis: the RAS+ axis across the slices.
      plane: (2,) native voxels of a slice, in RAS+ order.
      window: (top, left, height, width) pixels where a slice shows the volume; with fit="crop"
        they may reach beyond the slice.
    """

    shape: tuple[int, int, int]
    orientation: tuple[tuple[int, int], ...]
    axis: int
    plane: tuple[int, int]
    window: tuple[int, int, int, int]


class Slices(NamedTuple):
    """The slices of one volume.

    Attributes:
      image: (n, h, w, c) float32.
      label: (n, h, w) uint8, or None.
      grid: the way back.
    """

    image: np.ndarray
    label: np.ndarray | None
    grid: Grid

    @property
    def inside(self) -> tuple[slice, slice]:
        """Rows and columns of a slice that show the volume; what is around them was padded."""
        return _overlap(self.grid.window, self.image.shape[1:3])[0]


def to_slices(
    volume: Volume,
    *,
    size: int | Sequence[int],
    fit: str,
    spacing: float | None,
    plane: str,
    intensity: str | Sequence[float],
    percentiles: Sequence[float] = (1.0, 99.0),
    multiple: int | None = None,
) -> Slices:
    """Cuts a volume into 2-D slices of one size.

    The volume is turned to the nearest RAS+ axes first, so that all cases face the same way.
    h and w are the remaining axes in the order x, y, z. Images are interpolated linearly and
    without anti-aliasing, labels take the nearest voxel; edges of first and last pixels, not
    their centres, are aligned.

    Args:
      volume: as it came. Padding is labelled background, in a slice that nobody annotated too.
      size: h and w, one number for both or two.
      fit: "pad" with zeros on all sides; "crop": the same, and an axis that exceeds ``size`` is
        cut on both sides; or "resize".
      spacing: millimetres a pixel to resample to before the fit; None keeps the native one.
      plane: "axial", "coronal" or "sagittal".
      intensity: see ``intensity.normalise``; over the whole volume, before resampling.
      percentiles: likewise.
      multiple: with fit="pad", an axis of a slice that exceeds ``size`` is padded to the next
        multiple of this, so that nothing is cut off; None refuses it.

    Raises:
      UserError: an unknown option, or a slice that is larger than ``size`` with fit="pad" and
        no ``multiple``.
    """
    height, width = check_slice_options(
        size=size,
        fit=fit,
        spacing=spacing,
        plane=plane,
        intensity=intensity,
        percentiles=percentiles,
    )
    axis = _axis_of(plane)
    orientation = orientations.io_orientation(volume.affine)
    native = _cut(volume.image, orientation, axis).shape[1:3]
    target = slice_shape(
        volume.name, volume.image.shape, volume.affine, spacing=spacing, plane=plane
    )
    if fit == "resize":
        window = (0, 0, height, width)
    else:
        if fit == "pad" and multiple is not None:
            height = max(height, -(-target[0] // multiple) * multiple)
            width = max(width, -(-target[1] // multiple) * multiple)
        top, left = (height - target[0]) // 2, (width - target[1]) // 2
        if fit == "pad" and min(top, left) < 0:
            raise UserError(
                f"case {volume.name}: slices of {target[0]}×{target[1]} exceed data.slices.size "
                f"{height}×{width}; raise data.slices.size or use data.slices.fit=resize or crop"
            )
        window = (top, left, *target)

    def fitted(values: np.ndarray, order: int) -> np.ndarray:
        values = _resize(_cut(values, orientation, axis), target, order)
        return _pad(_resize(values, window[2:], order), window, (height, width))

    image = fitted(normalise(volume.image, intensity=intensity, percentiles=percentiles), 1)
    label = None if volume.label is None else fitted(volume.label[..., None], 0)[..., 0]
    grid = Grid(
        shape=volume.image.shape[:3],
        orientation=tuple((int(a), int(sign)) for a, sign in orientation),
        axis=axis,
        plane=tuple(native),
        window=window,
    )
    return Slices(image, label, grid)


def slice_shape(
    name: str, shape: Sequence[int], affine: np.ndarray, *, spacing: float | None, plane: str
) -> tuple[int, int]:
    """h and w of the slices of a volume before they are made to fit a size, from its header.

    Args:
      name: of the case, for the message.
      shape: (x, y, z, …) voxels as they came.
      affine: (4, 4), voxels to millimetres.
      spacing: see ``to_slices``.
      plane: see ``to_slices``.

    Raises:
      UserError: far too many pixels at that spacing.
    """
    axes = np.argsort(orientations.io_orientation(affine)[:, 0])  # x, y, z of RAS+
    axes = np.delete(axes, _axis_of(plane))
    native = tuple(int(shape[axis]) for axis in axes)
    if spacing is None:
        return native
    millimetres = np.linalg.norm(affine[:3, :3], axis=0)[axes]
    pixels = [max(1, round(n * mm / spacing)) for n, mm in zip(native, millimetres, strict=True)]
    if max(pixels) > _LARGEST:
        raise UserError(
            f"case {name}: slices of {pixels[0]}×{pixels[1]} pixels at data.slices.spacing="
            f"{spacing!r}; raise it, or repair the voxel sizes of the file"
        )
    return tuple(pixels)


def to_native(values: np.ndarray, grid: Grid) -> np.ndarray:
    """Class probabilities of slices on the native grid of their volume.

    Cuts the padding away, makes background of what fit="crop" had cut away, interpolates
    linearly in the plane to the native pixels, stacks, and undoes the reorientation. Sums over
    classes stay what they were.

    Args:
      values: (n, h, w, k), as the slices of ``to_slices``, or one of them alone, (1, h, w, k):
        each is interpolated by itself.
      grid: from ``to_slices``.

    Returns:
      (x, y, z, k) float32; of one slice that of the volume, see ``native_slice``.
    """
    inside, shown = _overlap(grid.window, values.shape[1:3])
    values = np.asarray(values, np.float32)[:, *inside]
    if values.shape[1:3] != grid.window[2:]:
        whole = np.zeros((len(values), *grid.window[2:], values.shape[3]), np.float32)
        whole[..., 0] = 1
        whole[:, *shown] = values
        values = whole
    volume = np.moveaxis(_resize(values, grid.plane, 1), 0, grid.axis)
    ras = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(ras, np.array(grid.orientation, float))
    return np.ascontiguousarray(orientations.apply_orientation(volume, back))


def _axis_of(plane: str) -> int:
    if plane not in PLANES:
        raise UserError(f"data.slices.plane={plane!r}: must be one of {', '.join(PLANES)}")
    return PLANES.index(plane)


def cut(values: np.ndarray, affine: np.ndarray, *, plane: str) -> np.ndarray:
    """(x, y, z, …) as it came -> (n, h, w, …), the native slices in RAS+ order; a view."""
    return _cut(values, orientations.io_orientation(affine), _axis_of(plane))


def pixel_size(affine: np.ndarray, *, plane: str) -> np.ndarray:
    """(2,) millimetres along h and w of the slices of ``cut``."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    along = np.argsort(orientations.io_orientation(affine)[:, 0])
    return np.delete(spacing[along], _axis_of(plane))


def native_slice(grid: Grid, place: int) -> tuple[slice, ...]:
    """Index of the slice ``place`` in the volume as it came, (x, y, z, …)."""
    axis = [ras for ras, _ in grid.orientation].index(grid.axis)
    index = place if grid.orientation[axis][1] > 0 else grid.shape[axis] - 1 - place
    return (slice(None),) * axis + (slice(index, index + 1),)


def check_slice_options(
    *,
    size: int | Sequence[int],
    fit: str,
    spacing: float | None,
    plane: str,
    intensity: str | Sequence[float],
    percentiles: Sequence[float],
) -> tuple[int, int]:
    """Height and width of slices; refuses options that ``to_slices`` could not follow.

    Raises:
      UserError: for the first of them.
    """
    _axis_of(plane)
    check_intensity(intensity, percentiles)
    if fit not in _FITS:
        raise UserError(f"data.slices.fit={fit!r}: must be one of {', '.join(_FITS)}")
    if spacing is not None and not spacing > 0:
        raise UserError(f"data.slices.spacing={spacing!r}: must be millimetres above 0, or None")
    sizes = np.atleast_1d(size)
    if sizes.size not in (1, 2) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        raise UserError(f"data.slices.size={size!r}: must be one or two whole numbers above 0")
    return int(sizes[0]), int(sizes[-1])


def _cut(values: np.ndarray, orientation: np.ndarray, axis: int) -> np.ndarray:
    """(x, y, z, c) as it came -> (n, h, w, c) in RAS+ order."""
    return np.moveaxis(orientations.apply_orientation(values, orientation), axis, 0)


def _resize(values: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """(n, h, w, c) -> (n, *shape, c); pixel i covers [i, i + 1), as align_corners=False."""
    if values.shape[1:3] == tuple(shape):
        return values
    n, h, w, c = values.shape
    zoom = (shape[0] / h, shape[1] / w)
    result = np.empty((n, *shape, c), values.dtype)
    for i in range(n):
        for j in range(c):
            result[i, ..., j] = ndimage.zoom(
                values[i, ..., j], zoom, order=order, mode="nearest", grid_mode=True
            )
    return result


def _pad(values: np.ndarray, window: Sequence[int], shape: tuple[int, int]) -> np.ndarray:
    """(n, height, width, c) at its window in zeros of (n, *shape, c), cut where it ends."""
    inside, shown = _overlap(window, shape)
    result = np.zeros((len(values), *shape, values.shape[3]), values.dtype)
    result[:, *inside] = values[:, *shown]
    return result


def _overlap(window: Sequence[int], shape: Sequence[int]):
    """The pixels that a window and a slice of this shape share, in the slice and in the window."""
    first = [max(0, start) for start in window[:2]]
    last = [min(n, start + m) for n, start, m in zip(shape, window[:2], window[2:], strict=True)]
    inside = tuple(map(slice, first, last))
    shown = tuple(slice(a - s, b - s) for a, b, s in zip(first, last, window[:2], strict=True))
    return inside, shown
