"""What a network makes of scans: its features, and how far its predictions agree."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.inference.batching import ahead, predict_stacks
from mijax.inference.signals import signals
from mijax.selection.embedding import by_thirds

FEATURE = "bottleneck"


def features(predictor, volumes):
    """Yields ``{"mean": (3 · c,), "spread": (3 · c,)}`` of each volume.

    Mean and standard deviation of the c features of the bottleneck over the pixels of a slice,
    averaged over the first, the middle and the last third of the slices.

    Args:
      predictor: ``inference.Predictor``.
      volumes: iterable of ``data.Volume`` of its data set.
    """
    network = predictor.network

    def pooled(weights, images):
        found = network.features(weights)(weights["params"]["network"], images)[FEATURE]
        found = found.astype(jnp.float32)
        return jnp.stack([found.mean((1, 2)), found.std((1, 2))], axis=1)

    for rows in _predicted(predictor, network.jit(pooled), predictor.weights, volumes):
        yield {"mean": by_thirds(rows[:, 0]), "spread": by_thirds(rows[:, 1])}


def disagreement(predictor, volumes):
    """Yields how far the predictions for each volume disagree, from 0 to 1.

    1 less the agreement of the label map with those of transformed copies of the image (see
    ``inference.signals``), its mean over the classes that are found; where none is, 1.

    Args:
      predictor: ``inference.Predictor``.
      volumes: iterable of ``data.Volume`` of its data set.
    """
    for one in predictor.look(volume._replace(label=None) for volume in volumes):
        agreement = signals(one.sums)["agreement"]
        found = agreement[~np.isnan(agreement)]
        yield float(1 - found.mean()) if found.size else 1.0


def _predicted(predictor, predict, weights, volumes):
    """Yields what ``predict`` gives for the slices of each volume, a row a slice."""
    network = predictor.network

    def stacks():
        for volume in volumes:
            cuts = slice_volume(
                volume._replace(label=None), network.slices, multiple=network.stride
            )
            yield cuts.image

    return predict_stacks(predict, weights, ahead(stacks()), batch=network.batch)


def check_channels(predictor, channels):
    """Refuses a run of volumes, and one of images with other channels.

    Raises:
      UserError: if they are.
    """
    if predictor.network.patch is not None:
        raise UserError(
            f"{predictor.run.folder} predicts volumes; cases are compared by networks of slices"
        )
    if predictor.channels != channels:
        raise UserError(
            f"{predictor.run.folder} is of images with {predictor.channels} channel(s), and these "
            f"have {channels}: it has no features of them"
        )


def identity(predictor):
    """A text that changes with the weights."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(predictor.weights)):
        digest.update(np.ascontiguousarray(leaf))
    return digest.hexdigest()[:16]
