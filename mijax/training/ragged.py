"""Volumes of unequal sizes in one array, and patches cut from them."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["values", "starts", "sizes"],
    meta_fields=["margin"],
)
@dataclasses.dataclass(frozen=True)
class Ragged:
    """Arrays (d, h, w, …), voxel behind voxel, on the host or on a device.

    Attributes:
      values: (voxels of all, …), with ``margin`` more of 0 before and behind them.
      starts: (n,) where the voxels of each array begin.
      sizes: (n, 3) of each.
      margin: voxels, as many as the width of a patch at least.
    """

    values: jax.Array
    starts: jax.Array
    sizes: jax.Array
    margin: int

    def __len__(self):
        return len(self.starts)


def packed(arrays, *, margin):
    """A ``Ragged`` of arrays (d, h, w, …) of the host."""
    sizes = np.array([x.shape[:3] for x in arrays], np.int32)
    ends = margin + np.cumsum(np.prod(sizes, 1, dtype=np.int64))
    inner = arrays[0].shape[3:]
    values = np.zeros((ends[-1] + margin, *inner), arrays[0].dtype)
    starts = np.array([margin, *ends[:-1]])
    for start, end, array in zip(starts, ends, arrays, strict=True):
        values[start:end] = array.reshape(-1, *inner)
    return Ragged(values, starts, sizes, margin)


def arrays_of(arrays):
    """The arrays of a ``Ragged`` of the host, as views; or one that is an array itself."""
    if not isinstance(arrays, Ragged):
        return [arrays]
    counts = np.prod(arrays.sizes, 1, dtype=np.int64)
    return [
        arrays.values[start : start + count].reshape(*size, *arrays.values.shape[1:])
        for start, count, size in zip(arrays.starts, counts, arrays.sizes, strict=True)
    ]


def patches(ragged, index, centres, size):
    """Cuts a patch from each of some of the arrays; what is outside of an array is 0.

    Args:
      ragged: ``Ragged`` of the host or of a device.
      index: (b,) of the arrays.
      centres: (b, 3) voxels; of an even size, the one behind the middle.
      size: (d, h, w) of the patches, w at most ``margin``.

    Returns:
      (b, d, h, w, …), on the host or on the device.
    """
    corner = centres - np.int32(size)[None] // 2
    if isinstance(ragged.values, np.ndarray):
        arrays = arrays_of(ragged)
        return np.stack([_patch(arrays[i], c, size) for i, c in zip(index, corner, strict=True)])
    most = ragged.sizes[index]

    def inside(axis):  # (b, n) coordinates, and whether they are of the array
        at = corner[:, axis, None] + jnp.arange(size[axis], dtype=jnp.int32)[None]
        return at, (at >= 0) & (at < most[:, axis, None])

    (z, in_z), (y, in_y), (_, in_x) = map(inside, range(3))
    height, width = most[:, 1, None, None], most[:, 2, None, None]
    z, y = (jnp.clip(at, 0, most[:, i, None] - 1) for i, at in enumerate((z, y)))
    row = (z[:, :, None] * height + y[:, None, :]) * width + corner[:, 2, None, None]
    row = (row + ragged.starts[index][:, None, None]).ravel()
    # Whole lines, of which those at the ends of an array go on in the next one.
    line = (size[2], *ragged.values.shape[1:])
    origin = (0,) * (ragged.values.ndim - 1)
    found = jax.vmap(lambda at: jax.lax.dynamic_slice(ragged.values, (at, *origin), line))(row)
    found = found.reshape(len(index), *size, *line[1:])
    shown = in_z[:, :, None, None] & in_y[:, None, :, None] & in_x[:, None, None, :]
    return jnp.where(shown.reshape(*shown.shape, *[1] * len(origin)), found, 0)


def _patch(array, corner, size):
    shape = array.shape[:3]
    first, last = np.clip(corner, 0, shape), np.clip(corner + size, 0, shape)
    patch = np.zeros((*size, *array.shape[3:]), array.dtype)
    there = [slice(a, b) for a, b in zip(first - corner, last - corner, strict=True)]
    patch[*there] = array[*(slice(a, b) for a, b in zip(first, last, strict=True))]
    return patch
