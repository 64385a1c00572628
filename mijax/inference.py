"""From volumes to class probabilities: the one way, for evaluation and prediction alike."""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from mijax.checkpoint import Checkpoints
from mijax.data import native_slice, to_native
from mijax.errors import UserError
from mijax.experiment import build, slice_volume
from mijax.metrics import largest_components
from mijax.progress import doing

_MIRRORS = ((), (1,), (2,), (1, 2))


def restore(run, *, checkpoint, tell, devices=None, must_segment=False):
    """The parts and the state of a trained run, from its own folder alone.

    Args:
      run: ``run.Run``.
      checkpoint: "best" (by validation DSC) or "last".
      tell: called with a line about each damaged checkpoint, and where it takes long.
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
        with doing(f"restoring the checkpoint of step {step}", tell=tell):
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


def predict_volumes(
    experiment,
    state,
    volumes,
    data,
    *,
    stored,
    probabilities=False,
    largest_component=False,
    mirror=False,
):
    """Yields the label map of each volume on its native grid, and the class probabilities.

    Of each voxel the most probable class, of equals the first, by the probabilities on the
    native grid. Those are made slice by slice: unless asked for, only two batches of them are in
    memory, since of a hundred classes those of a whole CT take as many gigabytes.

    The next volume is taken and sliced on a thread while the device works; one at a time, as
    a CT is hundreds of megabytes. Labels are not looked at. A slice that exceeds ``data.size``
    is padded further rather than refused, at the cost of compiling the network for its size.

    Args:
      experiment: ``Experiment``.
      state: ``TrainState``.
      volumes: iterable of ``data.Volume``.
      data: ``config.data``.
      stored: see ``experiment.slice_volume``; False for new scans.
      probabilities: whether they are wanted.
      largest_component: keep the largest of each class, see ``metrics.largest_components``; in
        the label map alone.
      mirror: predict the mirror images of each slice as well, see ``mirrored``.

    Yields:
      (x, y, z) uint8; and (x, y, z, k) float32, or None.
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

    predict = mirrored(experiment.predict) if mirror else experiment.predict
    stream = _predict_blocks(predict, variables, _ahead(stacks()), batch=experiment.predict_batch)
    for blocks in _by_stack(stream):
        labels, probs = _on_native_grid(blocks, grids.popleft(), probabilities)
        yield largest_components(labels) if largest_component else labels, probs


def _on_native_grid(blocks, grid, probabilities):
    """Label map and probabilities, or None, of a volume from those of its slices."""
    labels, whole = np.empty(grid.shape, np.uint8), None
    slices = (block[i : i + 1] for block in blocks for i in range(len(block)))
    for place, one in enumerate(slices):
        probs, where = to_native(one, grid), native_slice(grid, place)
        labels[where] = most_probable(probs)
        if probabilities:
            if whole is None:
                whole = np.empty((*grid.shape, probs.shape[3]), np.float32)
            whole[where] = probs
    return labels, whole


def mirrored(predict):
    """``predict`` of an image and of its mirror images along h, w and both; their mean.

    Args:
      predict: ``(variables, (b, h, w, c)) -> (b, h, w, k)`` probabilities.

    Returns:
      A function of the same arguments, which takes four times as long.
    """

    def mean(variables, images):
        found = [jnp.flip(predict(variables, np.flip(images, axes)), axes) for axes in _MIRRORS]
        return sum(found) / len(found)

    return mean


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
    for blocks in _by_stack(_predict_blocks(predict, variables, stacks, batch=batch)):
        yield np.concatenate(list(blocks))


def _by_stack(blocks):
    """Yields an iterator over the blocks of each stack, to be used up before the next."""
    blocks = iter(blocks)

    def stack(block, ends):
        yield block
        while not ends:
            block, ends = next(blocks)
            yield block

    for first in blocks:
        yield stack(*first)


def _predict_blocks(predict, variables, stacks, *, batch):
    """Yields the rows of each stack in one or several blocks, and whether it ends with that."""
    for _, alike in itertools.groupby(stacks, key=lambda stack: stack.shape[1:]):
        left = deque()  # rows to come, of each stack that was taken
        for rows in _predict_chunks(predict, variables, _chunks(alike, left, batch), batch):
            while left and len(rows) >= left[0]:
                size = left.popleft()
                yield rows[:size], True
                rows = rows[size:]
            if len(rows):
                left[0] -= len(rows)
                yield rows, False


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
