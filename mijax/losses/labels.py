"""Supervised losses by name, and labels of which some classes were not drawn."""

import jax
import jax.numpy as jnp

from mijax.losses.pointwise import NEVER, cross_entropy, masked, soft_dice_loss, wide

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


def merge_undrawn(logits, undrawn):
    """Logits with classes that nobody drew merged into the background: the marginal loss.

        z'_0 = log (e^{z_0} + Σ_{c undrawn} e^{z_c}),    z'_c = −∞ of those

    So softmax z' gives the background their probabilities and leaves the others as they are, and
    any loss of labels holds the sum of all to what is labelled background, as it may be of each of
    them. Softmax z' is 0 there for the undrawn classes.

    Args:
      logits: (..., k), the background first.
      undrawn: (..., k) of bool, or 1 in the place of any length; that of the background counts
        for nothing.

    Returns:
      (..., k), in float32 or wider.

    Reference: Shi et al., Marginal loss and exclusion loss for partially supervised multi-organ
    segmentation, Medical Image Analysis 2021.

    >>> logits = jnp.log(jnp.array([0.5, 0.25, 0.125, 0.125]))
    >>> jax.nn.softmax(merge_undrawn(logits, jnp.array([False, False, True, True]))).round(4)
    Array([0.75, 0.25, 0.  , 0.  ], dtype=float32)
    """
    undrawn = jnp.broadcast_to(undrawn, logits.shape).at[..., 0].set(False)
    logits = wide(logits)
    merged = undrawn.at[..., 0].set(True)
    background = jax.nn.logsumexp(jnp.where(merged, logits, NEVER), axis=-1)
    return jnp.where(undrawn, NEVER, logits).at[..., 0].set(background)
