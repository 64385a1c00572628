"""Batch normalisation that keeps the statistics of several streams of images apart."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


class StreamNorm(nn.Module):
    """BatchNorm over images that come in streams, each normalised by its own statistics.

    One stream is plain BatchNorm (Ioffe and Szegedy, ICML 2015). With several, labelled and
    unlabelled images pass the network in one batch without meeting in a mean: otherwise the
    network can tell them apart by it, and fit the one while it answers background to the other.

    Variances are those of the distances from the running mean, so that as many digits are lost of
    them as the square of the mean's distance from it, in standard deviations, has: none that matter
    once the running mean has come near. Running statistics have no gradient.

    Attributes:
      momentum: of the running statistics, which are those of the first stream.
      epsilon: added to the variance.
      relu: whether a ReLU follows; as one with it, its result need not be kept for the gradient.
      dtype: of the result; statistics and parameters are float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    relu: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, streams: Sequence[int] | None = None):
        """Normalises (b, h, w, c); ``streams`` are image counts that sum to b, by default (b,)."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels)
        kind = _Kind(tuple(streams or (x.shape[0],)), self.epsilon, self.relu, self.dtype)
        if not train:
            factor, offset = _factor_and_offset(
                running_mean.value[None], running_var.value[None], scale, bias, kind
            )
            return _result(x, factor, offset, kind)
        result, mean, var = _normalise(x, scale, bias, running_mean.value, kind)
        if not self.is_initializing():
            for running, new in ((running_mean, mean[0]), (running_var, var[0])):
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return result


class _Kind(NamedTuple):
    streams: tuple[int, ...]
    epsilon: float
    relu: bool
    dtype: jnp.dtype


# With a gradient of its own, which reads x twice and keeps nothing of its size but x. Whatever is
# as small as a number a channel is computed for every image: (b, c), not (number of streams, c).
@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise(x, scale, bias, origin, kind):
    """The result, and the mean and the variance (b, c) that each image was normalised by."""
    return _forward(x, scale, bias, origin, kind)[0]


def _forward(x, scale, bias, origin, kind):
    distances = _rows(x) - _tile(origin[None], x)
    means = _image_means(x, distances, distances * distances)
    shift, square = (_stream_means(v, kind) for v in means)
    # Once, for all that follows: XLA would compute it again in every program that reads it.
    mean, var = lax.optimization_barrier(
        (origin[None] + shift, jnp.maximum(square - shift * shift, 0.0))
    )
    factor, offset = _factor_and_offset(mean, var, scale, bias, kind)
    outputs = _result(x, factor, offset, kind), mean, var
    return outputs, (x, mean, var, factor, offset)


def _backward(kind, residuals, cotangents):
    x, mean, var, factor, offset = residuals
    variance = var + kind.epsilon

    def incoming(factor, offset):
        cotangent = _rows(cotangents[0])
        return jnp.where(_affine(x, factor, offset) > 0, cotangent, 0) if kind.relu else cotangent

    cotangent = incoming(factor, offset)
    level, product = _image_means(x, cotangent, cotangent * _rows(x))
    stream_level, stream_product = (_stream_means(v, kind) for v in (level, product))
    slope = -factor * (stream_product - mean * stream_level) / variance
    base = -factor * stream_level - mean * slope
    # Where the ReLU was open: a GPU finds that again faster than it reads it, a CPU does not.
    again = lax.platform_dependent(
        (factor, offset), cpu=lambda same: same, default=lax.optimization_barrier
    )
    cotangent = incoming(*again)
    to_x = _tile(factor, x) * cotangent + _affine(x, slope, base)
    pixels = x.shape[1] * x.shape[2]
    to_scale = jnp.sum((product - mean * level) / jnp.sqrt(variance), axis=0) * pixels
    to_bias = jnp.sum(level, axis=0) * pixels
    return to_x.astype(x.dtype).reshape(x.shape), to_scale, to_bias, jnp.zeros_like(mean[0])


_normalise.defvjp(_forward, _backward)


def _factor_and_offset(mean, var, scale, bias, kind):
    factor = scale[None] / jnp.sqrt(var + kind.epsilon)
    return factor, bias[None] - mean * factor


def _result(x, factor, offset, kind):
    y = _affine(x, factor, offset)
    return (jnp.maximum(y, 0) if kind.relu else y).astype(kind.dtype).reshape(x.shape)


def _affine(x, factor, offset):
    return _rows(x) * _tile(factor, x) + _tile(offset, x)


def _rows(x):
    """Rows of pixels and channels at once, (b, h, w · c): so XLA sums as fast as it reads."""
    return x.astype(jnp.float32).reshape(*x.shape[:2], -1)


def _tile(v, x):
    """(b, c) for every pixel of such rows."""
    return jnp.tile(v, x.shape[2])[:, None]


def _image_means(x, *rows):
    """Means (n, b, c) over the pixels of each image, of n values (b, h, w · c)."""
    b, h, w, c = x.shape
    columns = jnp.stack([jnp.sum(v, axis=1) for v in rows]).reshape(-1, b, w, c)
    return jnp.sum(columns, axis=2) / (h * w)


def _stream_means(v, kind):
    """Means over the images of a stream, for each of its images: (b, c) -> (b, c).

    As a product: slices of images that are divided over devices would be sent one by one.
    """
    stream_of = np.repeat(np.arange(len(kind.streams)), kind.streams)
    same = stream_of[:, None] == stream_of[None]
    share = (same / same.sum(axis=1, keepdims=True)).astype(np.float32)
    return jnp.sum(share[:, :, None] * v[None], axis=1)
