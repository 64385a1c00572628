"""How an image lies on the volume that it was made of, and class probabilities on the way back."""

import functools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from nibabel import orientations
from scipy import ndimage

_TIE = 1e-3  # of a pixel, which decides between labels with as much of one


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
    inside, shown = overlap(grid, values.shape[1:3])
    values = np.asarray(values, np.float32)[:, *inside]
    if values.shape[1:3] != grid.size:
        whole = _background((len(values), *grid.size, values.shape[3]))
        whole[:, *shown] = values
        values = whole
    volume = np.moveaxis(resize(values, grid.native), 0, grid.axis)
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


def native_slice(grid: Grid, place: int) -> tuple[slice, ...]:
    """Index of the slice ``place`` in the volume as it came, (x, y, z, …)."""
    axis = [ras for ras, _ in grid.orientation].index(grid.axis)
    index = place if grid.orientation[axis][1] > 0 else grid.shape[axis] - 1 - place
    return (slice(None),) * axis + (slice(index, index + 1),)


def resize(values: np.ndarray, shape: Sequence[int], order: int = 1) -> np.ndarray:
    """(n, *space, c) -> (n, *shape, c); pixel i covers [i, i + 1), as align_corners=False.

    Interpolates linearly, or with an order of 0 takes the nearest pixel; of two as near always the
    later one, which moves all by half a pixel at half the size.
    """
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


def resize_labels(labels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """(n, *space, 1) -> (n, *shape, 1): of which label linear interpolation finds most.

    Of labels with as much, that of the nearest pixel, with two as near now of the one side and now
    of the other, as on a chessboard: what always took one side would move all by half a pixel.
    """
    if labels.shape[1:-1] == tuple(shape):
        return labels
    axes = tuple(range(1, labels.ndim - 1))
    later = resize(labels, shape, 0)
    earlier = np.flip(resize(np.flip(labels, axes), shape, 0), axes)
    odd = functools.reduce(np.add, np.indices(shape, np.uint16, sparse=True)) % 2 == 1
    nearest = np.where(odd[..., None], later, earlier)
    found, most = nearest.copy(), np.full(nearest.shape, -1.0, np.float32)
    for label in np.unique(labels):
        amount = resize((labels == label).astype(np.float32), shape)
        np.add(amount, np.float32(_TIE), out=amount, where=nearest == label)
        np.copyto(found, label, where=amount > most)
        np.maximum(amount, most, out=most)
    return found


def overlap(grid: Grid, shape: Sequence[int]):
    """What a window and an image of this shape share, in the image and in the window."""
    each = list(zip(grid.start, grid.size, shape, strict=True))
    inside = tuple(slice(max(0, start), min(n, start + m)) for start, m, n in each)
    shown = tuple(slice(a.start - s, a.stop - s) for a, s in zip(inside, grid.start, strict=True))
    return inside, shown
