"""Weights that learn from the validation cases."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mijax.errors import UserError
from mijax.experiment import build
from mijax.inference import restore
from mijax.losses import cross_entropy
from mijax.methods import Unlabelled
from mijax.models import UNet
from mijax.run import start_run
from mijax.sampling import TrainingSet, counts_of, pick
from mijax.train import train

WEIGHTS = ("mi_weight", "consistency_weight")
CLASSES = ("background", "body", "core")


def slices():
    draw = np.random.default_rng(0)
    images = [draw.random((n, 32, 32, 1), np.float32) for n in (6, 8, 10)]
    labels = [(image[..., 0] * 3).astype(np.uint8) for image in images]
    unlabelled = Unlabelled(images[1], np.zeros(8), np.zeros(8, int))
    return TrainingSet(images[0], labels[0], unlabelled, (images[2], labels[2]))


def test_slopes_are_those_of_the_validation_loss_after_the_step(tiny):
    """By central differences, four steps in, when Adam has moments."""
    config = tiny(
        "local_mi",
        method__weight=3.0,
        method__mi_weight=100.0,  # else the slope of so little information drowns in rounding
        learning_rate=0.02,
        outer__weights=WEIGHTS,
        outer__batch=8,
    )
    experiment = build(config, classes=CLASSES, channels=1, devices=jax.devices()[:1])
    training_set, step = jax.device_put(slices()), experiment.train_step(1)
    state = experiment.init(0, 8)
    for _ in range(4):
        state, _ = step(state, training_set)
    picked = pick(state.key, state.step, counts_of(training_set), experiment.batches).held_out
    image, label = (x[picked] for x in training_set.held_out)
    model = UNet(num_classes=3, widths=config.model.widths)

    @jax.jit
    def held_out_loss(state):
        variables = {"params": state.params["network"], "batch_stats": state.batch_stats}
        return cross_entropy(model.apply(variables, image, train=False)[0], label)

    def after(**change):
        moved = {name: x + change.get(name, 0.0) for name, x in state.outer.log_factors.items()}
        start = state._replace(outer=state.outer._replace(log_factors=moved))
        return step(jax.tree.map(jnp.copy, start), training_set)[0]

    before, moments = (s.outer.opt_state[0].mu for s in (state, after()))
    for name in WEIGHTS:
        slope = (moments[name] - 0.9 * before[name]) / 0.1
        losses = [held_out_loss(after(**{name: h})) for h in (0.25, -0.25)]
        np.testing.assert_allclose(slope, (losses[0] - losses[1]) / 0.5, rtol=0.05)
        assert abs(slope) > 1e-5  # far above the rounding of a loss


def test_a_run_logs_its_weights_and_keeps_them(tiny, tmp_path):
    run = start_run(tmp_path, tiny("local_mi", outer__weights=WEIGHTS, outer__rate=0.1))
    state = jax.device_get(train(run, tell=print, devices=jax.devices()[:1]))
    _, kept = restore(run, checkpoint="last", tell=pytest.fail)
    log = json.loads((run.folder / "metrics.jsonl").read_text().splitlines()[0])
    for name in WEIGHTS:
        assert kept.outer.log_factors[name] == state.outer.log_factors[name] != 0
        assert log[name] != run.config.method[name]
        assert log[name] == pytest.approx(run.config.method[name], rel=0.5)


@pytest.mark.parametrize(
    ("method", "weight"),
    [("mean_teacher", "weight"), ("uamt", "weight"), ("fixmatch", "weight"), ("ict", "weight"),
     ("cross_pseudo", "weight"), ("entropy", "weight"), ("global_local_mi", "mi_weight"),
     ("local_contrast", "weight")],
)  # fmt: skip
def test_of_every_method(tiny, method, weight):
    config = tiny(method, outer__weights=(weight,), outer__batch=8)
    experiment = build(config, classes=CLASSES, channels=1, devices=jax.devices()[:1])
    _, logs = jax.eval_shape(experiment.train_step(1), experiment.like(8), slices())
    assert weight in logs


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outer.weights": ("radius",)}, "config.outer: there is no weight 'radius', but .*mi_"),
        ({"outer.weights": ("weight",), "method.weight": 0.0}, "begins above 0, not at 0.0"),
        ({"outer.weights": ("weight",), "outer.rate": 0.0}, "rate and batch are positive"),
        ({"outer.weights": ("weight",), "outer.batch": 0}, "rate and batch are positive"),
    ],
)
def test_refusals(tiny, changes, message):
    config = tiny("local_mi")
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message):
        build(config, classes=CLASSES, channels=1)


def test_a_method_without_labels_has_none(tiny):
    config = tiny("boundary_iic", outer__weights=("weight",))
    with pytest.raises(UserError, match="boundary_iic has no loss of labels"):
        build(config, classes=CLASSES, channels=1)
