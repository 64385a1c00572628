"""Volumes to stacks of equal 2-D slices or to 3-D images, and probabilities back to their grid."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from nibabel import orientations
from scipy import ndimage

from mijax.data.intensity import check_intensity, normalise
from mijax.data.volume import Volume
from mijax.errors import UserError, times

PLANES = ("sagittal", "coronal", "axial")  # by the RAS+ axis that is cut across
_FITS = ("pad", "crop", "resize")
_LARGEST = 2**14  # pixels along an axis that is resampled
_WHAT = {2: "slices", 3: "volumes"}  # by the number of axes of an image


class Grid(NamedTuple):
    """How a stack of slices, or a 3-D image, lies on its volume; enough to go back.

    Attributes:
      shape: (3,) voxels of the volume as it came.
      orientation: (3, 2) for each axis as it came, the RAS+ axis it is nearest to and its sign.
      axis: the RAS+ axis across the slices, which is the depth of a 3-D image.
      native: native voxels of a slice (h, w) or of a 3-D image (d, h, w).
      start, size: of the window where the image shows the volume, along the same axes; with
        fit="crop" it may reach beyond the image.
    """

    shape: tuple[int, int, int]
    orientation: tuple[tuple[int, int], ...]
    axis: int
    native: tuple[int, ...]
    start: tuple[int, ...]
    size: tuple[int, ...]

    @property
    def in_plane(self) -> "Grid":
        """That of the slices of a 3-D image."""
        return self._replace(native=self.native[-2:], start=self.start[-2:], size=self.size[-2:])


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
        return _overlap(self.grid, self.image.shape[1:-1])[0]


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
    take the nearest voxel; edges of first and last pixels, not their centres, are aligned.

    Args:
      volume: as it came. Padding is labelled background, in a slice that nobody annotated too.
      size: h and w, or d, h and w; one number for all or as many as ``dims``.
      fit: "pad" with zeros on all sides; "crop": the same, and an axis that exceeds ``size`` is
        cut on both sides; or "resize".
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
    if fit == "resize":
        start, target_in_image = (0,) * dims, sizes
    else:
        start = tuple((n - t) // 2 for n, t in zip(sizes, target, strict=True))
        target_in_image = target
        if fit == "pad" and min(start) < 0:
            raise UserError(
                f"case {volume.name}: {_WHAT[dims]} of {times(target)} exceed data.slices.size "
                f"{times(sizes)}; raise data.slices.size or use data.slices.fit=resize or crop"
            )
    grid = Grid(
        shape=volume.image.shape[:3],
        orientation=tuple((int(a), int(sign)) for a, sign in orientation),
        axis=axis,
        native=stack(volume.image).shape[1:-1],
        start=start,
        size=target_in_image,
    )

    def fitted(values: np.ndarray, order: int) -> np.ndarray:
        values = _resize(stack(values), target, order)
        return _pad(_resize(values, grid.size, order), grid, sizes)

    image = fitted(normalise(volume.image, intensity=intensity, percentiles=percentiles), 1)
    label = None if volume.label is None else fitted(volume.label[..., None], 0)[..., 0]
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
    axes = _across_first(np.argsort(orientations.io_orientation(affine)[:, 0]), plane)[-dims:]
    wanted = (depth_spacing, spacing, spacing)[-dims:]
    pixels = []
    for axis, mm in zip(axes, wanted, strict=True):
        millimetres = int(shape[axis]) * np.linalg.norm(affine[:3, axis])
        pixels.append(int(shape[axis]) if mm is None else max(1, round(millimetres / mm)))
    if max(pixels) > _LARGEST:
        flags = {"depth_spacing": depth_spacing, "spacing": spacing}
        given = ", ".join(f"data.slices.{k}={v!r}" for k, v in flags.items() if v is not None)
        raise UserError(
            f"case {name}: {_WHAT[dims]} of {times(pixels)} pixels at {given}; raise it, or repair "
            "the voxel sizes of the file"
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
      grid: from ``to_slices``; of a 3-D image its ``in_plane``, for slices of ``along_depth``.

    Returns:
      (x, y, z, k) float32; of one slice that of the volume, see ``native_slice``.
    """
    inside, shown = _overlap(grid, values.shape[1:3])
    values = np.asarray(values, np.float32)[:, *inside]
    if values.shape[1:3] != grid.size:
        whole = _background((len(values), *grid.size, values.shape[3]))
        whole[:, *shown] = values
        values = whole
    volume = np.moveaxis(_resize(values, grid.native, 1), 0, grid.axis)
    ras = orientations.axcodes2ornt("RAS")
    back = orientations.ornt_transform(ras, np.array(grid.orientation, float))
    return np.ascontiguousarray(orientations.apply_orientation(volume, back))


