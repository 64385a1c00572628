"""Normalisation by the statistics of each stream of images, or of each image."""

import functools
import math
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
      momentum: of the running statistics, which are those of stream 0.
      epsilon: added to the variance.
      relu: whether a ReLU follows; as one with it, its result need not be kept for the gradient.
      pixels: how many of them the last axis holds, one after another, each with all channels.
      rows: whether a row of pixels is one vector, which CPUs and GPUs sum as fast as they read
        it; TPUs do not.
      dtype: of the result; statistics and parameters are float32.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    relu: bool = False
    pixels: int = 1
    rows: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train, streams: Sequence[int] | None = None):
        """Normalises (b, *space, pixels · c).

        ``streams`` says of which stream, from 0, each of the b images is; by default all are of
        one. The first image is of stream 0.
        """
        channels = (x.shape[-1] // self.pixels,)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        running_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
        kind = _Kind(
            streams=tuple(streams or (0,) * x.shape[0]) if train else (),
            epsilon=self.epsilon,
            relu=self.relu,
            channels=channels[0],
            rows=self.rows,
            dtype=self.dtype,
        )
        if not train:
            factor, offset = _factor_and_offset(
                running_mean.value[None], running_var.value[None], scale, bias, kind
            )
            return _result(x, factor, offset, kind)
        mean = running_mean.value[None]
        result, mean, var = _normalise(*_alike(x, scale, bias, mean), kind)
        if not self.is_initializing():
            for running, new in ((running_mean, mean[0]), (running_var, var[0])):
                running.value = self.momentum * running.value + (1 - self.momentum) * new
        return result


class InstanceNorm(nn.Module):
    """InstanceNorm: each channel of each image is normalised by its own statistics, always.

    For batches of few images, whose statistics are poor; as nnU-Net has it. It needs no running
    ones, and what it makes of an image never hangs on another.

    Attributes: as of ``StreamNorm``.

    Reference: Ulyanov et al., Instance normalization, 2016.
    """

    epsilon: float = 1e-5
    relu: bool = False
    pixels: int = 1
    rows: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, train=None, streams=None):
        """Normalises (b, *space, pixels · c), whatever ``train`` and ``streams`` of others are."""
        channels = (x.shape[-1] // self.pixels,)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        kind = _Kind(
            streams=None,
            epsilon=self.epsilon,
            relu=self.relu,
            channels=channels[0],
            rows=self.rows,
            dtype=self.dtype,
        )
        # With no running mean to be near, a pass of its own for the mean.
        origin = _image_means(_vectors(lax.stop_gradient(x), kind), kind=kind)[0]
        return _normalise(*_alike(x, scale, bias, origin), kind)[0]


def _alike(*arrays):
    """Arrays that vary over the same devices, as ``shard_map`` asks of a gradient of one's own.

    What JAX has then to add over devices, of parameters that are the same on all, it adds outside.
    """
    varying = [jax.typeof(a).manual_axis_type.varying for a in arrays]
    axes = frozenset.union(*varying)
    return [
        lax.pcast(a, tuple(axes - own), to="varying")
        for a, own in zip(arrays, varying, strict=True)
    ]


class _Kind(NamedTuple):
    streams: tuple[int, ...] | None  # None: each image is one of its own
    epsilon: float
    relu: bool
    channels: int
    rows: bool
    dtype: jnp.dtype


# With a gradient of its own, which reads x twice and keeps nothing of its size but x. Whatever is
# as small as a number a channel is computed for every image: (b, c), not (number of streams, c).
@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _normalise(x, scale, bias, origin, kind):
    """The result, and the mean and the variance (b, c) that each image was normalised by.

    Values are measured from ``origin``, (1, c) or (b, c), which changes their rounding alone.
    """
    return _forward(x, scale, bias, origin, kind)[0]


def _forward(x, scale, bias, origin, kind):
    distances = _vectors(x, kind)
    distances -= _tile(origin, distances)
    means = _image_means(distances, distances * distances, kind=kind)
    shift, square = (_stream_means(v, kind) for v in means)
    # Once, for all that follows: XLA would compute it again in every program that reads it.
    mean, var = lax.optimization_barrier((origin + shift, jnp.maximum(square - shift * shift, 0.0)))
    factor, offset = _factor_and_offset(mean, var, scale, bias, kind)
    outputs = _result(x, factor, offset, kind), mean, var
    return outputs, (x, mean, var, factor, offset)


def _backward(kind, residuals, cotangents):
    x, mean, var, factor, offset = residuals
    vectors, variance = _vectors(x, kind), var + kind.epsilon

    def incoming(factor, offset):
        cotangent = _vectors(cotangents[0], kind)
        if not kind.relu:
            return cotangent
        return jnp.where(_affine(vectors, factor, offset) > 0, cotangent, 0)

    cotangent = incoming(factor, offset)
    level, product = _image_means(cotangent, cotangent * vectors, kind=kind)
    stream_level, stream_product = (_stream_means(v, kind) for v in (level, product))
    slope = -factor * (stream_product - mean * stream_level) / variance
    base = -factor * stream_level - mean * slope
    # Where the ReLU was open: a GPU finds that again faster than it reads it, a CPU does not.
    again = lax.platform_dependent(
        (factor, offset), cpu=lambda same: same, default=lax.optimization_barrier
    )
    cotangent = incoming(*again)
    to_x = _tile(factor, vectors) * cotangent + _affine(vectors, slope, base)
    to_scale, to_bias = (
        jnp.sum(v, axis=0) * (x[0].size // kind.channels)
        for v in ((product - mean * level) / jnp.sqrt(variance), level)
    )
    return to_x.astype(x.dtype).reshape(x.shape), to_scale, to_bias, None


_normalise.defvjp(_forward, _backward)


def _factor_and_offset(mean, var, scale, bias, kind):
    factor = scale[None] / jnp.sqrt(var + kind.epsilon)
    return factor, bias[None] - mean * factor


def _result(x, factor, offset, kind):
    y = _affine(_vectors(x, kind), factor, offset)
    return (jnp.maximum(y, 0) if kind.relu else y).astype(kind.dtype).reshape(x.shape)


def _affine(vectors, factor, offset):
    return vectors * _tile(factor, vectors) + _tile(offset, vectors)


def _vectors(x, kind):
    """In float32, and as (b, all rows, w · channels) where rows are vectors."""
    x = x.astype(jnp.float32)
    return x.reshape(x.shape[0], math.prod(x.shape[1:-2]), -1) if kind.rows else x


def _tile(v, vectors):
    """(b, c) for every pixel of such vectors."""
    v = jnp.tile(v, vectors.shape[-1] // v.shape[-1])
    return v.reshape(v.shape[0], *(1 for _ in vectors.shape[1:-1]), -1)


def _image_means(*vectors, kind):
    """Means (n, b, c) over the pixels of each image, of n values as of ``_vectors``."""
    sums = jnp.stack([jnp.sum(v, axis=tuple(range(1, v.ndim - 1))) for v in vectors])
    sums = jnp.sum(sums.reshape(*sums.shape[:2], -1, kind.channels), axis=2)
    return sums / (vectors[0][0].size // kind.channels)


def _stream_means(v, kind):
    """Means over the images of a stream, for each of its images: (b, c) -> (b, c).

    As a product: slices of images that are divided over devices would be sent one by one.
    """
    if kind.streams is None:
        return v
    stream_of = np.array(kind.streams)
    same = stream_of[:, None] == stream_of[None]
    share = (same / same.sum(axis=1, keepdims=True)).astype(np.float32)
    return jnp.sum(share[:, :, None] * v[None], axis=1)
