"""The loop of a run: build, restore, step, log, evaluate, save."""

import functools

import jax
import numpy as np

from mijax import parallel
from mijax.checkpoint import Checkpoints
from mijax.errors import UserError
from mijax.evaluate import mean_dsc, segment
from mijax.experiment import build, open_data, slice_volume
from mijax.run import settle_splits, write_info
from mijax.step import TrainingSet
from mijax.writer import Writer


def train(run, *, tell, devices=None):
    """Trains a run to its last step, from its newest sound checkpoint if it has one.

    Args:
      run: ``run.Run``.
      tell: called with a line about anything unusual.
      devices: to train on; all by default.

    Returns:
      The last ``TrainState``.

    Raises:
      UserError: for data or values that do not do, and for a loss that is not finite.
    """
    config = run.config
    source = open_data(config)
    splits = settle_splits(run, source.cases)
    experiment = build(config, classes=source.classes, channels=source.channels, devices=devices)
    training_set = load_training_set(source, splits, config, experiment)
    validation = [source.volume(name) for name in splits.validation]
    write_info(run, classes=source.classes, channels=source.channels)

    is_first = jax.process_index() == 0
    with Checkpoints(run.checkpoints, tell=tell) as checkpoints:
        state = _restore_or_init(experiment, checkpoints, config, tell)
        start = int(state.step)
        train_step = functools.cache(experiment.train_step)
        with Writer(run.folder, steps=config.steps, start=start, enabled=is_first) as writer:
            logs = []
            for step, length in dispatches(start, config):
                state, new = train_step(length)(state, training_set)
                logs.append(_finite(jax.device_get(new), step, experiment.schedule))
                step += length
                writer.progress(step)
                if step % config.log_every == 0 or step == config.steps:
                    values = {
                        k: float(np.mean(np.concatenate([x[k] for x in logs]))) for k in logs[0]
                    }
                    writer.scalars(
                        step, values | {"learning_rate": float(experiment.schedule(step))}
                    )
                    logs = []
                if step % config.evaluate_every == 0 or step == config.steps:
                    _check_weights(state)
                    predictions = segment(experiment, state, validation, config.data)
                    dsc = mean_dsc(predictions, validation, source.classes)
                    writer.scalars(step, {"validation_dsc": dsc})
                    checkpoints.save(state, dsc=dsc)
    return state


def dispatches(start, config):
    """Yields (step, number of steps) of each call of the train step, up to ``config.steps``.

    One step a call on a CPU, whose XLA runs convolutions inside a loop tens of times slower;
    elsewhere as many as lie before the next line of the log, so that the host is never waited
    for. ``config.steps_per_dispatch`` overrides that.
    """
    most = config.steps_per_dispatch
    if not most:
        most = 1 if jax.default_backend() == "cpu" else config.log_every
    step = start
    while step < config.steps:
        boundary = min(step - step % config.log_every + config.log_every, config.steps)
        length = min(most, boundary - step)
        yield step, length
        step += length


def load_training_set(source, splits, config, experiment):
    """Training slices on the device, labels only of the labelled cases.

    This is the gate where the labels of unlabelled cases are dropped.

    Raises:
      UserError: if the method needs unlabelled cases and there are none.
    """
    labelled = [slice_volume(source.volume(name), config.data) for name in splits.labelled]
    image = np.concatenate([s.image for s in labelled])
    label = np.concatenate([s.label for s in labelled])
    unlabelled = None
    if experiment.method.copies:
        if not splits.unlabelled:
            raise UserError(
                f"method {config.method.name} learns from unlabelled cases and there are none; "
                "set config.data.labelled_cases to fewer patients than there are (0 takes all)"
            )
        volumes = (source.volume(name)._replace(label=None) for name in splits.unlabelled)
        unlabelled = np.concatenate([slice_volume(v, config.data).image for v in volumes])
    return jax.device_put(
        TrainingSet(image, label, unlabelled), parallel.replicated(experiment.mesh)
    )


def _restore_or_init(experiment, checkpoints, config, tell):
    step = checkpoints.last_step()
    if step is None:
        return experiment.init(config.seed)
    tell(f"going on from step {step} of {config.steps}")
    return checkpoints.restore(step, experiment.like())


def _check_weights(state):
    """Refuses weights that a checkpoint must not hold: a restart from it could not go on."""
    if not all(np.isfinite(x).all() for x in jax.tree.leaves(jax.device_get(state.params))):
        raise UserError(
            f"the weights are not finite after step {int(state.step)}; the checkpoints before it "
            "are kept. Lower config.learning_rate or the weights of the method"
        )


def _finite(logs, step, schedule):
    """The logs of a dispatch that began at ``step``, or a UserError at the first NaN in them."""
    bad = ~np.isfinite(np.stack(list(logs.values()))).all(0)
    if bad.any():
        index = int(bad.argmax())
        terms = ", ".join(f"{name} {value[index]:.4g}" for name, value in logs.items())
        raise UserError(
            f"the loss is not finite at step {step + index} ({terms}, learning rate "
            f"{float(schedule(step + index)):.3g}); the checkpoints before it are kept. Lower "
            "config.learning_rate or the weights of the method"
        )
    return logs
