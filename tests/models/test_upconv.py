"""Upsampling and convolution in one, against the two after each other."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models.upconv import UpConv, _at_once, _one_by_one, _taps, interleave

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
        return interleave(UpConv(5, name="Up")(x))


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (1, 3)])
def test_upsampling_then_convolution(size):
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    variables = Plain().init(KEY, x)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, Fused().init(KEY, x))
    cotangent = np.random.default_rng(1).normal(size=(2, 2 * size[0], 2 * size[1], 5))

    def results(model):
        out, pull = jax.vjp(model.apply, variables, x)
        return out, *pull(cotangent.astype(np.float32))

    jax.tree.map(
        lambda a, b: assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        jax.jit(lambda: results(Fused()))(),
        jax.jit(lambda: results(Plain()))(),
    )


def test_both_ways_are_one():
    """That of a CPU, and that of all others."""
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((2, 5, 4, 3), (3, 3, 3, 7)))
    one, other = (jax.jit(f)(x, _taps(kernel)) for f in (_one_by_one, _at_once))
    assert one.shape == (2, 5, 4, 4, 7)
    assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_only_the_result_is_of_the_compute_type():
    layer = UpConv(5, dtype=jnp.bfloat16)
    out, variables = layer.init_with_output(KEY, jnp.ones((1, 2, 2, 3)))
    assert out.dtype == jnp.bfloat16
    assert variables["params"]["kernel"].dtype == jnp.float32
