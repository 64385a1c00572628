"""A prediction beside those for transformed copies of the image: what a network is not sure of."""

import math

import jax
import jax.numpy as jnp

from mijax.inference.signals import disagreement, slice_sums
from mijax.transforms import jitter_intensity, sample_view

COPIES = 4  # transformed copies of a slice; fewer tell less, see docs/annotating.md
_INTENSITY = ("brightness", "contrast", "gamma", "noise", "blur")


def make_voices(network, augmentation):
    """Lets a prediction be heard beside those for transformed copies of the images.

    The transformations are those that the run was trained to bear, at half their strength, and the
    same for every slice of every volume. Where a restored copy had left the frame, it agrees.

    Args:
      network: ``network.Network``.
      augmentation: ``config.augmentation`` of its run.

    Returns:
      A function of ``predict``, ``(weights, (b, h, w, c)) -> (b, h, w, k)`` probabilities, that
      returns a function of the same arguments, which takes 1 + ``COPIES`` times as long. That
      returns a dict: ``probs``; ``sums``, see ``signals.slice_sums``; and ``disagreement``.
    """
    transform = network.jit(lambda number, images: _transformed(number, images, augmentation))
    restore = network.jit(lambda number, probs, copy: _restored(number, probs, copy, augmentation))
    compare = network.jit(_compared)

    def with_voices(predict):
        def voices(weights, images):
            probs, total = predict(weights, images), 0.0
            for number in range(COPIES):
                copy = predict(weights, transform(number, images))
                total = total + restore(number, probs, copy)
            return compare(probs, total)

        return voices

    return with_voices


def _transformed(number, images, augmentation):
    """The transformation of that number of all images; intensities change alike in each."""
    strength = {name: augmentation[name] / 2 for name in _INTENSITY}
    key = jax.random.key(number)

    def jitter(image):
        return jitter_intensity(key, image[None], **strength)[0]

    return jax.vmap(jitter)(_view(number, len(images), augmentation).apply(images))


def _restored(number, probs, copy, augmentation):
    restored = _view(number, len(copy), augmentation).restore(copy)
    return restored + (1 - restored.sum(-1, keepdims=True)) * probs


def _view(number, count, augmentation):
    """T of that number, ``count`` times."""
    view = sample_view(
        jax.random.key(number),
        1,
        rotation=augmentation.rotation / 2,
        shear=augmentation.shear / 2,
        scale=tuple(math.sqrt(x) for x in augmentation.scale),
        flip=augmentation.flip,
    )
    return jax.tree.map(lambda matrix: jnp.repeat(matrix, count, 0), view)


def _compared(probs, total):
    others = total / COPIES
    return {
        "probs": probs,
        "sums": slice_sums(probs, others),
        "disagreement": disagreement(probs, others),
    }
