"""What the methods share that mix images and hold them to pseudo-labels."""

import zlib

import jax
import jax.numpy as jnp

from mijax.losses import cross_entropy, soft_dice_loss
from mijax.methods.parts import check_threshold
from mijax.transforms import jitter_intensity, paste, sample_boxes

PSEUDO_LOSSES = ("dice", "cross_entropy")


def next_image(x):
    """The next image of the batch for each, which is what is mixed into it."""
    return jnp.roll(x, -1, axis=0)


def mixed_view(key, images, *, jitter, boxes):
    """A strong view of images with boxes of the next one pasted in.

    Args:
      key: PRNG key.
      images: (b, *space, c).
      jitter: keywords of ``jitter_intensity``.
      boxes: keywords of ``sample_boxes``.

    Returns:
      The view (b, *space, c) and where the next image is in it, (b, *space).
    """
    jitter_key, box_key = jax.random.split(key)
    strong = jitter_intensity(jitter_key, images, **jitter)
    inside = sample_boxes(box_key, images.shape[0], images.shape[1:-1], **boxes)
    return paste(inside, strong, next_image(strong)), inside


def pseudo_label_loss(logits, labels, sure, *, inside=None, kind="dice"):
    """Distance to pseudo-labels on the pixels that are sure of theirs.

    Args:
      logits: (b, *space, k).
      labels: (b, *space) integers.
      sure: (b, *space) of bool.
      inside: (b, *space) of 0 and 1, the pixels that are of an image at all; None for all.
      kind: "dice", soft Dice with squares in the denominator, of all classes, over the pixels that
        count; or "cross_entropy", the mean over them, times their part of those inside.

    Returns:
      Scalar; 0 where no pixel is sure.
    """
    inside = jnp.ones_like(sure) if inside is None else inside > 0
    sure = sure & inside
    if kind == "cross_entropy":
        part = jnp.sum(sure) / jnp.maximum(jnp.sum(inside), 1)
        return part * cross_entropy(logits, labels, mask=sure)
    probs = jax.nn.softmax(logits.astype(jnp.float32))
    return soft_dice_loss(probs, labels, mask=sure, background=True, squared=True, absent=True)


def dropped_channels(key, name, shape, rate):
    """Channels of a feature that stay, scaled: (b, 1, …, c) of 0 and 1 / (1 − rate).

    ``name`` is that of the feature, each of which has a draw of its own.
    """
    key = jax.random.fold_in(key, zlib.crc32(name.encode()))
    shape = shape[0], *(1 for _ in shape[1:-1]), shape[-1]
    return jax.random.bernoulli(key, 1 - rate, shape).astype(jnp.float32) / (1 - rate)


def check_pseudo(*, threshold, pseudo_loss):
    """Raises ValueError for pseudo-labels that cannot be."""
    check_threshold(threshold)
    if pseudo_loss not in PSEUDO_LOSSES:
        raise ValueError(f"pseudo_loss is {' or '.join(PSEUDO_LOSSES)}, not {pseudo_loss!r}")
