"""Which slices a step takes."""

import jax
import numpy as np

from mijax.methods import Unlabelled
from mijax.training.batches import PerRole, TrainingSet, pick


def test_draws_have_nothing_to_do_with_each_other():
    """Nor with the keys of the augmentation, which are the others of the same split."""
    key = jax.random.key_data(jax.random.key(0))
    images = np.zeros((24, 1))
    slices = TrainingSet(images, None, Unlabelled(images, None, None), (images, None))
    draw = jax.vmap(lambda step: pick(key, step, slices, PerRole(4, 4, 8)))
    labelled, unlabelled, held_out = (np.asarray(x.index) for x in draw(np.arange(2000)))
    for a, b in (
        (labelled, unlabelled),
        (labelled, held_out[:, :4]),
        (unlabelled, held_out[:, 4:]),
    ):
        assert abs((a == b).mean() - 1 / 24) < 0.01
    assert (np.bincount(held_out.ravel(), minlength=24) > 0.9 * held_out.size / 24).all()
