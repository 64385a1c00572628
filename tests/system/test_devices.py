"""A run gives the same on one device and on eight, whatever the method."""

import functools
import os
import pickle
import subprocess
import sys
from pathlib import Path

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

LEARNING, EXACT = "local_mi, weights that learn", "local_mi, pixels onto pixels"
DROPPED = "local_mi, dropout"
OPTIONS = {
    DROPPED: {"model__dropout": 0.5, "model__encoder_dropout": (0.1, 0.2)},
    LEARNING: {"hypergradient__weights": ("mi_weight",), "hypergradient__batch": 8},
    # Else a last digit decides what is in the frame and which label is the nearest, and of
    # compilers that round otherwise the weights differ by 2e-4.
    EXACT: {
        "augmentation__rotation": 0.0,
        "method__rotation": 0.0,
        "method__shear": 0.0,
        "method__scale": (1.0, 1.0),
        "model__widths": (4,),  # compiles in little time
    },
}
NAMES = [*methods.names(), LEARNING, DROPPED]
PARTS = ("params", "batch_stats", "memory", "hyper")
STEPS = 4
# Sums are taken in another order: after four steps weights differ by 3e-7 for most methods and
# by 8e-6 in the heads of the contrastive and MI ones, while each step moves them by up to 1e-3.
TOLERANCE = 1e-5


def train_steps(config, *, devices, steps, initial=None):
    """The state after so many steps from another, or from one that eight devices draw, as NumPy."""
    source = open_data(config)
    splits = draw_splits(source.cases, labelled=2, validation=2, test=2, seed=0)
    first, experiment = (
        build(config, classes=source.classes, channels=1, devices=jax.devices()[:n])
        for n in (8, devices)
    )
    training_set = load_training_set(source, splits, config, experiment.method)
    if initial is None:
        unlabelled = training_set.unlabelled
        initial = first.init(config.seed, 0 if unlabelled is None else len(unlabelled.image))
    state, training_set = jax.device_put(
        (jax.device_get(initial), training_set), parallel.replicated(experiment.mesh)
    )
    step = experiment.train_step(1)
    for _ in range(steps):
        state, _ = step(state, training_set)
    assert {len(x.devices()) for x in jax.tree.leaves(state)} == {devices}
    assert state.step == steps
    return jax.device_get(state)


@pytest.fixture(scope="module")
def trained(tiny):
    """``trained(method, devices, steps)``: everything the state then holds, as NumPy."""

    def config(method):
        return tiny(method.partition(",")[0], **OPTIONS.get(method, {}))

    def run(method, devices, steps=STEPS):
        initial = kept(method, 8, 0) if steps else None  # as much to compile as a step
        return train_steps(config(method), devices=devices, steps=steps, initial=initial)

    kept = functools.cache(run)
    kept.config = config
    return kept


def difference(a, b):
    """Largest absolute difference between any two numbers of two trees."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max((float(np.max(np.abs(x - y))) for x, y in pairs), default=0.0)


# Two programs a method to compile, so that -m slow takes all but one.
METHODS = [
    EXACT,
    *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES),
]


@pytest.mark.parametrize("method", METHODS)
def test_one_device_equals_eight(trained, method):
    one, eight = trained(method, 1), trained(method, 8)
    for part in PARTS:
        # A slope of a weight that learns is a small difference of gradients.
        most = 100 * TOLERANCE if part == "hyper" else TOLERANCE
        assert difference(getattr(one, part), getattr(eight, part)) < most, part


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


@pytest.mark.slow  # of losses as such: tests/losses/test_many_devices.py
def test_mean_of_the_mutual_information_of_each_device_is_another_method(trained, monkeypatch):
    def of_each_device(p, q, *, mask, **options):
        def one(p, q, mask):
            return losses.local_mutual_information(p, q, mask=mask, **options)

        return jnp.mean(jax.vmap(one)(*(jnp.stack(jnp.split(x, 8)) for x in (p, q, mask))))

    true = trained(EXACT, 8)
    monkeypatch.setattr(local_mi, "local_mutual_information", of_each_device)
    averaged = trained.__wrapped__(EXACT, 8)  # not the one kept
    assert difference(true.params, averaged.params) > 5 * TOLERANCE


# In another process, whose compiler has no flags but the number of devices.
PROGRAM = f"""
import pickle, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_devices import STEPS, train_steps
config, initial = pickle.load(sys.stdin.buffer)
state = train_steps(config, devices=1, steps=STEPS, initial=initial)
with open(sys.argv[1], "wb") as file:
    pickle.dump((state.params, state.batch_stats), file)
"""


def test_compiled_as_by_users_one_device_equals_eight_of_these_tests(trained, tmp_path):
    """With all optimisations and fused multiply-adds, which the tests do without to save time."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
    start = pickle.dumps((trained.config(EXACT), trained(EXACT, 8, 0)))
    command = [sys.executable, "-c", PROGRAM, str(tmp_path / "one")]
    subprocess.run(command, env=environment, input=start, check=True)
    one, here = pickle.loads((tmp_path / "one").read_bytes()), trained(EXACT, 8)
    assert 0 < difference(one, (here.params, here.batch_stats)) < 5 * TOLERANCE
