"""The loop of a run: build, restore, step, log, evaluate, save."""

import contextlib
import functools
import json
import time

import jax
import numpy as np

from mijax import parallel
from mijax.checkpoint import Checkpoints
from mijax.contours import contours
from mijax.errors import Preempted, UserError
from mijax.evaluate import measures, segment
from mijax.experiment import build, check, open_data
from mijax.inference import predict_stacks
from mijax.pretraining import pretrained
from mijax.progress import doing
from mijax.run import (
    check_data,
    flat,
    open_run,
    settle_splits,
    sole,
    taken_back,
    write_info,
    write_json,
)
from mijax.sampling import counts_of
from mijax.scores import mean_dsc
from mijax.training_set import check_classes, check_slices, feed, load_training_set
from mijax.writer import Writer

_PICTURES = 4  # of validation cases, each time
_UNLOGGED = "unlogged.json"  # in the run folder, after a stop between two lines of the log


def train(run, *, tell, devices=None):
    """Trains a run to its last step, from its newest sound checkpoint if it has one.

    Args:
      run: ``run.Run``.
      tell: called with a line about anything unusual.
      devices: to train on; all by default.

    Returns:
      The last ``TrainState``.

    Raises:
      UserError: for data or values that do not do, a loss that is not finite, and a folder that
        another process trains in.
      Preempted: after SIGTERM, when the state is saved.
      KeyboardInterrupt: after Ctrl-C, when the state is saved; at once after a second one.
    """
    with contextlib.ExitStack() as stack:
        if parallel.is_first():
            stack.enter_context(sole(run, tell=tell))
            stack.enter_context(taken_back(run))
        return _train(run, tell=tell, devices=devices)


def _train(run, *, tell, devices):
    config = run.config
    method = check(config, devices=devices).method

    def settle(cases, geometry):
        check_slices(settle_splits(run, cases), geometry, config, method)

    source = open_data(config, check=settle, tell=tell)
    splits = settle_splits(run, source.cases)
    experiment = build(config, classes=source.classes, channels=source.channels, devices=devices)
    with doing("cutting the training slices", tell=tell):
        training_set = load_training_set(source, splits, config, experiment)
    slices = counts_of(training_set).unlabelled or 0
    validation = [source.volume(name) for name in splits.validation]
    if not experiment.measure:
        check_classes(training_set.label, validation, source.classes, tell=tell)

    on = parallel.devices(list(experiment.mesh.devices.flat))
    with Checkpoints(run.checkpoints, tell=tell) as checkpoints:
        like = experiment.like(slices)
        start = checkpoints.last_step() or 0
        if start:
            check_data(run, validation)
            tell(f"going on from step {start} of {config.steps}")
            if (begun := run.info().get("devices", on)) != on:
                tell(f"begun on {begun}: from here on, {on}, it is the same to rounding only")
            with doing(f"restoring checkpoint {start}", tell=tell):
                state = checkpoints.restore(start, like)
        else:
            origin = open_run(config.init_from) if config.get("init_from") else None
            given = origin and pretrained(origin, run, splits, like, tell=tell)
            state = experiment.init(config.seed, slices, given)
            if parallel.is_first():
                write_info(
                    run,
                    classes=source.classes,
                    channels=source.channels,
                    validation=validation,
                    unlabelled_slices=slices,
                    init_from=origin,
                    devices=on,
                )
        calls = list(dispatches(start, config))
        with doing("taking the training slices to the devices", tell=tell):
            counts, rows = feed(training_set, state.key, calls, config, experiment)
        train_step = functools.cache(lambda length: experiment.train_step(length, counts))
        compiled = set()
        new_rounds = round_starts(experiment.method.rounds, config)
        first = parallel.is_first()
        with (
            Writer(run.folder, steps=config.steps, start=start, enabled=first) as writer,
            parallel.preemption() as must_stop,
            doing("training"),
        ):
            if not start:
                score = f"validation_{experiment.score}"
                score += "_percent" * (experiment.measure is None)
                writer.hyperparameters(dict(flat(config.to_dict())), score=score)
            logs = _unlogged(run, start)
            for (step, length), taken in zip(calls, rows, strict=False):
                if step in new_rounds:
                    best = checkpoints.restore(checkpoints.best_step(), like)
                    state = begin_round(experiment, state, best, training_set)
                first_call = length not in compiled
                with _compiling(writer, tell) if first_call else contextlib.nullcontext():
                    state, new = train_step(length)(state, taken)
                compiled.add(length)
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
                    with doing(f"validating step {step}", tell=tell):
                        score, values, pictures = validate(
                            experiment, state, validation, config.data, source.classes
                        )
                    writer.scalars(step, values)
                    for name, picture in pictures.items():
                        writer.picture(step, name, picture)
                    checkpoints.save(state, score=score)
                if notice := must_stop():
                    if checkpoints.last_step() != step:
                        _check_weights(state)
                        checkpoints.save(state)
                        if first:
                            write_json(
                                run.folder / _UNLOGGED,
                                {"step": step, "logs": jax.tree.map(np.ndarray.tolist, logs)},
                            )
                    raise _stopped(notice, step, run)
    return state


