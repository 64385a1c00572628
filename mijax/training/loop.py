"""The loop of a run: build, restore, step, log, evaluate, save."""

import contextlib
import functools
import logging
import time

import jax
import numpy as np

from mijax import parallel
from mijax.errors import Preempted, UserError, quoted
from mijax.inference.network import evaluated
from mijax.inference.trust import FILE as TRUST
from mijax.options import flat
from mijax.progress import doing
from mijax.runs.annotation import settle_annotation
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import exclusive, open_run, taken_back
from mijax.runs.info import (
    Noting,
    check_data,
    check_grown,
    check_names,
    check_roles,
    write_info,
)
from mijax.runs.leak import check_leak
from mijax.runs.source import index_data, prepare_data
from mijax.runs.splits import settle_splits
from mijax.training.batches import counts_of
from mijax.training.build import build
from mijax.training.config_checks import check_config, remarks
from mijax.training.feed import feed
from mijax.training.gaps import have_gaps
from mijax.training.log_means import LogMeans
from mijax.training.metrics_log import MetricsLog
from mijax.training.pretrained import check_origin, pretrained
from mijax.training.rounds import begin_round, round_starts
from mijax.training.training_set import (
    check_classes,
    check_slices,
    divide,
    load_training_set,
)

_log = logging.getLogger("mijax")


