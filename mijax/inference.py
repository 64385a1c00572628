"""From volumes to class probabilities: the one way, for evaluation and prediction alike."""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from mijax.checkpoint import Checkpoints
from mijax.data import to_native
from mijax.errors import UserError
from mijax.experiment import build, slice_volume


def restore(run, *, checkpoint, tell, devices=None, must_segment=False):
    """The parts and the state of a trained run, from its own folder alone.

    Args:
      run: ``run.Run``.
      checkpoint: "best" (by validation DSC) or "last".
      tell: called with a line about each damaged checkpoint.
      devices: to predict on; all by default.
      must_segment: refuse a run that learned without labels.

    Returns:
      ``Experiment`` and ``TrainState``.

    Raises:
      UserError: if the run has no sound checkpoint, or learned without labels and must not have.
    """
    experiment, like = rebuild(run, devices=devices)
    if must_segment and experiment.measure:
        raise UserError(
            f"{run.folder} learned without labels and segments nothing; fine-tune it with "
            f"--config.init_from={run.folder}"
        )
    with Checkpoints(run.checkpoints, tell=tell, read_only=True) as checkpoints:
        step = checkpoints.step(checkpoint)
        if step is None:
            raise UserError(f"{run.checkpoints} has no sound checkpoint")
        return experiment, checkpoints.restore(step, like)


def rebuild(run, *, devices=None):
    """``Experiment`` of a trained run, and what its checkpoints look like."""
    info = run.info()
    experiment = build(
        run.config, classes=info["classes"], channels=info["channels"], devices=devices
    )
    return experiment, experiment.like(info.get("unlabelled_slices", 0))


def even_slices(volumes, data, *, count, stored):
    """``count`` slices (count, h, w, c), evenly spaced over all slices of some volumes."""
    images = np.concatenate(
        [slice_volume(v._replace(label=None), data, stored=stored).image for v in volumes]
    )
    return images[np.linspace(0, len(images) - 1, count).round().astype(int)]


def measure(experiment, state, images):
    """Measures of a method that learns without labels, as floats by name.

    Each is the mean over batches of ``experiment.predict_batch`` images; ``images``
    (n, h, w, c) are a multiple of that.
    """
    batches = np.split(images, len(images) // experiment.predict_batch)
    found = [jax.device_get(experiment.measure(state, batch)) for batch in batches]
    return {name: float(np.mean([f[name] for f in found])) for name in found[0]}


def predict_volumes(experiment, state, volumes, data, *, stored):
    """Yields the class probabilities of each volume on its native grid, (x, y, z, k) float32.

    The next volume is taken and sliced on a thread while the device works; one at a time, as
    a CT is hundreds of megabytes. Labels are not looked at. A slice that exceeds ``data.size``
    is padded further rather than refused, at the cost of compiling the network for its size.

    Args:
      experiment: ``Experiment``.
      state: ``TrainState``.
      volumes: iterable of ``data.Volume``.
      data: ``config.data``.
      stored: see ``experiment.slice_volume``; False for new scans.
    """
    variables = experiment.method.predictor(state.params, state.batch_stats, state.memory)
    grids = deque()

    def stacks():
        for volume in volumes:
            slices = slice_volume(
                volume._replace(label=None), data, stored=stored, multiple=experiment.stride
            )
            grids.append(slices.grid)
            yield slices.image

    stream = predict_stacks(
        experiment.predict, variables, _ahead(stacks()), batch=experiment.predict_batch
    )
    for probs in stream:
        yield to_native(probs, grids.popleft())


def most_probable(probs):
    """The class of highest probability, of equals the first: (..., k) -> (...) uint8."""
    return probs.argmax(-1).astype(np.uint8)


def predict_stacks(predict, variables, stacks, *, batch):
    """Yields the class probabilities of each stack of slices.

    Batches are filled across stacks of the same h and w and only the last one is padded, so
    that the network sees one shape and the device no idle rows.

    Args:
      predict: ``(variables, (batch, h, w, c)) -> (batch, h, w, k)``.
      variables: passed on.
      stacks: iterable of (n, h, w, c) float32, n may differ.
      batch: slices a call.

    Yields:
      (n, h, w, k) float32, in the order of the stacks.
    """
    for _, alike in itertools.groupby(stacks, key=lambda stack: stack.shape[1:]):
        yield from _predict_alike(predict, variables, alike, batch)


def _predict_alike(predict, variables, stacks, batch):
    sizes, done = deque(), []
    for probs in _predict_chunks(predict, variables, _chunks(stacks, sizes, batch), batch):
        done.append(probs)
        while sizes and sum(map(len, done)) >= sizes[0]:
            rows = np.concatenate(done)
            done = [rows[sizes[0] :]]
            yield rows[: sizes.popleft()]


def _chunks(stacks, sizes, batch):
    """Yields the rows of the stacks by ``batch``, the last fewer, and notes their sizes."""
    waiting, count = None, 0
    for stack in stacks:
        sizes.append(len(stack))
        waiting = stack if waiting is None else np.concatenate([waiting, stack])
        while len(waiting) >= batch:
            yield waiting[:batch]
            waiting, count = waiting[batch:], count + 1
    if len(waiting) or not count:  # not even one row: its shape is asked for all the same
        yield waiting


def _predict_chunks(predict, variables, chunks, batch):
    """Yields the probabilities of each chunk; the device has the next before one is fetched."""
    coming = deque()
    for chunk in chunks:
        padding = [(0, batch - len(chunk))] + [(0, 0)] * (chunk.ndim - 1)
        coming.append((predict(variables, np.pad(chunk, padding)), len(chunk)))
        if len(coming) > 1:
            probs, count = coming.popleft()
            yield np.asarray(probs)[:count]
    for probs, count in coming:
        yield np.asarray(probs)[:count]


def _ahead(items):
    """The same items; the next one is made on a thread while the last is in use."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item
