"""Convolutions of blocks against those of pixels."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models.blocks import (
    BlockConv,
    UpConv,
    _at_once,
    _one_by_one,
    _taps,
    to_blocks,
    to_pixels,
)

KEY = jax.random.key(0)


class Plain(nn.Module):
    """Its definition."""

    @nn.compact
    def __call__(self, x):
        x = x.repeat(2, axis=1).repeat(2, axis=2)
        return nn.Conv(5, (3, 3), use_bias=False, name="Up")(x)


class Fused(nn.Module):
    @nn.compact
    def __call__(self, x):
        return to_pixels(UpConv(5, name="Up")(x))


def assert_alike(model, definition, x):
    """Values, gradients and shapes of parameters of two modules."""
    variables = jax.jit(definition.init)(KEY, x)
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(model.init, KEY, x))
    assert jax.tree.map(jnp.shape, variables) == shapes
    shape = jax.eval_shape(definition.apply, variables, x).shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def results(module):
        out, pull = jax.vjp(module.apply, variables, x)
        return out, *pull(cotangent)

    ours, theirs = jax.jit(lambda: (results(model), results(definition)))()
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (1, 3)])
def test_upsampling_then_convolution(size):
    assert_alike(Fused(), Plain(), images(2, *size, 3))


def test_both_ways_are_one():
    """That of a CPU, and that of all others."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, 4, 3), (3, 3, 3, 7)))
    one, other = (jax.jit(f)(x, _taps(kernel)) for f in (_one_by_one, _at_once))
    assert one.shape == (2, 5, 4, 4 * 7)
    assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_only_the_result_is_of_the_compute_type():
    layer = UpConv(5, dtype=jnp.bfloat16)
    x = np.ones((1, 2, 2, 3), np.float32)
    out, variables = jax.eval_shape(layer.init_with_output, KEY, x)
    assert out.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32


class InBlocks(nn.Module):
    @nn.compact
    def __call__(self, x):
        return to_pixels(BlockConv(5, name="layer")(to_blocks(x)))


class OfPixels(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(5, (3, 3), use_bias=False, name="layer")(x)


@pytest.mark.parametrize("size", [(4, 6), (2, 2)])
def test_a_convolution_in_blocks(size):
    assert_alike(InBlocks(), OfPixels(), images(2, *size, 3))


def test_channels_come_from_several_images():
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(2, 4, 6, c)).astype(np.float32) for c in (3, 2))

    @jax.jit
    def results(kernel):
        found = BlockConv(5).apply({"params": {"kernel": kernel}}, to_blocks(one), to_blocks(two))
        whole = np.concatenate([one, two], -1)
        expected = OfPixels().apply({"params": {"layer": {"kernel": kernel}}}, whole)
        return to_pixels(found), expected

    found, expected = results(rng.normal(size=(3, 3, 5, 5)).astype(np.float32))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_are_rows_of_two_pixels_each():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    blocks = to_blocks(x)
    assert blocks.shape == (2, 2, 3, 12)
    assert (blocks[1, 1, 2] == x[1, 2:4, 4:6].reshape(12)).all()
    assert (to_pixels(blocks) == x).all()