def _unlogged(run, start):
    """Logs of the steps before ``start`` that no line of the log has, of a run stopped there."""
    with contextlib.suppress(OSError, ValueError):  # none, or one that was cut off
        left = json.loads((run.folder / _UNLOGGED).read_text(encoding="utf-8"))
        if left["step"] == start:
            return [{k: np.array(v, np.float32) for k, v in logs.items()} for logs in left["logs"]]
    return []


@contextlib.contextmanager
def _compiling(writer, tell):
    """The first call of a train step: told of, and no measure of the time that is left."""
    began = time.monotonic()
    with doing("compiling the training step", tell=tell):
        yield
    writer.leave_out(time.monotonic() - began)


def _stopped(notice, step, run):
    """What ends the loop after a notice of ``parallel.preemption``, when the state is saved."""
    kind = KeyboardInterrupt if notice == "Ctrl-C" else Preempted
    return kind(
        f"stopped by {notice} after step {step} of {run.config.steps} and saved; the same command "
        f"goes on, and so does python -m mijax.main --workdir {run.folder}"
    )


def round_starts(rounds, config):
    """Steps at which ``Rounds``, or None, begin, evenly spaced, each where a checkpoint is.

    Raises:
      UserError: if there are fewer checkpoints than rounds.
    """
    every, count = config.evaluate_every, rounds.count if rounds else 0
    starts = {-(-config.steps * i // ((count + 1) * every)) * every for i in range(1, count + 1)}
    if len(starts) < count or max(starts, default=0) >= config.steps:
        raise UserError(
            f"config.method.rounds ({count}) do not fit into config.steps ({config.steps}): each "
            f"begins at a multiple of config.evaluate_every ({every}); lower that"
        )
    return starts


def validate(experiment, state, volumes, data, classes):
    """The score that ranks checkpoints, and what the log says of the validation.

    Returns:
      The score, DSC as a fraction; floats for the log by name, DSC in %; and pictures of some
      of the volumes by name, none of a method that does not segment.
    """
    if experiment.measure:
        found = measures(experiment, state, volumes, data)
        return found[experiment.score], {f"validation_{k}": v for k, v in found.items()}, {}
    pictures = {}

    def predictions():
        maps = segment(experiment, state, volumes, data)
        for labels, volume in zip(maps, volumes, strict=True):
            if len(pictures) < _PICTURES:
                picture = contours(volume, labels, plane=data.plane)
                pictures[f"validation/{volume.name}"] = picture
            yield labels

    mean, by_class = mean_dsc(predictions(), volumes, classes)
    values = {f"validation_dsc_percent/{name}": 100 * dsc for name, dsc in by_class.items()}
    return mean, {"validation_dsc_percent": 100 * mean, **values}, pictures


def begin_round(experiment, state, best, training_set):
    """The state with the memory of a new round, from the best network so far.

    Args:
      experiment: ``Experiment`` of a method with rounds.
      state: ``TrainState`` at the end of a round.
      best: ``TrainState`` of the best checkpoint.
      training_set: ``TrainingSet`` of arrays of the host.
    """
    variables = experiment.method.predictor(best.params, best.batch_stats, best.memory)

    def predict(images):
        batch = experiment.predict_batch
        return next(predict_stacks(experiment.predict, variables, [images], batch=batch))

    memory = jax.device_get(state.memory)
    memory = experiment.method.rounds.refresh(memory, predict, training_set.unlabelled)
    return state._replace(memory=jax.device_put(memory, parallel.replicated(experiment.mesh)))


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
