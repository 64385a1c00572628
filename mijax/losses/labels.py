"""Supervised losses by name."""

import jax

from mijax.losses.pointwise import cross_entropy, masked, soft_dice_loss, wide

LABEL_LOSSES = (
    "cross_entropy", "dice", "squared_dice", "cross_entropy+dice", "cross_entropy+squared_dice",
)  # fmt: skip


def label_loss(logits, labels, *, kind="cross_entropy", mask=None, axis_name=None):
    """The loss of labelled images: cross-entropy, soft Dice, or their sum.

    Dice is over all classes with the background, and does not let a rare class die out as
    cross-entropy alone may, early in training.

    Args:
      logits: (..., k).
      labels: (...), integers in [0, k).
      kind: "cross_entropy" (eq. 4 of Peng et al., MIDL 2020), "dice", "cross_entropy+dice" (as
        nnU-Net), or these with "squared_dice": squares in the denominator, and classes that no
        label has count (as SSL4MIS, UniMatch and AD-MT).
      mask: (...) or None; pixels of weight 0 reach neither value nor gradient.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar ≥ 0.

    Raises:
      ValueError: for another kind.

    Reference: Isensee et al., nnU-Net, Nature Methods 2021.

    >>> labels = jnp.array([[0, 1, 1], [0, 0, 255]])
    >>> logits = jnp.zeros((2, 3, 2))
    >>> f"{label_loss(logits, labels, mask=labels != 255):.3f}"  # log 2 in each pixel
    '0.693'
    >>> f"{label_loss(logits, labels, mask=labels != 255, kind='cross_entropy+dice'):.3f}"
    '1.198'
    """
    if kind not in LABEL_LOSSES:
        raise ValueError(f"the loss of labels is one of {', '.join(LABEL_LOSSES)}, not {kind!r}")

    def dice(**options):
        # Masked before the softmax too, whose gradient makes NaN of a NaN that does not count.
        probs = jax.nn.softmax(wide(masked(logits, mask)))
        options |= {"mask": mask, "background": True, "axis_name": axis_name}
        return soft_dice_loss(probs, labels, **options)

    terms = {
        "cross_entropy": lambda: cross_entropy(logits, labels, mask=mask, axis_name=axis_name),
        "dice": dice,
        "squared_dice": lambda: dice(squared=True, absent=True),
    }
    return sum(terms[name]() for name in kind.split("+"))
