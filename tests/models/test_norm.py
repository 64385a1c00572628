"""Normalisation by streams against Linen's BatchNorm, stream by stream."""

import flax.linen as nn
import jax
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


def test_streams_mean_nothing_in_evaluation():
    result, _ = apply(StreamNorm(), IMAGES, train=False, streams=(2, 4))
    assert_allclose(result, batch_norm(IMAGES, train=False)[0], atol=2e-6)
