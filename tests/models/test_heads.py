"""Heads on features, against their formulas in float64."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models import ClusterHead, Projection

KEY = jax.random.key(0)
FEATURE = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)


def applied(head, feature=FEATURE):
    variables = jax.jit(head.init)(KEY, feature)
    assert variables.keys() == {"params"}  # no running statistics
    # Other values than the zeros and ones that biases and scales begin with.
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: x + rng.normal(size=x.shape, scale=0.3).astype(np.float32), variables["params"]
    )
    out = np.asarray(jax.jit(head.apply)({"params": params}, feature))
    return out, jax.tree.map(np.float64, params)


def softmax(x):
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize(("temperature", "normalise"), [(1.0, False), (0.3, True)])
def test_cluster_head(pooled, hidden, temperature, normalise):
    head = ClusterHead(
        clusters=7,
        subheads=3,
        pooled=pooled,
        hidden=hidden,
        temperature=temperature,
        normalise=normalise,
    )
    out, params = applied(head)
    assert out.shape == ((3, 2, 1, 1, 7) if pooled else (3, 2, 3, 4, 7))
    x = FEATURE.astype(np.float64)
    if pooled:
        x = x.mean((1, 2), keepdims=True)
    if normalise:
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    if hidden:
        x = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        x = np.where(x > 0, x, 0.01 * x).reshape(*x.shape[:-1], 3, hidden)
        x = np.einsum("bhwsd,sdk->sbhwk", x, params["kernel"])
        x = x + params["bias"][0, 0, 0][:, None, None, None]
    else:
        x = x @ params["linear"]["kernel"] + params["linear"]["bias"]
        x = np.moveaxis(x.reshape(*x.shape[:-1], 3, 7), -2, 0)
    assert_allclose(out, softmax(x / temperature), rtol=1e-4)


def test_a_feature_of_zeros_is_no_nan():
    out, _ = applied(ClusterHead(clusters=4, normalise=True), np.zeros_like(FEATURE))
    assert_allclose(out.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
def test_projection(pooled):
    out, params = applied(Projection(width=6, pooled=pooled))
    x = FEATURE.astype(np.float64)
    if pooled:
        x = x.mean((1, 2), keepdims=True)
    x = x @ params["first"]["kernel"] + params["first"]["bias"]
    if not pooled:
        x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
        x = x * params["scale"] + params["bias"]
    x = np.maximum(x, 0) @ params["second"]["kernel"] + params["second"]["bias"]
    assert out.shape == x.shape
    assert_allclose(out, x, rtol=1e-3, atol=1e-5)
