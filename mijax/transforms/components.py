"""The largest connected region of each class, on the device."""

import math

import jax
import jax.numpy as jnp

from mijax.transforms.checks import check_labels


def largest_components(labels, num_classes):
    """Keeps the largest connected region of each class of each image; the rest is background.

    Pixels are connected to their 8 neighbours, voxels of a volume to their 26. Every pixel takes
    the largest number among its neighbours and then that pixel's own, until none changes: a number
    of rounds that grows with the logarithm of the length of a region, or so.

    Args:
      labels: (b, h, w) or (b, d, h, w) integers, 0 for background.
      num_classes: with the background.

    Returns:
      Of the shape and type of ``labels``. Of two regions of the same size, the first is kept: that
      nearer to the front, or the upper one.

    Raises:
      ValueError: for labels without a batch axis.

    >>> largest_components(jnp.array([[[1, 0, 1, 1, 2]]]), 3)
    Array([[[0, 0, 1, 1, 2]]], dtype=int32)
    """
    check_labels(labels)
    b, *space = labels.shape
    count, window = math.prod(space), (1, 1, *[3] * len(space))
    classes = jnp.arange(1, num_classes, dtype=jnp.int32)[(None, ..., *[None] * len(space))]
    inside = labels[:, None].astype(jnp.int32) == classes  # (b, k, *space)
    # Numbers fall from the first pixel on, so that a region has that of its first pixel.
    number = jnp.where(inside, count - jnp.arange(count).reshape(1, 1, *space), 0)

    def advance(state):
        numbers, _ = state
        near = jax.lax.reduce_window(numbers, 0, jax.lax.max, window, [1] * len(window), "SAME")
        new = jnp.where(inside, near, 0).reshape(b, -1, count)
        further = jnp.take_along_axis(new, jnp.maximum(count - new, 0) % count, axis=-1)
        new = jnp.where(inside, further.reshape(numbers.shape), 0)
        return new, jnp.any(new != numbers)

    numbers, _ = jax.lax.while_loop(lambda state: state[1], advance, (number, jnp.any(inside)))
    flat = numbers.reshape(-1, count)
    sizes = jax.vmap(lambda n: jnp.zeros(count + 1, jnp.int32).at[n].add(1))(flat).at[:, 0].set(0)
    # From the end: of equal sizes, the highest number, which is the first region.
    largest = count - jnp.argmax(sizes[:, ::-1], axis=-1)
    kept = (flat == largest[:, None]) & (flat > 0)
    kept = kept.reshape(inside.shape)
    return jnp.sum(jnp.where(kept, classes, 0), axis=1).astype(labels.dtype)
