"""A view: T and T⁻¹ of one draw, and when its gradient may be gathered."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mijax.transforms import sample_view, validity, warp

KEY = jax.random.key(0)


@pytest.mark.parametrize("rotation", [0.0, 20.0, 45.0, 180.0])
@pytest.mark.parametrize("shear", [0.0, 5.0, 30.0])
@pytest.mark.parametrize("low", [0.4, 0.6, 0.71, 0.8, 1.0])
def test_a_gathered_view_keeps_within_the_limit(rotation, shear, low):
    view = sample_view(KEY, 2000, rotation=rotation, shear=shear, scale=(low, 1.3), flip=True)
    worst = np.abs(np.asarray(view.matrix)[:, :2, :2]).sum(-1).max()
    if view.gathered:
        assert worst <= 2 + 1e-5


def test_the_defaults_of_the_methods_are_gathered():
    ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": True}
    assert sample_view(KEY, 1, **ranges).gathered
    assert sample_view(KEY, 1, rotation=180.0, scale=(0.71, 1.0)).gathered
    assert not sample_view(KEY, 1, rotation=180.0, scale=(0.7, 1.0)).gathered
    assert not sample_view(KEY, 1, scale=(0.4, 1.0)).gathered


def test_apply_restore_and_mask_are_of_one_draw():
    view = sample_view(KEY, 3, rotation=30.0, scale=(0.9, 1.1), flip=True)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    assert_allclose(view.matrix @ view.inverse, [np.eye(3)] * 3, atol=1e-6)
    assert_array_equal(view.apply(images), warp(images, view.matrix))
    assert_array_equal(view.restore(images), warp(images, view.inverse))
    assert_array_equal(view.mask((8, 8)), validity(view.matrix, view.inverse, (8, 8)))


def test_flips_come_back_exactly():
    view = sample_view(KEY, 8, flip=True)
    images = np.random.default_rng(1).normal(size=(8, 6, 5, 2)).astype(np.float32)
    assert_array_equal(view.restore(view.apply(images)), images)
    assert_array_equal(view.mask((6, 5)), np.ones((8, 6, 5)))


@pytest.mark.parametrize("ranges", [{"scale": (0.8, 1.2)}, {"scale": (0.4, 0.5)}], ids=str)
def test_gradient_of_restore_is_that_of_the_plain_warp(ranges):
    view = sample_view(KEY, 2, rotation=25.0, **ranges)
    assert view.gathered == (ranges["scale"][0] > 0.5)
    rng = np.random.default_rng(2)
    probs, cotangent = (rng.normal(size=(2, 8, 7, 3)).astype(np.float32) for _ in range(2))
    ours, plain = jax.jit(
        lambda x, t: (
            jax.vjp(view.restore, x)[1](t),
            jax.vjp(lambda y: warp(y, view.inverse), x)[1](t),
        )
    )(probs, cotangent)
    assert_allclose(ours[0], plain[0], atol=1e-5)
