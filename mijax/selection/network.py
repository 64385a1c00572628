"""What a network makes of scans: its features, and how far its predictions agree."""

import hashlib

import jax
import jax.numpy as jnp
import numpy as np

from mijax.errors import UserError
from mijax.inference.batching import ahead, predict_stacks
from mijax.runs.source import slice_volume
from mijax.selection.embedding import by_thirds
from mijax.transforms import affine_matrix, inverse_affine, warp

FEATURE = "bottleneck"
_TURNS = {"rotation": (10.0, -10.0), "scale": (1.1, 1 / 1.1)}  # two small transformations


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

    They are those of the best and of the last checkpoint, and those of the best for two turned
    and scaled copies, turned back. Of each the DSC with their mean, pooled over the slices; 1 less
    the mean over the foreground classes that one of them shows. Where none shows any it is 1:
    nothing was found.

    Args:
      predictor: ``inference.Predictor`` of the best checkpoint.
      volumes: iterable of ``data.Volume``.
    """
    network, last = predictor.network, predictor.at("last")
    matrices = affine_matrix(**{name: jnp.array(values) for name, values in _TURNS.items()})
    inverses = inverse_affine(matrices)

    def overlaps(weights, images):
        best, other = weights
        probs = [network.predict(best, images)]
        if last.step != predictor.step:
            probs.append(network.predict(other, images))
        for there, back in zip(matrices, inverses, strict=True):
            there, back = (jnp.broadcast_to(m, (len(images), 3, 3)) for m in (there, back))
            probs.append(warp(network.predict(best, warp(images, there)), back))
        return _overlaps(jnp.stack(probs, axis=1))

    pair = predictor.weights, last.weights
    for rows in _predicted(predictor, network.jit(overlaps), pair, volumes):
        yield mean_disagreement(rows.sum(0))


def mean_disagreement(overlaps):
    """1 − DSC, averaged over members and over the classes that one of them shows.

    Args:
      overlaps: (members, k − 1, 2) pixels that a member shares with their mean, and the sum of
        the pixels of both.
    """
    shared, total = overlaps[..., 0], overlaps[..., 1]
    shown = total.any(0)
    if not shown.any():
        return 1.0
    dsc = np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)
    return float(1 - dsc[:, shown].mean())


def _overlaps(probs):
    """(b, members, h, w, k) -> (b, members, k − 1, 2), see ``mean_disagreement``."""

    def masks(probs):
        return jax.nn.one_hot(probs.argmax(-1), probs.shape[-1])[..., 1:]

    each, mean = masks(probs), masks(probs.mean(1, keepdims=True))
    shared = (each * mean).sum((2, 3))
    total = each.sum((2, 3)) + mean.sum((2, 3))
    return jnp.stack([shared, total], axis=-1)


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
    """Refuses a run of images with other channels.

    Raises:
      UserError: if they are.
    """
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
