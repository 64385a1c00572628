"""The losses of labelled images by name."""

import functools

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
    @jax.jit
    def results(logits, labels):
        dice = functools.partial(
            soft_dice_loss, jax.nn.softmax(logits), labels, mask=mask, background=True
        )
        terms = cross_entropy(logits, labels, mask=mask), dice(), dice(squared=True, absent=True)
        kinds = {kind: label_loss(logits, labels, kind=kind, mask=mask) for kind in LABEL_LOSSES}
        return terms, kinds, label_loss(logits, labels, mask=mask)

    (ce, dice, squared), values, default = results(LOGITS, LABELS)
    assert_allclose(values["cross_entropy"], ce, rtol=1e-6)
    assert_allclose(values["dice"], dice, rtol=1e-6)
    assert_allclose(values["cross_entropy+dice"], ce + dice, rtol=1e-6)
    assert_allclose(values["squared_dice"], squared, rtol=1e-6)
    assert_allclose(values["cross_entropy+squared_dice"], ce + squared, rtol=1e-6)
    assert default == values["cross_entropy"]


@pytest.mark.parametrize("kind", LABEL_LOSSES)
def test_what_is_masked_out_is_no_nan_on_the_way(kind):
    labels = np.where(MASK, LABELS, 255)

    def loss(logits):
        return label_loss(logits, labels, kind=kind, mask=labels != 255)

    with jax.debug_nans(True):  # not jitted: each value is looked at
        assert np.isfinite(jax.grad(loss)(LOGITS)).all()


def test_another_is_refused():
    with pytest.raises(ValueError, match="one of cross_entropy, dice, .* not 'focal'"):
        label_loss(LOGITS, LABELS, kind="focal")