def train(run, *, devices=None):
    """Trains a run to its last step, from its newest sound checkpoint if it has one.

    Args:
      run: ``runs.folder.Run``.
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
            stack.enter_context(exclusive(run))
            stack.enter_context(taken_back(run))
        return _train(run, devices)


def _train(run, devices):
    config = run.config
    check_config(config)
    for line in remarks(config):
        _log.info(line)
    found = index_data(config)
    splits, annotation = settle_splits(run, found.cases), settle_annotation(run, found)
    if config.init_from and not run.begun:
        check_origin(open_run(config.init_from), config)
    check_leak(run, splits, found.cases)
    if config.hypergradient.weights and not splits.test:
        _log.warning(
            "config.hypergradient learns from the labels of the validation cases, and without test "
            "cases (config.data.splits.test) the scores are of the same"
        )
    experiment = build(config, classes=found.classes, channels=found.channels, devices=devices)
    check_slices(splits, found, config, experiment.method, annotation)
    _, unlabelled = divide(splits, experiment.method)
    source = Noting(prepare_data(config, found, annotation), unlabelled)
    with doing("cutting the training slices"):
        training_set = load_training_set(
            source, splits, config, experiment.method, experiment.cropping
        )
    validation = [source.volume(name) for name in splits.validation]
    learned = source.digests()
    if not experiment.method.examination:
        check_classes(training_set.label, validation, source.classes)
    with Checkpoints(run.checkpoints) as checkpoints:
        state = first_state(
            run, experiment, checkpoints, found, training_set, splits, validation, learned
        )
        if have_gaps(training_set, source.classes):
            step = functools.partial(experiment.train_step, gaps=True, undrawn=source.undrawn)
            experiment = experiment._replace(train_step=step)
        return _loop(run, experiment, checkpoints, state, training_set, validation)


def first_state(run, experiment, checkpoints, found, training_set, splits, validation, learned):
    """The ``TrainState`` to go on with: of the newest checkpoint, or that of the beginning.

    Raises:
      UserError: for other data than it began with, or weights to begin with that do not fit.
    """
    start, slices = checkpoints.last_step(), counts_of(training_set).unlabelled or 0
    devices = list(experiment.mesh.devices.flat)
    on, like = parallel.devices(devices), experiment.like(slices)
    if start:
        if not experiment.method.examination:
            check_names(run, experiment.classes)
        check_roles(run, splits)
        check_data(run, validation, learned)
        _log.info("going on from step %d of %d", start, run.config.steps)
        if (begun := run.info()["devices"]) != on:
            _log.info("begun on %s: from here on, %s, it is the same to rounding only", begun, on)
        with doing(f"restoring checkpoint {start}"):
            return checkpoints.restore(start, like)
    origin = open_run(run.config.init_from) if run.config.init_from else None
    given = origin and pretrained(origin, run, like, classes=experiment.classes, devices=devices)
    state = experiment.init(run.config.seed, slices, given)
    if parallel.is_first():
        check_grown(run, validation)
        for stale in ("scores.json", TRUST):  # of a training that this one takes the place of
            (run.folder / stale).unlink(missing_ok=True)
        write_info(
            run,
            classes=experiment.classes,
            channels=experiment.channels,
            numbered=found.numbered,
            splits=splits,
            validation=validation,
            learned=learned,
            init_from=origin,
            devices=on,
        )
    return state


def _loop(run, experiment, checkpoints, state, training_set, validation):
    config, start = run.config, int(state.step)
    calls = list(dispatches(start, config))
    with doing("taking the training slices to the devices"):
        streamed, rows = feed(
            training_set,
            state.key,
            calls,
            streams=config.stream,
            mesh=experiment.mesh,
            batches=experiment.batches,
            cropping=experiment.cropping,
        )
    train_step = functools.cache(lambda length: experiment.train_step(length, streamed))
    compiled, means, doubt = set(), LogMeans(run.folder, start), ""
    new_rounds = round_starts(experiment.method.rounds, config)
    first = parallel.is_first()
    with (
        MetricsLog(run.folder, steps=config.steps, start=start, enabled=first) as log,
        parallel.preemption() as must_stop,
        doing("training", logged=False),
    ):
        if not start:
            log.hyperparameters(dict(flat(config.to_dict())), score=experiment.scoring.ranks)
        for (step, length), taken in zip(calls, rows, strict=False):
            if step in new_rounds:
                sharding = parallel.replicated(experiment.mesh)
                best = checkpoints.restore_network(checkpoints.best_step(), sharding)
                state = begin_round(experiment, state, best, training_set)
            first_call = length not in compiled
            with _compiling(log) if first_call else contextlib.nullcontext():
                state, logs = parallel.finished(train_step(length)(state, taken))
            compiled.add(length)
            means.add(logs, step, experiment.schedule)
            step += length
            log.progress(step)
            if step % config.log_every == 0 or step == config.steps:
                learning_rate = float(experiment.schedule(step - 1))  # of the step just taken
                values = means.take()
                log.scalars(step, values | {"learning_rate": learning_rate})
                if not doubt and (doubt := experiment.method.doubt(values)):
                    _log.warning("step %d: %s", step, doubt)
            if step % config.evaluate_every == 0 or step == config.steps:
                _check_weights(state)
                weights = evaluated(experiment.method, state)
                with doing(f"validating step {step}"):
                    score, values, pictures = experiment.scoring.validate(
                        weights, validation, experiment.classes
                    )
                log.scalars(step, values)
                for name, picture in pictures.items():
                    log.picture(step, name, picture)
                checkpoints.save(state, weights, score=score)
            if notice := must_stop():
                if checkpoints.last_step() != step:
                    _check_weights(state)
                    if first:  # before the checkpoint, which goes on without it otherwise
                        means.keep(step)
                    checkpoints.save(state, evaluated(experiment.method, state))
                raise _stopped(notice, step, run)
    return state


@contextlib.contextmanager
def _compiling(log):
    """The first call of a train step: logged, and no measure of the time that is left."""
    began = time.monotonic()
    with doing("compiling the training step"):
        yield
    log.leave_out(time.monotonic() - began)


def _stopped(notice, step, run):
    """What ends the loop after a notice of ``parallel.preemption``, when the state is saved."""
    kind = KeyboardInterrupt if notice == "Ctrl-C" else Preempted
    return kind(
        f"stopped by {notice} after step {step} of {run.config.steps} and saved; the same command "
        f"goes on, and so does python -m mijax.main --workdir {quoted(run.folder)}"
    )


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
