"""Methods on 3-D images: each takes them, and of one plane they are slices."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from oracles import (
    CHANNELS,
    KEY,
    LABELLED,
    NAMES,
    PLAIN,
    SIZE,
    STILL,
    UNLABELLED,
    WIDTH,
    K,
    call,
    forward_with_features,
    make_featured,
    start_with_features,
)

from mijax import methods
from mijax.configs import spleen3d
from mijax.losses import edge_strength
from mijax.methods import Batch, boundary_iic
from mijax.options import tuples
from mijax.runs.method import make_method

DEPTH = 4
OF_METHOD = {
    "global_local_mi": {"features": NAMES[:1], "importance": (1.0,), "radius": (0,)},
    "local_mi": {"radius": 0},
    "mixed_mi": {"radius": 0, "focus": 2},
    "uamt": {"passes": 1},
    "boundary_iic": {"feature": "Up_conv2", "window": 3},
}


def batch_of(depth):
    draw = np.random.default_rng(1)
    image, unlabelled = (
        draw.normal(size=(n, depth, SIZE, SIZE, CHANNELS)).astype(np.float32)
        for n in (LABELLED, UNLABELLED + 1)
    )
    labels = draw.integers(K, size=(LABELLED + UNLABELLED + 1, depth, SIZE, SIZE))
    return Batch(image, labels[:LABELLED], unlabelled, np.zeros(UNLABELLED + 1), labels[LABELLED:])


def start_of(network, depth=None):
    space = (SIZE, SIZE) if depth is None else (depth, SIZE, SIZE)
    return start_with_features(network)._replace(
        features=dict.fromkeys(NAMES, (1, *space, WIDTH)),
        unlabelled_shape=(UNLABELLED + 1, *space),
    )


def value_of(name, options, batch, start, network):
    method = methods.build(name, **options)
    heads, memory = method.init(KEY, start)

    def loss(params):
        return call(method, params, memory, batch, forward=forward_with_features)[0]

    return loss, {"network": network, **heads}


@pytest.mark.parametrize("name", sorted({*methods.names()} - {"position_contrast"}))
def test_methods_take_volumes(name):
    network, batch = make_featured(0), batch_of(DEPTH)
    loss, params = value_of(name, OF_METHOD.get(name, {}), batch, start_of(network, DEPTH), network)
    gradients = jax.eval_shape(jax.grad(loss), params)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, gradients)


@pytest.mark.parametrize(
    "name",
    ["cross_pseudo", "global_local_mi", "local_mi", "mean_teacher"],
)
def test_volumes_of_one_plane_are_slices(name):
    """Without a transformation, whose draws may differ."""
    network, solid = make_featured(0), batch_of(1)
    flat = Batch(*(x if i == 3 else x[:, 0] for i, x in enumerate(solid)))
    given = {k: v for k, v in {**STILL, **PLAIN}.items() if k in methods.defaults(name)}
    options = given | OF_METHOD.get(name, {})
    values = []
    for batch, depth in ((solid, 1), (flat, None)):
        loss, params = value_of(name, options, batch, start_of(network, depth), network)
        values.append(float(jax.jit(loss)(params)))
    np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, (3.0, 0.8, 0.8)),
        ({"depth_spacing": None}, None),
        ({"dims": 2}, None),
        ({"fit": "resize"}, None),  # which comes after the spacing
    ],
)
def test_boundaries_know_how_thick_slices_are(monkeypatch, changes, wanted):
    """Of a run that goes on as well, whose configuration was read from its folder."""
    config = spleen3d.get_config("boundary_iic")
    config.data.patches.update({"dims": 3, "depth_spacing": 3.0} | changes)
    config.method.update(OF_METHOD["boundary_iic"])
    config = ConfigDict(tuples(json.loads(config.to_json_best_effort())))
    seen = []

    def noted(images, *, spacing, **options):
        seen.append(spacing)
        return edge_strength(images, spacing=spacing, **options)

    monkeypatch.setattr(boundary_iic, "edge_strength", noted)
    method, start = make_method(config), start_of(make_featured(0), DEPTH)
    heads, memory = method.init(KEY, start)
    params, batch = {"network": start.network, **heads}, batch_of(DEPTH)
    jax.eval_shape(
        lambda p: call(method, p, memory, batch, forward=forward_with_features)[0], params
    )
    assert seen == [wanted]
