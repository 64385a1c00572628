"""The losses of labelled images by name."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax.losses import cross_entropy, label_loss, soft_dice_loss
from mijax.losses.labels import LABEL_LOSSES

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 6, 5, 3)).astype(np.float32)
LABELS = RNG.integers(0, 3, (2, 6, 5))
MASK = RNG.random((2, 6, 5)) > 0.3


@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "masked"])
def test_is_the_sum_of_what_it_is_named_by(mask):
    ce = cross_entropy(LOGITS, LABELS, mask=mask)
    dice = soft_dice_loss(jax.nn.softmax(LOGITS), LABELS, mask=mask, background=True)
    squared = soft_dice_loss(
        jax.nn.softmax(LOGITS), LABELS, mask=mask, background=True, squared=True, absent=True
    )
    values = {kind: label_loss(LOGITS, LABELS, kind=kind, mask=mask) for kind in LABEL_LOSSES}
    assert_allclose(values["cross_entropy"], ce, rtol=1e-6)
    assert_allclose(values["dice"], dice, rtol=1e-6)
    assert_allclose(values["cross_entropy+dice"], ce + dice, rtol=1e-6)
    assert_allclose(values["squared_dice"], squared, rtol=1e-6)
    assert_allclose(values["cross_entropy+squared_dice"], ce + squared, rtol=1e-6)
    assert label_loss(LOGITS, LABELS, mask=mask) == values["cross_entropy"]


def test_another_is_refused():
    with pytest.raises(ValueError, match="one of cross_entropy, dice, .* not 'focal'"):
        label_loss(LOGITS, LABELS, kind="focal")
