"""Labels with gaps: pixels that nobody annotated, and classes that nobody drew.

In the training set a pixel has the index of its class, below k, or ``data.UNLABELLED``; or
k + i, for background that may be of any class of the i-th set of classes that nobody drew. So
it goes through augmentation and mixing like any other label, and ``label_loss`` knows what it is.
"""

import functools

import jax.numpy as jnp
import numpy as np

from mijax.data import UNLABELLED
from mijax.errors import UserError
from mijax.losses.labels import label_loss, merge_undrawn
from mijax.losses.pointwise import masked
from mijax.training.ragged import arrays_of


def coded(volume, undrawn, classes):
    """The volume with the label of its set in the place of background.

    Args:
      volume: ``data.Volume`` with classes that nobody drew.
      undrawn: the sets of classes, see ``data.Source``.
      classes: names, background first.

    Raises:
      UserError: if there are more sets than values of a label.
    """
    if len(classes) + len(undrawn) > UNLABELLED:
        raise UserError(
            f"annotation: {len(undrawn)} different sets of drawn classes and {len(classes)} "
            f"classes are together more than {UNLABELLED}"
        )
    code = np.uint8(len(classes) + undrawn.index(volume.undrawn))
    return volume._replace(label=np.where(volume.label == 0, code, volume.label))


def have_gaps(training_set, classes):
    """Whether a label of a ``TrainingSet``, held out ones included, is no class of these."""
    labels = [training_set.label, (training_set.held_out or (None, None))[1]]
    return any(
        bool((part >= len(classes)).any())
        for label in labels
        if label is not None
        for part in arrays_of(label)
    )


def make_label_loss(kind, *, classes, gaps, undrawn=()):
    """``label_loss(logits, labels, *, mask=None)`` of a training set, as methods are given it.

    Args:
      kind: see ``losses.label_loss``.
      classes: how many, k.
      gaps: whether labels may be no class; if not it is ``losses.label_loss`` as it is.
      undrawn: the sets of classes that nobody drew, by index.
    """
    whole = functools.partial(label_loss, kind=kind)
    if not gaps:
        return whole
    # Of each value from k − 1 on, which is of no set, the classes that nobody drew.
    sets = np.zeros((1 + len(undrawn), classes), bool)
    for row, some in zip(sets[1:], undrawn, strict=True):
        row[list(some)] = True

    def loss(logits, labels, *, mask=None):
        known = labels != UNLABELLED
        logits = masked(logits, known)
        if undrawn:
            row = jnp.clip(labels.astype(jnp.int32) - (classes - 1), 0, len(undrawn))
            logits = merge_undrawn(logits, jnp.asarray(sets)[jnp.where(known, row, 0)])
        mask = known if mask is None else jnp.where(known, mask, 0)
        return whole(logits, jnp.where(labels < classes, labels, 0), mask=mask)

    return loss
