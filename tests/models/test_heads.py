"""Heads on features, against their formulas in float64."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.models import ClusterHead, Projection

KEY = jax.random.key(0)
FEATURE, FEATURE_3D = (
    np.random.default_rng(0).normal(size=(2, *space, 5)).astype(np.float32)
    for space in ((3, 4), (2, 3, 4))
)


def applied(head, feature=FEATURE):
    variables = jax.eval_shape(head.init, KEY, feature)
    assert variables.keys() == {"params"}  # no running statistics
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.5).astype(np.float32), variables["params"]
    )
    out = np.asarray(jax.jit(head.apply)({"params": params}, feature))
    return out, jax.tree.map(np.float64, params)


def softmax(x):
    exp = np.exp(x - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("hidden", [0, 6])
@pytest.mark.parametrize(
    ("feature", "temperature", "normalise"),
    [(FEATURE, 1.0, False), (FEATURE, 0.3, True), (FEATURE_3D, 0.3, True)],
    ids=["2-D", "2-D, normalised", "3-D"],
)
def test_cluster_head(feature, pooled, hidden, temperature, normalise):
    head = ClusterHead(
        clusters=7,
        subheads=3,
        pooled=pooled,
        hidden=hidden,
        temperature=temperature,
        normalise=normalise,
    )
    out, params = applied(head, feature)
    space = feature.shape[1:-1]
    assert out.shape == (3, 2, *((1 for _ in space) if pooled else space), 7)
    x = feature.astype(np.float64)
    if pooled:
        x = x.mean(tuple(range(1, x.ndim - 1)), keepdims=True)
    if normalise:
        x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    if hidden:
        x = x @ params["hidden"]["kernel"] + params["hidden"]["bias"]
        x = np.where(x > 0, x, 0.01 * x).reshape(*x.shape[:-1], 3, hidden)
        x = np.einsum("...sd,sdk->...sk", x, params["kernel"]) + params["bias"]
        x = np.moveaxis(x, -2, 0)
    else:
        x = x @ params["linear"]["kernel"] + params["linear"]["bias"]
        x = np.moveaxis(x.reshape(*x.shape[:-1], 3, 7), -2, 0)
    assert_allclose(out, softmax(x / temperature), rtol=1e-4)


def test_a_feature_of_zeros_is_no_nan():
    out, _ = applied(ClusterHead(clusters=4, normalise=True), np.zeros_like(FEATURE))
    assert_allclose(out.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("feature", [FEATURE, FEATURE_3D], ids=["2-D", "3-D"])
def test_projection(feature, pooled):
    out, params = applied(Projection(width=6, pooled=pooled), feature)
    x = feature.astype(np.float64)
    space = tuple(range(1, x.ndim - 1))
    if pooled:
        x = x.mean(space, keepdims=True)
    x = x @ params["first"]["kernel"] + params["first"]["bias"]
    if not pooled:
        x = (x - x.mean((0, *space))) / np.sqrt(x.var((0, *space)) + 1e-5)
        x = x * params["scale"] + params["bias"]
    x = np.maximum(x, 0) @ params["second"]["kernel"] + params["second"]["bias"]
    assert out.shape == x.shape
    assert_allclose(out, x, rtol=1e-3, atol=1e-5)
