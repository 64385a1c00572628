"""Convolutions of slices and of blocks against those of Linen."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models.blocks import BlockConv, to_blocks, to_pixels
from mijax.models.conv import (
    Conv,
    UpConv,
    _at_once,
    _by_slices,
    _direct,
    _one_by_one,
    _paddings,
    _taps,
)

KEY = jax.random.key(0)


class Model(nn.Module):
    """A function that makes a layer of that name."""

    function: callable

    @nn.compact
    def __call__(self, x):
        return self.function(x)


def assert_alike(model, definition, x):
    """Values, gradients and first parameters of two functions that make a layer."""
    model, definition = Model(model), Model(definition)
    shape = jax.eval_shape(lambda: definition.init_with_output(KEY, x))[0].shape
    cotangent = np.random.default_rng(1).normal(size=shape).astype(np.float32)

    def results(module):
        variables = module.init(KEY, x)
        out, pull = jax.vjp(module.apply, variables, x)
        return out, variables, *pull(cotangent)

    ours, theirs = jax.jit(lambda: (results(model), results(definition)))()
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=2e-5), ours, theirs)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "kernel"), [((4, 5), (3, 3)), ((4, 3, 5), (3, 3, 3)), ((1, 4, 3), (3, 1, 3))]
)
@pytest.mark.parametrize("use_bias", [False, True])
def test_a_convolution(size, kernel, use_bias):
    assert_alike(
        lambda x: Conv(5, kernel, use_bias=use_bias, name="layer")(x),
        lambda x: nn.Conv(5, kernel, use_bias=use_bias, name="layer")(x),
        images(2, *size, 3),
    )


@pytest.mark.parametrize(
    ("size", "kernel", "strides"),
    [
        ((4, 6), (3, 3), (2, 2)),
        ((1, 1), (3, 3), (2, 2)),
        ((1, 3), (3, 3), (1, 2)),
        ((3, 2, 4), (3, 3, 3), (2, 2, 2)),
        ((3, 2, 1), (1, 3, 3), (1, 2, 2)),
        ((3, 4, 2), (3, 1, 3), (1, 2, 1)),
    ],
)
def test_upsampling_then_convolution(size, kernel, strides):
    def definition(x):
        for axis, stride in enumerate(strides, start=1):
            x = x.repeat(stride, axis=axis)
        return nn.Conv(5, kernel, use_bias=False, name="Up")(x)

    def ours(x):
        return to_pixels(UpConv(5, kernel, strides, name="Up")(x), strides)

    assert_alike(ours, definition, images(2, *size, 3))


def assert_both_ways_are_one(one, other, *arrays):
    """That of a CPU, and that of all others: values and gradients."""

    @jax.jit
    def results():
        (a, pull_a), (b, pull_b) = jax.vjp(one, *arrays), jax.vjp(other, *arrays)
        return (a, pull_a(jnp.cos(a))), (b, pull_b(jnp.cos(b)))

    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results())


@pytest.mark.parametrize(
    ("size", "kernel", "strides"),
    [
        ((5, 4), (3, 3), (2, 2)),
        ((2, 3, 4), (3, 3, 3), (2, 2, 2)),
        ((2, 3, 4), (1, 3, 3), (1, 2, 1)),
    ],
)
def test_upsampling_is_one_on_all_platforms(size, kernel, strides):
    def upsample(way):
        paddings = _paddings(kernel, strides)
        return lambda x, k: way(x, _taps(k, strides), paddings)

    both = upsample(_one_by_one), upsample(_at_once)
    assert_both_ways_are_one(*both, images(2, *size, 3), images(*kernel, 3, 7))


@pytest.mark.parametrize("padding", [(1, 1), (1, 0), (0, 1)])
def test_a_convolution_is_one_on_all_platforms(padding):
    kernel = images(1 + sum(padding), 3, 3, 3, 4)
    both = (functools.partial(f, padding=(padding, (1, 1), (1, 1))) for f in (_by_slices, _direct))
    assert_both_ways_are_one(*both, images(2, 4, 5, 3, 3), kernel)


@pytest.mark.parametrize("layer", [Conv(5, (1, 3, 3)), UpConv(5, (1, 3, 3), (1, 2, 2))])
def test_only_the_result_is_of_the_compute_type(layer):
    x = np.ones((1, 2, 2, 2, 3), np.float32)
    layer = layer.clone(dtype=jnp.bfloat16)
    out, variables = jax.eval_shape(layer.init_with_output, KEY, x)
    assert out.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32


@pytest.mark.parametrize("size", [(4, 6), (2, 2)])
def test_a_convolution_in_blocks(size):
    assert_alike(
        lambda x: to_pixels(BlockConv(5, name="layer")(to_blocks(x))),
        lambda x: nn.Conv(5, (3, 3), use_bias=False, name="layer")(x),
        images(2, *size, 3),
    )


def test_channels_come_from_several_images():
    rng = np.random.default_rng(0)
    one, two = (rng.normal(size=(2, 4, 6, c)).astype(np.float32) for c in (3, 2))

    @jax.jit
    def results(kernel):
        variables = {"params": {"kernel": kernel}}
        found = BlockConv(5).apply(variables, to_blocks(one), to_blocks(two))
        expected = nn.Conv(5, (3, 3), use_bias=False).apply(
            variables, np.concatenate([one, two], -1)
        )
        return to_pixels(found), expected

    found, expected = results(rng.normal(size=(3, 3, 5, 5)).astype(np.float32))
    assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_blocks_are_rows_of_two_pixels_each():
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    blocks = to_blocks(x)
    assert blocks.shape == (2, 2, 3, 12)
    assert (blocks[1, 1, 2] == x[1, 2:4, 4:6].reshape(12)).all()
    assert (to_pixels(blocks) == x).all()


def test_blocks_of_voxels():
    x = np.arange(2 * 3 * 4 * 5 * 8 * 7).reshape(2, 3, 4, 5, 8 * 7)
    voxels = to_pixels(x, (2, 1, 4))
    assert voxels.shape == (2, 6, 4, 20, 7)
    block = voxels[1, 4:6, 3:4, 8:12]
    assert (block == x[1, 2, 3, 2].reshape(2, 1, 4, 7)).all()
