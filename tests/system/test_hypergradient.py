"""Weights that learn from the validation cases."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mijax import parallel
from mijax.data import draw_splits, read_splits
from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.losses import cross_entropy
from mijax.models import UNet
from mijax.runs.folder import start_run
from mijax.runs.method import make_method
from mijax.runs.source import open_data
from mijax.training import train
from mijax.training.batches import pick
from mijax.training.build import build
from mijax.training.training_set import load_training_set

pytestmark = pytest.mark.xdist_group("outer")  # it shares no program with other tests
WEIGHTS = ("mi_weight", "consistency_weight")
CLASSES = ("background", "body", "core")


@pytest.fixture(scope="module")
def learnt(tiny, tmp_path_factory):
    """A run whose weights learn, on one device, and its last state."""
    config = tiny(
        "local_mi",
        method__weight=3.0,
        method__mi_weight=100.0,  # else the slope of so little information drowns in rounding
        learning_rate=0.02,
        model__widths=(4,),  # compiles in little time
        hypergradient__weights=WEIGHTS,
        hypergradient__rate=0.1,
        hypergradient__batch=8,
    )
    run = start_run(tmp_path_factory.mktemp("outer"), config)
    return run, jax.device_get(train(run, devices=jax.devices()[:1]))


def test_a_run_logs_its_weights_and_keeps_them(learnt, restored):
    run, state = learnt
    _, kept = restored(run)
    log = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    for name in WEIGHTS:
        assert kept.hyper.log_factors[name] == state.hyper.log_factors[name] != 0
        assert log[name] != run.config.method[name]
        assert log[name] == pytest.approx(run.config.method[name], rel=0.5)


def test_what_is_held_out_is_of_the_validation_cases(tiny):
    config = tiny("local_mi", hypergradient__weights=("mi_weight",))
    source = open_data(config)
    splits = draw_splits(source.cases, labelled=2, validation=2, test=2, seed=1)
    image, label = load_training_set(source, splits, config, make_method(config)).held_out
    cut = [slice_volume(source.volume(name), config.data.patches) for name in splits.validation]
    np.testing.assert_array_equal(image, np.concatenate([x.image for x in cut]))
    np.testing.assert_array_equal(label, np.concatenate([x.label for x in cut]))


def test_slopes_are_those_of_the_validation_loss_after_the_step(learnt, restored):
    """By central differences, eight steps in, when Adam has moments."""
    run, _ = learnt
    config, source = run.config, open_data(run.config)
    experiment, state = restored(run, 8, devices=jax.devices()[:1])
    splits = read_splits(run.folder / "splits.json")
    training_set = load_training_set(source, splits, config, experiment.method)
    training_set = jax.device_put(training_set, parallel.replicated(experiment.mesh))
    picked = pick(state.key, state.step, training_set, experiment.batches).held_out
    image, label = (x[picked.index] for x in training_set.held_out)
    model = UNet(num_classes=3, widths=config.model.widths)

    @jax.jit
    def held_out_loss(state):
        variables = {"params": state.params["network"], "batch_stats": state.batch_stats}
        return cross_entropy(model.apply(variables, image, train=False)[0], label)

    def after(**change):
        moved = {name: x + change.get(name, 0.0) for name, x in state.hyper.log_factors.items()}
        start = state._replace(hyper=state.hyper._replace(log_factors=moved))
        return experiment.train_step(1)(jax.tree.map(jnp.copy, start), training_set)[0]

    before, moments = (s.hyper.opt_state[0].mu for s in (state, after()))
    for name in WEIGHTS:
        slope = (moments[name] - 0.9 * before[name]) / 0.1
        losses = [held_out_loss(after(**{name: h})) for h in (0.2, -0.2)]
        np.testing.assert_allclose(slope, (losses[0] - losses[1]) / 0.4, rtol=0.1)
        assert abs(slope) > 1e-5  # far above the rounding of a loss


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hypergradient.weights": ("radius",)},
            "config.hypergradient: there is no weight 'radius', but .*mi_",
        ),
        (
            {"hypergradient.weights": ("weight",), "method.weight": 0.0},
            "begins above 0, not at 0.0",
        ),
        (
            {"hypergradient.weights": ("weight",), "hypergradient.rate": 0.0},
            "rate and batch are positive",
        ),
        (
            {"hypergradient.weights": ("weight",), "hypergradient.batch": 0},
            "rate and batch are positive",
        ),
    ],
)
def test_refusals(tiny, changes, message):
    config = tiny("local_mi")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        build(config, classes=CLASSES, channels=1)


def test_without_test_cases_it_is_told_that_labels_are_learned_and_scored(
    tiny, tmp_path, told, monkeypatch
):
    def stop(*_, **__):
        raise UserError("far enough")

    monkeypatch.setattr("mijax.training.loop.build", stop)
    for test in (2, 0):
        changes = {"data.splits.test": test, "hypergradient.weights": WEIGHTS}
        with pytest.raises(UserError, match="far enough"):
            train(start_run(tmp_path / str(test), tiny("local_mi", **changes)))
        assert len([line for line in told if "the scores are of the same" in line]) == (not test)


def test_a_method_without_labels_has_none(tiny):
    config = tiny("boundary_iic", hypergradient__weights=("weight",))
    with pytest.raises(UserError, match="boundary_iic has no loss of labels"):
        build(config, classes=CLASSES, channels=1)
