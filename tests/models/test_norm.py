"""Normalisation by streams against Linen's BatchNorm, stream by stream."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models.norm import StreamNorm

IMAGES = np.random.default_rng(0).normal(1, 2, (6, 5, 4, 3)).astype(np.float32)
PARAMS = {
    "scale": np.array([0.5, 1.0, 2.0], np.float32),
    "bias": np.array([-1.0, 0.0, 3.0], np.float32),
}
STATS = {
    "mean": np.array([0.1, 0.2, 0.3], np.float32),
    "var": np.array([1.0, 2.0, 3.0], np.float32),
}


def apply(module, images, **options):
    variables = {"params": PARAMS, "batch_stats": STATS}
    return module.apply(variables, images, mutable=["batch_stats"], **options)


def batch_norm(images, *, train):
    return apply(nn.BatchNorm(use_running_average=not train, momentum=0.9), images)


@pytest.mark.parametrize("train", [True, False])
def test_one_stream_is_batch_norm(train):
    result, stats = apply(StreamNorm(), IMAGES, train=train)
    expected, expected_stats = batch_norm(IMAGES, train=train)
    assert_allclose(result, expected, atol=2e-6)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), stats, expected_stats)


def test_streams_do_not_meet_and_the_first_one_runs():
    result, stats = apply(StreamNorm(), IMAGES, train=True, streams=(2, 3, 1))
    parts = [batch_norm(x, train=True) for x in np.split(IMAGES, [2, 5])]
    assert_allclose(result, np.concatenate([y for y, _ in parts]), atol=2e-6)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), stats, parts[0][1])
    shared, _ = apply(StreamNorm(), IMAGES, train=True)
    assert np.abs(result - shared).max() > 0.1


def two_pass(images, cotangent):
    """Normalised images, variances, and the gradient with respect to the images, in float64."""
    centred = images - images.mean((0, 1, 2))
    var = (centred**2).mean((0, 1, 2))
    deviation = np.sqrt(var + 1e-5)
    unit, g = centred / deviation, cotangent * PARAMS["scale"]
    gradient = (g - g.mean((0, 1, 2)) - unit * (g * unit).mean((0, 1, 2))) / deviation
    return unit * PARAMS["scale"] + PARAMS["bias"], var, gradient


@pytest.mark.parametrize("ratio", [0.0, 100.0, 1000.0])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("frame", [0.0, 8.0])
def test_values_far_from_0_have_their_variance(ratio, dtype, frame):
    """Means of so many standard deviations, with first rows that are like the others, or not."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(6, 16, 12, 3))
    images[:, 0] += frame
    # Of what is left of them in half precision: its own rounding is no fault of the statistics.
    images = jnp.asarray(images + ratio, dtype)
    cotangent = rng.normal(size=images.shape).astype(np.float32)

    @jax.jit
    def ours(images):
        def f(x):
            return apply(StreamNorm(), x, train=True, streams=(2, 4))

        result, backward, stats = jax.vjp(f, images, has_aux=True)
        return result, stats["batch_stats"]["var"], backward(cotangent)[0]

    result, var, gradient = ours(images)
    parts = [
        two_pass(x, g)
        for x, g in zip(*(np.split(np.float64(v), [2]) for v in (images, cotangent)), strict=True)
    ]
    values, variances, gradients = zip(*parts, strict=True)
    assert_allclose(var, 0.9 * STATS["var"] + 0.1 * variances[0], rtol=2e-5)
    # float32 tells values of 1000 standard deviations apart to 6e-5 of one.
    assert_allclose(result, np.concatenate(values), rtol=2e-6, atol=1e-5 + 3e-7 * ratio)
    rounding = 4e-3 if dtype == "bfloat16" else 0  # of the gradient, which is one
    expected = np.concatenate(gradients)
    assert_allclose(np.float64(gradient), expected, rtol=rounding, atol=1e-5 + 3e-7 * ratio)


def test_streams_mean_nothing_in_evaluation():
    result, _ = apply(StreamNorm(), IMAGES, train=False, streams=(2, 4))
    assert_allclose(result, batch_norm(IMAGES, train=False)[0], atol=2e-6)
