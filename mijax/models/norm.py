"""Batch normalisation that keeps the statistics of several streams of images apart."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


class StreamNorm(nn.Module):
    """BatchNorm over images that come in streams, each normalised by its own statistics.

    One stream is plain BatchNorm (Ioffe and Szegedy, ICML 2015). With several, labelled and
    unlabelled images pass the network in one batch without meeting in a mean: otherwise the
    network can tell them apart by it, and fit the one while it answers background to the other.

    Attributes:
      momentum: of the running statistics, which are those of the first stream.
      epsilon: added to the variance.
      dtype: of the result; statistics and parameters are float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, streams: Sequence[int] | None = None):
        """Normalises (b, h, w, c); ``streams`` are image counts that sum to b, by default (b,)."""
        channels = (x.shape[-1],)
        x = x.astype(jnp.float32)  # once, so that what comes back to it is added up in float32
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        mean, var = running_mean.value[None], running_var.value[None]
        # Nothing depends on it: what it has of the gradient is 0.
        near = jax.lax.stop_gradient(jnp.mean(x[:, 0], axis=1))
        # Rows of pixels and channels at once: so XLA sums the gradients as fast as it reads.
        rows = x.reshape(*x.shape[:2], -1) - jnp.tile(near, x.shape[2])[:, None]
        if train:
            streams = streams or (x.shape[0],)
            mean, var = _statistics(rows, near, x.shape[2], streams)
            if not self.is_initializing():
                for running, new in ((running_mean, mean[0]), (running_var, var[0])):
                    running.value = self.momentum * running.value + (1 - self.momentum) * new
            mean, var = (_product(_membership(streams).T, v) for v in (mean, var))
        factor = scale[None] / jnp.sqrt(var + self.epsilon)
        offset = bias[None] - (mean - near) * factor
        factor, offset = (jnp.tile(v, x.shape[2])[:, None] for v in (factor, offset))
        return (rows * factor + offset).astype(self.dtype).reshape(x.shape)


def _statistics(rows, near, width, streams):
    """Means and variances (s, c) of each stream of b images.

    One pass over the pixels of each image, as distances from the mean of its first row: about 0,
    the difference of two squares would leave nothing of a variance that is small beside them. A
    mean of one row in h that is d away from the image's makes the variance at least d²/h, so
    that no more than its last log₂ h bits are lost.

    Args:
      rows: (b, h, w · c), less ``near``.
      near: (b, c).
      width: w.
      streams: numbers of images.
    """
    b, h, _ = rows.shape
    shifted, square = (
        jnp.sum(jnp.sum(v, axis=1).reshape(b, width, -1), axis=1) / (h * width)
        for v in (rows, rows * rows)
    )
    mean, var = near + shifted, jnp.maximum(square - shifted * shifted, 0.0)
    # As products: slices of images that are divided over devices would be sent one by one.
    member = _membership(streams)
    share = member / np.sum(member, axis=1, keepdims=True)
    means = _product(share, mean)
    return means, _product(share, var + (mean - _product(member.T, means)) ** 2)


def _membership(streams):
    """(s, b) of 0 and 1: whether an image is of a stream."""
    stream_of = np.repeat(np.arange(len(streams)), streams)
    return (np.arange(len(streams))[:, None] == stream_of[None]).astype(np.float32)


def _product(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
