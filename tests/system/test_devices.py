"""A run gives the same on one device and on eight, whatever the method."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mijax import losses, methods, parallel
from mijax.data import draw_splits
from mijax.methods import local_mi
from mijax.runs.source import open_data
from mijax.training.build import build
from mijax.training.training_set import load_training_set

pytestmark = pytest.mark.xdist_group("devices")

LEARNING = "local_mi, weights that learn"
NAMES = [*methods.names(), LEARNING]
PARTS = ("params", "batch_stats", "memory", "hyper")
STEPS = 4
# Sums are taken in another order: after four steps weights differ by 3e-7 for most methods and
# by 8e-6 in the heads of the contrastive and MI ones, while each step moves them by up to 1e-3.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def trained(tiny):
    """``trained(method, devices, steps)``: everything the state then holds, as NumPy."""
    inits = {}

    def run(method, devices, steps=STEPS):
        options = {"hypergradient__weights": ("mi_weight",), "hypergradient__batch": 8}
        config = tiny("local_mi", **options) if method == LEARNING else tiny(method)
        source = open_data(config)
        splits = draw_splits(source.cases, labelled=2, validation=2, test=2, seed=0)
        first, experiment = (
            build(config, classes=source.classes, channels=1, devices=jax.devices()[:n])
            for n in (8, devices)
        )
        training_set = load_training_set(source, splits, config, experiment.method)
        unlabelled = training_set.unlabelled
        if method not in inits:  # costs as much to compile as the step of a method
            inits[method] = jax.device_get(
                first.init(config.seed, 0 if unlabelled is None else len(unlabelled.image))
            )
        state = jax.device_put(inits[method], parallel.replicated(experiment.mesh))
        training_set = jax.device_put(training_set, parallel.replicated(experiment.mesh))
        step = experiment.train_step(1)
        for _ in range(steps):
            state, _ = step(state, training_set)
        assert {len(x.devices()) for x in jax.tree.leaves(state)} == {devices}
        assert state.step == steps
        return jax.device_get(state)

    return functools.cache(run)


def difference(a, b):
    """Largest absolute difference between any two numbers of two trees."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max((float(np.max(np.abs(x - y))) for x, y in pairs), default=0.0)


# Two programs a method to compile, so that -m slow takes all but one.
METHODS = [
    pytest.param(name, marks=() if name == "local_mi" else pytest.mark.slow) for name in NAMES
]


@pytest.mark.parametrize("method", METHODS)
def test_one_device_equals_eight(trained, method):
    one, eight = trained(method, 1), trained(method, 8)
    for part in PARTS:
        assert difference(getattr(one, part), getattr(eight, part)) < TOLERANCE, part


@pytest.mark.slow
@pytest.mark.parametrize("method", NAMES)
def test_twenty_steps_on_one_two_and_eight_devices(trained, method):
    """Rounding grows with the steps, so the tolerance is ten times as wide; -s tells."""
    one = trained(method, 1, 20)
    for devices in (2, 8):
        many = trained(method, devices, 20)
        largest = max(difference(getattr(one, p), getattr(many, p)) for p in PARTS)
        print(f"{method}, {devices} devices: {largest:.1e}")
        assert largest < 10 * TOLERANCE


def test_mean_of_the_mutual_information_of_each_device_is_another_method(trained, monkeypatch):
    def of_each_device(p, q, *, mask, **options):
        def one(p, q, mask):
            return losses.local_mutual_information(p, q, mask=mask, **options)

        return jnp.mean(jax.vmap(one)(*(jnp.stack(jnp.split(x, 8)) for x in (p, q, mask))))

    true = trained("local_mi", 8)
    monkeypatch.setattr(local_mi, "local_mutual_information", of_each_device)
    averaged = trained.__wrapped__("local_mi", 8)  # not the one kept
    assert difference(true.params, averaged.params) > 5 * TOLERANCE
