"""The gradient of a warp, gathered or scattered, and warps that leave slices slices."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mijax.transforms import affine_matrix, inverse_affine, sample_affine, warp

seeds = st.integers(0, 2**31 - 1)


def images_of(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@jax.jit
def pullbacks(images, matrix, inverse, cotangent):
    shape = cotangent.shape[1:-1]
    _, scatter = jax.vjp(lambda x: warp(x, matrix, shape=shape), images)
    _, gather = jax.vjp(lambda x: warp(x, matrix, inverse=inverse, shape=shape), images)
    return scatter(cotangent)[0], gather(cotangent)[0]


@functools.partial(jax.jit, static_argnums=1)
def turns_and_shifts(seed, dims):
    key, count = jax.random.key(seed), 4 if dims == 2 else 2
    # ‖M⁻¹‖∞ ≤ √n · scale · (1 + tan shear), at most 1.94 in the plane and 1.97 in space.
    ranges = {2: {"rotation": 180.0, "shear": 8.0, "scale": (0.4, 1.2)}}.get(
        dims, {"rotation": (180.0, 180.0, 180.0), "shear": 2.0, "scale": (0.4, 1.1)}
    )
    turn = sample_affine(key, count, **ranges, flip=0.5, dims=dims)
    shift = jax.random.uniform(key, (count, dims), minval=-3, maxval=3)
    matrix = turn @ affine_matrix(translation=shift, dims=dims)
    return matrix, inverse_affine(matrix)


@pytest.mark.parametrize(
    ("size", "shape"), [((4, 7, 9), (4, 5, 12)), ((2, 5, 4, 6), (2, 3, 6, 6))], ids=["2", "3"]
)
@given(seeds)
def test_gathered_gradient_equals_the_scattered_one(size, shape, seed):
    matrix, inverse = turns_and_shifts(seed, len(size) - 1)
    images, cotangent = images_of(seed, *size, 2), images_of(seed + 1, *shape, 2)
    scattered, gathered = pullbacks(images, matrix, inverse, cotangent)
    assert_allclose(gathered, scattered, atol=1e-4)


def test_gathered_gradient_at_its_limit():
    # 45° and a scale of √2: both rows of the inverse sum to 2.
    matrix = affine_matrix(rotation=45.0, scale=np.sqrt(2))
    matrix, inverse = (np.repeat(x, 4, 0) for x in (matrix, inverse_affine(matrix)))
    assert_allclose(np.abs(inverse[:, :2, :2]).sum(-1), 2, rtol=1e-6)
    images, cotangent = images_of(6, 4, 7, 9, 2), images_of(7, 4, 5, 12, 2)
    scattered, gathered = pullbacks(images, matrix, inverse, cotangent)
    assert_allclose(gathered, scattered, atol=1e-5)
    jax.eval_shape(lambda x: warp(x, matrix, inverse=inverse), images)  # and is not refused


def test_gathered_gradient_at_its_limit_in_space():
    # A diagonal of the cube becomes an axis: with a scale of 2/√3, a row of the inverse sums to 2.
    diagonal = np.linalg.qr(np.stack([np.ones(3), [1, -1, 0], [1, 1, -2]], 1))[0].T
    inverse = np.eye(4, dtype=np.float32)[None].repeat(2, 0)
    inverse[:, :3, :3] = 2 / np.sqrt(3) * diagonal
    assert_allclose(np.abs(inverse[:, :3, :3]).sum(-1).max(), 2, rtol=1e-6)
    matrix = inverse_affine(inverse)
    images, cotangent = images_of(6, 2, 5, 4, 6, 2), images_of(7, 2, 3, 6, 6, 2)
    scattered, gathered = pullbacks(images, matrix, inverse, cotangent)
    assert_allclose(gathered, scattered, atol=1e-5)
    jax.eval_shape(lambda x: warp(x, matrix, inverse=inverse), images)  # and is not refused


# Slices that stay slices --------------------------------------------------------------------


@jax.jit
def in_plane_and_plain(images, matrix, cotangent):
    """Warped images and their gradient: in-plane, with the gradient gathered as well; plain."""
    shape, inverse = cotangent.shape[1:-1], inverse_affine(matrix)
    plain, pull = jax.vjp(lambda x: warp(x, matrix, shape=shape), images)
    ours, scatter = jax.vjp(lambda x: warp(x, matrix, shape=shape, in_plane=True), images)
    _, gather = jax.vjp(
        lambda x: warp(x, matrix, inverse=inverse, shape=shape, in_plane=True), images
    )
    gradients = [f(cotangent)[0] for f in (scatter, gather, pull)]
    return ours, plain, *gradients


@jax.jit
def turn_in_plane(key):
    ranges = {"rotation": 180.0, "shear": 8.0, "scale": (0.7, 1.2)}
    return sample_affine(key, 2, **ranges, flip=0.5, dims=3)


@given(seeds)
def test_in_plane_is_the_same_with_fewer_pixels(seed):
    turn = np.array(turn_in_plane(jax.random.key(seed)))
    # From 4 slices to 3, a whole one further: the middle of 3 is half a slice off that of 4.
    turn[:, 0, 3] = [0.5, -1.5]
    images, cotangent = images_of(seed, 2, 4, 7, 6, 2), images_of(seed + 1, 2, 3, 6, 8, 2)
    ours, plain, scattered, gathered, expected = in_plane_and_plain(images, turn, cotangent)
    assert_allclose(ours, plain, atol=1e-5)
    assert_allclose(scattered, expected, atol=1e-5)
    assert_allclose(gathered, expected, atol=1e-5)


def test_in_plane_is_the_warp_of_each_slice():
    images, matrix = images_of(3, 2, 3, 7, 6, 2), turns_and_shifts(5, 2)[0][:2]
    volume = np.eye(4, dtype=np.float32)[None].repeat(2, 0)
    volume[:, 1:, 1:] = matrix
    warped = jax.jit(functools.partial(warp, in_plane=True))(images, volume)
    warp_slice = jax.jit(warp)
    for n in range(3):
        assert_allclose(warped[:, n], warp_slice(images[:, n], matrix), atol=1e-6)


def test_in_plane_halves_the_work_and_needs_no_loop():
    matrix, images = np.eye(4, dtype=np.float32)[None].repeat(2, 0), images_of(4, 2, 3, 7, 6, 2)

    def gradient(x, in_plane):
        return jax.grad(lambda y: warp(y, matrix, inverse=matrix, in_plane=in_plane).sum())(x)

    whole, plane = (
        jax.jit(functools.partial(warp, in_plane=x)).lower(images, matrix).cost_analysis()["flops"]
        for x in (False, True)
    )
    assert plane < 0.6 * whole
    loops = ["scan[" in str(jax.make_jaxpr(gradient, 1)(images, x)) for x in (False, True)]
    assert loops == [True, False]


def test_an_inverse_beyond_the_limit_is_refused():
    matrix = affine_matrix(rotation=45.0, scale=1.5)
    with pytest.raises(ValueError, match="leave inverse out"):
        warp(np.ones((1, 4, 4, 1)), matrix, inverse=inverse_affine(matrix))
