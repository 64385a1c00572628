"""The training slices on their way to the devices: all at once, or streamed by Grain."""

import collections
import itertools

import jax
import numpy as np

from mijax import parallel
from mijax.errors import needs
from mijax.training.batches import UNCROPPED, pick, take
from mijax.training.ragged import Ragged

_SHARE = 0.4  # of the device's memory, that a training set may fill


def feed(training_set, key, calls, *, streams, mesh, batches, cropping=UNCROPPED):
    """What each call of the train step takes: the whole set on the device, or slices in time.

    Args:
      training_set: ``TrainingSet`` of arrays of the host.
      key: of the ``TrainState``.
      calls: list of (step, number of steps).
      streams: whether they stream; None where they do if the set does not fit.
      mesh: of all devices.
      batches: ``PerRole``, how many slices a step takes.
      cropping: ``Cropping``.

    Returns:
      Whether they stream, and an iterator of what ``step.make_train_step`` takes then.
    """
    if streams is None:
        streams = not fits(training_set, mesh.local_devices[0])
    if not streams:
        return False, itertools.repeat(parallel.put(training_set, mesh))
    return True, stream(training_set, key, calls, mesh=mesh, batches=batches, cropping=cropping)


def fits(training_set, device):
    """Whether a training set may lie on the device; always, where its memory is the host's."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    leaves = jax.tree.leaves(training_set)
    return limit is None or sum(x.nbytes for x in leaves) <= _SHARE * limit


def stream(training_set, key, dispatches, *, mesh, batches, cropping=UNCROPPED):
    """Yields what each call of a streaming train step takes, in time.

    The same slices as the resident step would draw. They are gathered on threads, and those of
    the next call are on their way while the device works on the last.

    Args:
      training_set: ``TrainingSet`` of arrays of the host.
      key: of the ``TrainState``.
      dispatches: list of (step, number of steps) of each call.
      mesh: of all devices.
      batches: ``PerRole``, how many slices a step takes.
      cropping: ``Cropping``.

    Yields:
      ``TrainingSet`` and its picks, each array with a leading axis of the steps of the call.

    Raises:
      UserError: if Grain is not installed.
    """
    needs("grain", "stream")
    import grain

    begin, (last, length) = dispatches[0][0], dispatches[-1]
    with jax.default_device(jax.local_devices(backend="cpu")[0]):
        # Of all steps at once: a thread that asked JAX for those of one would wait for the step.
        draw = jax.vmap(lambda step: pick(np.asarray(key), step, training_set, batches, cropping))
        picks = jax.device_get(jax.jit(draw)(np.arange(begin, last + length, dtype=np.int32)))

    def rows(dispatch):
        step, length = dispatch
        part = slice(step - begin, step - begin + length)
        some = jax.tree.map(lambda x: x[part], picks)
        flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), some)
        taken = take(training_set, flat, cropping)
        stacked = jax.tree.map(lambda x: x.reshape(length, -1, *x.shape[1:]), taken)
        return tuple(jax.tree.leaves((stacked, some)))

    whole = (training_set._replace(foreground=None), picks)
    structure = jax.tree.structure(whole, is_leaf=lambda x: isinstance(x, Ragged))
    dataset = (
        grain.MapDataset.source(dispatches)
        .map(rows)
        .to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2))
    )
    coming = collections.deque()
    for leaves in dataset:
        coming.append(parallel.put(leaves, mesh))
        if len(coming) > 1:
            yield jax.tree.unflatten(structure, coming.popleft())
    while coming:
        yield jax.tree.unflatten(structure, coming.popleft())
