"""``forward``: one pass over all streams is the same as a pass for each of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import KEY, NAMES, SIZE, UNLABELLED, K, call

from mijax import methods
from mijax.methods import Output, Start
from mijax.models import UNet
from mijax.training.step import make_forward

OF_METHOD = {
    "global_local_mi": {"features": NAMES, "importance": (1.0, 1.0), "radius": (0, 1)},
    "uamt": {"passes": 2},
    "unimatch": {"brightness": 0.0, "contrast": 0.0, "blur": 0.0},  # less to compile
}
# Two programs a method to compile, so that -m slow takes all but those that are told apart here.
FAST = [("local_mi", {}), ("mean_teacher", {}), ("unimatch", {"complementary": True})]
CASES = [
    *FAST,
    *(
        pytest.param(name, {}, marks=pytest.mark.slow)
        for name in methods.names()
        if (name, {}) not in FAST
    ),
]


def make_looped(model, batch_stats):
    """``forward`` as who has a network of his own would write it."""

    def forward(network, *streams, key, perturb=None):
        outputs = []
        for i, images in enumerate(streams):
            options = {} if perturb is None else {"perturb": functools.partial(perturb, i)}
            (logits, features), updated = model.apply(
                {"params": network, "batch_stats": batch_stats},
                images,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": jax.random.fold_in(key, i)},
                **options,
            )
            outputs.append(Output(logits, features, updated["batch_stats"]))
        return outputs

    return forward


@pytest.fixture(scope="module")
def unet():
    """A small U-Net, and its parameters and statistics, none of them at rest."""
    model = UNet(K, widths=(4, 6))
    images = np.random.default_rng(0).normal(size=(4, SIZE, SIZE, 2)).astype(np.float32)
    variables = jax.jit(functools.partial(model.init, train=False))(KEY, images)
    apply = functools.partial(model.apply, train=False)
    _, features = jax.eval_shape(apply, variables, images[:1])
    moved = jax.tree.map(lambda x: np.asarray(x) + np.float32(0.3), variables["batch_stats"])
    return model, variables["params"], moved, {name: x.shape for name, x in features.items()}


@pytest.mark.parametrize(("name", "options"), CASES)
def test_streams_may_be_looped_over(name, options, unet, batch):
    model, network, batch_stats, features = unet
    defaults = methods.defaults(name)
    # Predictions of a network that has not learned are not sure of anything.
    options = options | OF_METHOD.get(name, {})
    if "threshold" in defaults:
        options["threshold"] = 0.4
    method = methods.build(name, **options)
    start = Start(
        network, batch_stats, features, (UNLABELLED, SIZE, SIZE), another=lambda key: network
    )
    heads, memory = method.init(KEY, start)
    labels = np.random.default_rng(2).integers(K, size=batch.unlabelled.shape[:3])
    batch = batch._replace(position=jnp.linspace(0, 1, UNLABELLED), pseudo_label=labels)
    if "round" in memory:
        memory["round"] = jnp.int32(1)

    def loss(forward):
        params = {"network": network, **heads}
        value, aux = jax.jit(lambda p, m, b: call(method, p, m, b, forward=forward))(
            params, memory, batch
        )
        return {"value": value, **aux.logs}, aux.batch_stats

    fused, looped = (loss(make(model, batch_stats)) for make in (make_forward, make_looped))
    assert abs(fused[0]["value"]) > 1e-3
    jax.tree.map(functools.partial(assert_allclose, rtol=1e-4, atol=1e-6), fused, looped)
