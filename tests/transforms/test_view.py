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
    # The gradient of apply is gathered by the inverse, that of restore by the matrix.
    for gathered, matrix in zip(view.gathered, (view.inverse, view.matrix), strict=True):
        if gathered:
            assert np.abs(np.asarray(matrix)[:, :2, :2]).sum(-1).max() <= 2 + 1e-5


def test_the_defaults_of_the_methods_are_gathered():
    ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": True}
    assert sample_view(KEY, 1, **ranges).gathered == (True, True)
    assert sample_view(KEY, 1, rotation=180.0, scale=(0.71, 1.0)).gathered == (True, True)
    assert sample_view(KEY, 1, rotation=180.0, scale=(0.7, 1.0)).gathered == (True, False)
    assert sample_view(KEY, 1, rotation=180.0, scale=(1.0, 1.42)).gathered == (False, True)
    assert sample_view(KEY, 1, scale=(0.4, 2.5)).gathered == (False, False)


def test_apply_restore_and_mask_are_of_one_draw():
    view = sample_view(KEY, 3, rotation=30.0, scale=(0.9, 1.1), flip=True)
    images = np.random.default_rng(0).normal(size=(3, 8, 8, 2)).astype(np.float32)
    assert_allclose(view.matrix @ view.inverse, [np.eye(3)] * 3, atol=1e-6)
    assert_array_equal(view.apply(images), warp(images, view.matrix))
    assert_array_equal(view.restore(images), warp(images, view.inverse))
    assert_array_equal(view.mask((8, 8)), validity(view.matrix, view.inverse, (8, 8)))


@pytest.mark.parametrize("translation", [0.0, 0.2])
def test_a_view_goes_in_and_out_of_jit(translation):
    ranges = {"rotation": 30.0, "flip": True, "translation": translation, "shape": (8, 8)}
    view = sample_view(KEY, 2, **ranges)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 1)).astype(np.float32)
    same, there, back, mask = jax.jit(
        lambda v, x: (v, v.apply(x), v.restore(x[:, ::2, ::2]), v.mask((8, 8)))
    )(view, images)
    assert (same.gathered, same.height) == ((True, True), 8 if translation else None)
    assert_array_equal(same.matrix, view.matrix)
    assert_allclose(there, view.apply(images), atol=1e-6)
    assert_allclose(back, view.restore(images[:, ::2, ::2]), atol=1e-6)
    assert_array_equal(mask, view.mask((8, 8)))


def test_flips_come_back_exactly():
    view = sample_view(KEY, 8, flip=True)
    images = np.random.default_rng(1).normal(size=(8, 6, 5, 2)).astype(np.float32)
    assert_array_equal(view.restore(view.apply(images)), images)
    assert_array_equal(view.mask((6, 5)), np.ones((8, 6, 5)))


@pytest.mark.parametrize("ranges", [{"scale": (0.8, 1.2)}, {"scale": (0.4, 0.5)}], ids=str)
def test_gradients_are_those_of_the_plain_warp(ranges):
    view = sample_view(KEY, 2, rotation=25.0, **ranges)
    assert view.gathered == (True, ranges["scale"][0] > 0.5)
    rng = np.random.default_rng(2)
    probs, cotangent = (rng.normal(size=(2, 8, 7, 3)).astype(np.float32) for _ in range(2))
    ours, plain = jax.jit(
        lambda x, t: (
            [jax.vjp(f, x)[1](t)[0] for f in (view.apply, view.restore)],
            [jax.vjp(lambda y, m=m: warp(y, m), x)[1](t)[0] for m in (view.matrix, view.inverse)],
        )
    )(probs, cotangent)
    assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 7), (5, 9)], ids=str)
def test_views_are_differentiated_forwards_too(shape):
    view = sample_view(KEY, 2, rotation=25.0, scale=(0.8, 1.2))
    assert view.gathered == (True, True)
    rng = np.random.default_rng(3)
    images, tangent, cotangent = (
        rng.normal(size=(2, *n, 3)).astype(np.float32) for n in ((8, 7), (8, 7), shape)
    )

    def moved(x):
        return warp(x, view.matrix, inverse=view.inverse, shape=shape)

    value, pushed = jax.jvp(moved, (images,), (tangent,))
    assert_allclose(value, warp(images, view.matrix, shape=shape), atol=1e-6)
    assert_allclose(pushed, moved(tangent), atol=1e-6)
    # ⟨J t, c⟩ = ⟨t, Jᵀ c⟩, and the transpose of Jᵀ is J again.
    pull = jax.vjp(moved, images)[1]
    assert_allclose(np.vdot(pushed, cotangent), np.vdot(tangent, pull(cotangent)[0]), rtol=1e-4)
    back = jax.linear_transpose(lambda c: pull(c)[0], cotangent)
    assert_allclose(back(tangent)[0], pushed, atol=1e-6)
    assert_allclose(jax.jvp(view.restore, (images,), (tangent,))[1], view.restore(tangent))


def test_a_gathered_gradient_has_no_scatter_and_maps():
    views = jax.vmap(lambda k: sample_view(k, 2, rotation=25.0))(jax.random.split(KEY, 3))
    images = np.random.default_rng(4).normal(size=(2, 8, 7, 3)).astype(np.float32)

    def gradient(view):
        return jax.grad(lambda x: jax.numpy.sum(view.apply(x) ** 3))(images)

    one_by_one = [gradient(jax.tree.map(lambda x, i=i: x[i], views)) for i in range(3)]
    assert_allclose(jax.vmap(gradient)(views), one_by_one, atol=1e-6)
    program = str(jax.make_jaxpr(jax.vmap(gradient))(views))
    assert "scatter" not in program and "optimization_barrier" in program


def test_a_translation_goes_with_the_resolution():
    ranges = {"rotation": 20.0, "scale": (0.9, 1.1), "translation": 0.25}
    view = sample_view(KEY, 4, **ranges, shape=(32, 48))
    moves = np.asarray(view.matrix)[:, :2, 2]
    assert (np.abs(moves) < 0.25 * np.hypot(32, 48) / 0.9).all() and np.abs(moves).max() > 3
    # Smooth images, so that sampling them at half the resolution changes little.
    rows, columns = np.mgrid[:32, :48] / 16
    image = np.stack([np.cos(rows + i) * np.sin(columns + 2 * i) for i in range(4)])[..., None]
    image = image.astype(np.float32)

    def halved(x):
        return np.asarray(x).reshape(4, 16, 2, 24, 2, 1).mean((2, 4))

    valid = (halved(view.inside((32, 48))[..., None]) == 1) & (
        np.asarray(view.inside((16, 24)))[..., None] == 1
    )
    assert valid.mean() > 0.4
    difference = halved(view.apply(image)) - view.apply(halved(image))
    assert_allclose(np.where(valid, difference, 0), 0, atol=0.03)
    with pytest.raises(ValueError, match="shape of the frame"):
        sample_view(KEY, 1, translation=0.1)


def test_inside_is_where_the_image_is():
    view = sample_view(KEY, 3, rotation=30.0, scale=(0.5, 0.9))
    inside = np.asarray(view.inside((12, 10)))
    assert 0.2 < inside.mean() < 0.95
    ones = np.asarray(view.apply(np.ones((3, 12, 10, 1), np.float32)))[..., 0]
    assert_array_equal(inside, (ones > 0.999).astype(np.float32))
