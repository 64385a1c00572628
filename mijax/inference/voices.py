"""A prediction beside those for transformed copies of the image: what a network is not sure of."""

import jax
import jax.numpy as jnp
import numpy as np

from mijax.inference.signals import disagreement, slice_sums, votes
from mijax.transforms import affine_matrix, inverse_affine, jitter_intensity, warp

# Senses in which each copy is turned and scaled; fewer copies tell less.
_SENSES = np.float32([(1, 1), (-1, -1), (1, -1), (-1, 1)])
COPIES = len(_SENSES)
_STRENGTH = 1 / 4  # of the ranges of the augmentation; stronger ones tell less
_INTENSITY = ("brightness", "contrast", "gamma", "noise", "blur")


def make_voices(network, augmentation):
    """Lets a prediction be heard beside those for transformed copies of the images.

    The transformations are rotation, shear and scale by a quarter of what the run was trained to
    bear, either way; flips, if it was trained with them; and changes of intensity by up to half of
    that. They are the same for every slice of every volume. Where a restored copy had left the
    frame, it agrees.

    Args:
      network: ``network.Network``.
      augmentation: ``config.augmentation`` of its run.

    Returns:
      A function of ``predict``, ``(weights, (b, h, w, c)) -> (b, h, w, k)`` probabilities, that
      returns a function of the same arguments, which takes 1 + ``COPIES`` times as long. That
      returns a dict: ``probs``; ``sums``, see ``signals.slice_sums``; and ``disagreement``. Of 3-D
      images, whose windows overlap, what ``heard`` makes such a dict of, slice by slice.
    """
    transform = network.jit(lambda number, images: _transformed(number, images, augmentation))
    restore = network.jit(lambda number, probs, copy: _restored(number, probs, copy, augmentation))
    compare = network.jit(_compared)

    def with_voices(predict):
        def voices(weights, images):
            probs, total, counts = predict(weights, images), 0.0, []
            for number in range(COPIES):
                copy = predict(weights, transform(number, images))
                restored, count = restore(number, probs, copy)
                total, counts = total + restored, [*counts, count]
            return compare(probs, total, counts)

        def voices_of_volumes(weights, images):
            probs = predict(weights, images)
            copies = [
                restore(number, probs, predict(weights, transform(number, images)))[0]
                for number in range(COPIES)
            ]
            return jnp.concatenate([probs, *copies], -1)

        return voices if network.patch is None else voices_of_volumes

    return with_voices


@jax.jit
def heard(maps):
    """What voices say of a slice of a 3-D image, from their maps (1, h, w, (1 + COPIES) · k)."""
    probs, *copies = jnp.split(maps, 1 + COPIES, axis=-1)
    return _compared(probs, sum(copies), [votes(probs, copy) for copy in copies])


def _transformed(number, images, augmentation):
    """The transformation of that number of all images; intensities change alike in each."""
    strength = {name: augmentation[name] / 2 for name in _INTENSITY}
    key = jax.random.key(number)

    def jitter(image):
        return jitter_intensity(key, image[None], **strength)[0]

    matrix = _matrix(number, images, augmentation)
    return jax.vmap(jitter)(warp(images, matrix, in_plane=_in_plane(images, augmentation)))


def _restored(number, probs, copy, augmentation):
    """A copy turned back, and what it votes for."""
    inverse = inverse_affine(_matrix(number, copy, augmentation))
    restored = warp(copy, inverse, in_plane=_in_plane(copy, augmentation))
    restored = restored + (1 - restored.sum(-1, keepdims=True)) * probs
    return restored, votes(probs, restored)


def _matrix(number, images, augmentation):
    """(b, 3, 3), or (b, 4, 4) of 3-D images, the same for all; depth is scaled as in training."""
    dims = images.ndim - 2
    turn, size = jnp.asarray(_SENSES)[number]
    smallest, largest = (x**_STRENGTH for x in augmentation.scale)
    scale = jnp.where(size > 0, largest, smallest)
    if _in_plane(images, augmentation):
        scale = jnp.stack([1.0, scale, scale])[None]
    flips = jnp.concatenate([jnp.ones(dims - 2), jnp.asarray(_SENSES)[number]])
    matrix = affine_matrix(
        dims=dims,
        rotation=turn * (_STRENGTH * augmentation.rotation),
        shear=size * (_STRENGTH * augmentation.shear),
        scale=scale,
        flip=flips[None] if augmentation.flip else 1.0,
    )
    return jnp.repeat(matrix, len(images), 0)


def _in_plane(images, augmentation):
    """Whether slices of 3-D images stay slices; without a tilt training keeps them, too."""
    return images.ndim == 5 and not augmentation.tilt


def _compared(probs, total, counts):
    others = total / COPIES
    return {
        "probs": probs,
        "sums": jnp.concatenate([slice_sums(probs, others), *counts], -1),
        "disagreement": disagreement(probs, others),
    }
