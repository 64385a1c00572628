"""Volumes of unequal sizes in one array, and patches cut from them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["values", "starts", "sizes"], meta_fields=[]
)
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Arrays (d, h, w, …), one behind the other, on the host or on a device.

    Rows of unequal lengths are filled with 0 to one width, so that a part of a slice is one piece
    of ``values``, as chips copy it.

    Attributes:
      values: (rows of all, width, …), with some more rows before and behind them.
      starts: (n,) the first row of each array.
      sizes: (n, 3) of each.
    """

    values: jax.Array
    starts: jax.Array
    sizes: jax.Array

    def __len__(self):
        return len(self.starts)


def packed(arrays, *, box):
    """A ``Ragged`` of arrays (d, h, w, …) of the host, for patches of at most ``box`` (d, h, w).

    Bytes become int32 for a TPU: its compiler copies all bytes for each piece that is cut of them.
    """
    sizes = np.array([x.shape[:3] for x in arrays], np.int32)
    ends = box[1] + np.cumsum(sizes[:, 0] * sizes[:, 1])
    inner = arrays[0].shape[3:]
    width = max(box[2], sizes[:, 2].max())
    dtype = arrays[0].dtype
    dtype = np.int32 if dtype == np.uint8 and jax.default_backend() == "tpu" else dtype
    values = np.zeros((ends[-1] + box[1], width, *inner), dtype)
    starts = np.array([box[1], *ends[:-1]], np.int32)
    ragged = Ragged(values, starts, sizes)
    for own, array in zip(arrays_of(ragged), arrays, strict=True):
        own[...] = array
    return ragged


def arrays_of(arrays):
    """The arrays of a ``Ragged`` of the host, as views; or one that is an array itself."""
    if not isinstance(arrays, Ragged):
        return [arrays]
    width, inner = arrays.values.shape[1], arrays.values.shape[2:]
    return [
        arrays.values[start : start + d * h].reshape(d, h, width, *inner)[:, :, :w]
        for start, (d, h, w) in zip(arrays.starts, arrays.sizes, strict=True)
    ]


def patches(ragged, index, centres, size):
    """Cuts a patch from each of some of the arrays; what is outside of an array is 0.

    Args:
      ragged: ``Ragged`` of the host or of a device.
      index: (b,) of the arrays.
      centres: (b, 3) voxels; of an even size, the one behind the middle.
      size: (d, h, w) of the patches, at most the box that they were packed for.

    Returns:
      (b, d, h, w, …), on the host or on the device.
    """
    corner = centres - np.int32(size)[None] // 2
    if isinstance(ragged.values, np.ndarray):
        arrays = arrays_of(ragged)
        return np.stack([_patch(arrays[i], c, size) for i, c in zip(index, corner, strict=True)])
    most, width = ragged.sizes[index], ragged.values.shape[1]
    inner = ragged.values.shape[2:]

    def inside(axis):  # (b, n) coordinates, and whether they are of the array
        at = corner[:, axis, None] + jnp.arange(size[axis], dtype=jnp.int32)[None]
        return at, (at >= 0) & (at < most[:, axis, None])

    def cut(array, *at, shape):
        return jax.lax.dynamic_slice(array, (*at, *[0] * len(inner)), (*shape, *inner))

    (z, in_z), (_, in_y), (_, in_x) = map(inside, range(3))
    # Of each slice a piece, whose upper and lower end may be of the slices beside it
    top = jnp.clip(corner[:, 1:2], -size[1], most[:, 1:2]) + ragged.starts[index][:, None]
    row = top + jnp.clip(z, 0, most[:, :1] - 1) * most[:, 1:2]
    left = jnp.clip(corner[:, 2], 0, width - size[2])
    pieces = jax.vmap(jax.vmap(lambda y, x: cut(ragged.values, y, x, shape=size[1:]), (0, None)))
    found = pieces(row, left)
    # and that lies too far left or right where the patch goes on beyond the width.
    around = jnp.pad(found, [(0, 0)] * 3 + [(size[2], size[2])] + [(0, 0)] * len(inner))
    moved = jnp.clip(corner[:, 2] - left, -size[2], size[2]) + size[2]
    found = jax.vmap(lambda patch, x: cut(patch, 0, 0, x, shape=size))(around, moved)
    shown = in_z[:, :, None, None] & in_y[:, None, :, None] & in_x[:, None, None, :]
    return jnp.where(shown.reshape(*shown.shape, *[1] * len(inner)), found, 0)


def _patch(array, corner, size):
    shape = array.shape[:3]
    first, last = np.clip(corner, 0, shape), np.clip(corner + size, 0, shape)
    patch = np.zeros((*size, *array.shape[3:]), array.dtype)
    there = [slice(a, b) for a, b in zip(first - corner, last - corner, strict=True)]
    patch[*there] = array[*(slice(a, b) for a, b in zip(first, last, strict=True))]
    return patch