def along_depth(planes: Iterable[np.ndarray], grid: Grid) -> Iterator[np.ndarray]:
    """Class probabilities of a 3-D image, as slices that lie as the native ones do.

    As ``to_native`` does in the plane: padding is left out, background made of what fit="crop"
    had cut away, and between two planes probabilities are interpolated linearly.

    Args:
      planes: (h, w, k) each, of the d planes of the image in their order.
      grid: of ``to_slices`` with dims=3.

    Yields:
      (1, h, w, k) float32 of each native slice, for ``to_native``; two planes are in memory.
    """
    size, native = grid.size[0], grid.native[0]
    window, held, last = _window_planes(planes, grid), deque(maxlen=2), -1
    for place in np.clip((np.arange(native) + 0.5) * size / native - 0.5, 0, size - 1):
        below = int(place)
        above = min(below + 1, size - 1)
        while last < above:
            held.append(next(window))
            last += 1
        weight = np.float32(place - below)
        between = (1 - weight) * held[0] + weight * held[-1] if weight else held[below - last - 1]
        yield between[None]
    for _ in window:  # what is left was padded
        pass


def _window_planes(planes, grid):
    """Those of the planes (h, w, k) that show the volume, and background where it was cut off."""
    start, size, count = grid.start[0], grid.size[0], 0
    for plane in planes:
        if not count:
            yield from (_background(plane.shape) for _ in range(-start))
        if start <= count < start + size:
            yield plane
        count += 1
    yield from (_background(plane.shape) for _ in range(start + size - count))


def _background(shape):
    """Probabilities (…, k) of which the first class has all."""
    probs = np.zeros(shape, np.float32)
    probs[..., 0] = 1
    return probs


def _axis_of(plane: str) -> int:
    if plane not in PLANES:
        raise UserError(f"data.slices.plane={plane!r}: must be one of {', '.join(PLANES)}")
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
        raise UserError(f"data.slices.fit={fit!r}: must be one of {', '.join(_FITS)}")
    if dims not in _WHAT:
        raise UserError(f"data.slices.dims={dims!r}: must be 2, for slices, or 3, for volumes")
    for name, mm in (("spacing", spacing), ("depth_spacing", depth_spacing)):
        if mm is not None and not mm > 0:
            raise UserError(f"data.slices.{name}={mm!r}: must be millimetres above 0, or None")
    if dims == 2 and depth_spacing is not None:
        raise UserError("data.slices.depth_spacing is for data.slices.dims=3")
    sizes = np.atleast_1d(size)
    if sizes.size not in (1, dims) or sizes.dtype.kind not in "iu" or sizes.min() < 1:
        number = {2: "two", 3: "three"}[dims]
        raise UserError(f"data.slices.size={size!r}: must be one or {number} whole numbers above 0")
    return tuple(int(n) for n in np.broadcast_to(sizes, dims))


def _cut(values: np.ndarray, orientation: np.ndarray, axis: int) -> np.ndarray:
    """(x, y, z, c) as it came -> (n, h, w, c) in RAS+ order."""
    return np.moveaxis(orientations.apply_orientation(values, orientation), axis, 0)


def _resize(values: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """(n, *space, c) -> (n, *shape, c); pixel i covers [i, i + 1), as align_corners=False."""
    n, *space, c = values.shape
    if tuple(space) == tuple(shape):
        return values
    zoom = np.divide(shape, space)
    result = np.empty((n, *shape, c), values.dtype)
    for i in range(n):
        for j in range(c):
            result[i, ..., j] = ndimage.zoom(
                values[i, ..., j], zoom, order=order, mode="nearest", grid_mode=True
            )
    return result


def _pad(values: np.ndarray, grid: Grid, shape: Sequence[int]) -> np.ndarray:
    """(n, *size, c) at its window in zeros of (n, *shape, c), cut where it ends."""
    inside, shown = _overlap(grid, shape)
    result = np.zeros((len(values), *shape, values.shape[-1]), values.dtype)
    result[:, *inside] = values[:, *shown]
    return result


def _overlap(grid: Grid, shape: Sequence[int]):
    """What a window and an image of this shape share, in the image and in the window."""
    each = list(zip(grid.start, grid.size, shape, strict=True))
    inside = tuple(slice(max(0, start), min(n, start + m)) for start, m, n in each)
    shown = tuple(slice(a.start - s, a.stop - s) for a, s in zip(inside, grid.start, strict=True))
    return inside, shown
