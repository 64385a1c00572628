"""Resampling against SciPy, exact cases, the way there and back, and the gathered gradient."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from mijax import transforms
from mijax.transforms import affine_matrix, inverse_affine, sample_affine, validity, warp
from mijax.transforms.warp import EDGE, coverage

# Compiled once a shape: op by op, the tests would take several times as long.
warp_forward = jax.jit(warp, static_argnames="shape")
warp_labels = jax.jit(transforms.warp_labels, static_argnames=("shape", "fill"))
mask_of = jax.jit(lambda matrix: validity(matrix, inverse_affine(matrix), (16, 16)))

WILD = {"shear": 20.0, "scale": (0.5, 2.0), "flip": 0.5}
SIZES = {2: (7, 10), 3: (5, 7, 6)}
seeds = st.integers(0, 2**31 - 1)
planes_and_space = pytest.mark.parametrize("dims", [2, 3])


@functools.partial(jax.jit, static_argnums=1)
def two_wild(seed, dims=2):
    rotation = 180.0 if dims == 2 else (180.0, 180.0, 180.0)
    return sample_affine(jax.random.key(seed), 2, rotation=rotation, **WILD, dims=dims)


def images_of(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sources(matrix, shape, size):
    """Where each pixel of a ``shape`` frame comes from in a ``size`` frame, in float64."""

    def column(x):
        return np.reshape(x, (-1, *[1] * len(shape)))

    centred = np.indices(shape) - (column(shape) - 1) / 2
    matrix = np.asarray(matrix, np.float64)
    place = np.einsum("ij,j...->i...", matrix[:-1, :-1], centred) + column(matrix[:-1, -1])
    return place + (column(size) - 1) / 2


def warp64(image, matrix, shape):
    places = sources(matrix, shape, image.shape[:-1])
    # "grid-constant" weighs pixels outside the frame as zeros; "constant" cuts at their edge.
    channels = [
        ndimage.map_coordinates(c, places, order=1, mode="grid-constant")
        for c in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(channels, -1)


@planes_and_space
@given(seeds)
def test_warp_equals_scipy(dims, seed):
    images = images_of(seed, 2, *SIZES[dims], 3)
    matrix = two_wild(seed, dims)
    warped = warp_forward(images, matrix)
    for n in range(2):
        assert_allclose(warped[n], warp64(images[n], matrix[n], SIZES[dims]), atol=2e-5)


def test_warp_to_another_shape_keeps_the_centre():
    images = images_of(0, 1, 8, 11, 2)
    matrix = affine_matrix(rotation=25.0, translation=[[0.5, -1.25]])
    for shape in [(4, 5), (12, 11)]:
        warped = warp_forward(images, matrix, shape=shape)
        assert warped.shape == (1, *shape, 2)
        assert_allclose(warped[0], warp64(images[0], matrix[0], shape), atol=2e-5)
    assert_array_equal(warp_forward(images, affine_matrix(), shape=(4, 5)), images[:, 2:6, 3:8])
    volumes, shape = images_of(1, 1, 5, 6, 4, 2), (3, 7, 4)
    matrix = affine_matrix(rotation=[[25.0, 10.0, -5.0]], translation=[[0.5, 0, 1.25]], dims=3)
    warped = warp_forward(volumes, matrix, shape=shape)
    assert_allclose(warped[0], warp64(volumes[0], matrix[0], shape), atol=2e-5)


@planes_and_space
@given(seeds)
def test_warped_labels_are_those_of_the_nearest_pixel(dims, seed):
    size = SIZES[dims]
    labels = np.random.default_rng(seed).integers(5, size=(2, *size))
    matrix = two_wild(seed, dims)
    warped = warp_labels(labels, matrix, fill=9)
    for n in range(2):
        places = sources(matrix[n], size, size)
        pixel = np.rint(places).astype(int)
        last = np.reshape(size, (-1, *[1] * dims)) - 1
        inside = ((pixel >= 0) & (pixel <= last)).all(0)
        expected = np.where(inside, labels[n][tuple(pixel.clip(0, last))], 9)
        undecided = (np.abs(places % 1 - 0.5) < 1e-4).any(0)
        assert_array_equal(np.where(undecided, 0, warped[n]), np.where(undecided, 0, expected))


def test_identity_flips_and_whole_pixels_are_exact():
    images = images_of(1, 1, 6, 9, 2)
    labels = np.random.default_rng(1).integers(4, size=(1, 6, 9))
    moved = np.zeros_like(images)
    moved[:, 1:, :-2] = images[:, :-1, 2:]
    assert_array_equal(warp_forward(images, affine_matrix()), images)
    assert_array_equal(warp_labels(labels, affine_matrix()), labels)
    for flip, axes in [((-1.0, 1.0), 1), ((1.0, -1.0), 2), ((-1.0, -1.0), (1, 2))]:
        matrix = affine_matrix(flip=np.array([flip]))
        flipped = warp_forward(images, matrix)
        assert_array_equal(flipped, np.flip(images, axes))
        assert_array_equal(warp_forward(flipped, inverse_affine(matrix)), images)
        assert_array_equal(warp_labels(labels, matrix), np.flip(labels, axes))
    down_and_left = affine_matrix(translation=[[1.0, -2.0]])
    assert_array_equal(warp_forward(images, down_and_left), moved)


def test_identity_flips_and_whole_voxels_are_exact():
    images = images_of(1, 1, 3, 6, 4, 2)
    labels = np.random.default_rng(1).integers(4, size=(1, 3, 6, 4))
    for flip, axes in [((-1.0, 1.0, 1.0), 1), ((1.0, -1.0, -1.0), (2, 3))]:
        matrix = affine_matrix(flip=np.array([flip]), dims=3)
        assert_array_equal(warp_forward(images, matrix), np.flip(images, axes))
        assert_array_equal(warp_labels(labels, matrix), np.flip(labels, axes))
    moved = np.zeros_like(images)
    moved[:, 1:, :-2, 1:] = images[:, :-1, 2:, :-1]
    matrix = affine_matrix(translation=[[1.0, -2.0, 1.0]], dims=3)
    assert_array_equal(warp_forward(images, matrix), moved)


@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_of_a_square(size, turns):
    images = images_of(2, 1, size, size, 1)
    labels = np.arange(size * size).reshape(1, size, size)
    matrix = affine_matrix(rotation=90.0 * turns)
    turned = warp_forward(images, matrix)
    assert_allclose(turned, np.rot90(images, turns, axes=(1, 2)), atol=1e-5)
    assert_array_equal(warp_labels(labels, matrix), np.rot90(labels, turns, axes=(1, 2)))


def test_there_and_back_on_a_smooth_image():
    y, x = np.mgrid[:64, :64] / 64
    image = 0.5 + 0.25 * np.sin(2 * np.pi * (2 * y + x)) + 0.25 * np.cos(2 * np.pi * (3 * x - y))
    images = np.tile(image[None, :, :, None], (8, 1, 1, 1)).astype(np.float32)

    @jax.jit
    def there_and_back(key):
        ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": 0.5}
        matrix = sample_affine(key, 8, **ranges)
        inverse = inverse_affine(matrix)
        return warp(warp(images, matrix), inverse), validity(matrix, inverse, (64, 64))

    back, mask = map(np.asarray, there_and_back(jax.random.key(4)))
    error, inside = np.abs(back - images)[..., 0], mask > 0
    assert 0.5 < inside.mean() < 1
    assert error[inside].mean() < 0.005 and error[inside].max() < 0.05
    assert error[~inside].mean() > 10 * error[inside].mean()


def test_validity_is_what_stayed_in_the_frame():
    # Magnified twice, the middle half stays; moved right by 5, five columns leave.
    mask = np.asarray(mask_of(affine_matrix(scale=2.0)))[0]
    assert_array_equal(mask[5:11, 5:11], 1)
    assert mask[:4].max() == mask[:, :4].max() == mask[12:].max() == mask[:, 12:].max() == 0
    mask = np.asarray(mask_of(affine_matrix(translation=[[0.0, 5.0]])))[0]
    assert_array_equal(mask, np.broadcast_to(np.arange(16) < 11, (16, 16)))
    # After 45° the corners are gone and the middle is not.
    mask = np.asarray(mask_of(affine_matrix(rotation=45.0)))[0]
    assert mask[8, 8] == mask[8, 2] == mask[2, 8] == 1
    assert mask[0, 0] == mask[0, -1] == mask[-1, 0] == mask[-1, -1] == 0


@jax.jit
def ones_and_masks(matrix):
    """An image of ones there, and there and back, and the masks of both in closed form."""
    inverse, shape = inverse_affine(matrix), (16, 16) if matrix.shape[-1] == 3 else (9, 8, 7)
    there = warp(np.ones((2, *shape, 1), np.float32), matrix)
    masks = coverage(matrix, shape), validity(matrix, inverse, shape)
    return there[..., 0], warp(there, inverse)[..., 0], *masks


@planes_and_space
@given(seeds)
def test_masks_are_those_of_a_warped_image_of_ones(dims, seed):
    matrix = two_wild(seed, dims)
    there, back, cover, mask = map(np.asarray, ones_and_masks(matrix))
    assert_allclose(cover, there, atol=1e-5)
    sure = np.abs(back - (1 - EDGE)) > 1e-5
    assert_array_equal(mask[sure], (back > 1 - EDGE)[sure])


def test_in_half_precision_the_four_weights_still_sum_to_1():
    ones = np.ones((5, 16, 16, 1), jnp.bfloat16)
    warped = jax.jit(lambda angle: warp(ones, affine_matrix(rotation=angle)))(np.linspace(0, 40, 5))
    assert warped.dtype == jnp.bfloat16
    assert_array_equal(np.asarray(warped, np.float32)[:, 5:11, 5:11], 1)


def test_images_of_integers_are_refused():
    with pytest.raises(ValueError, match="images are floats, not uint8"):
        warp(np.ones((1, 4, 4, 1), np.uint8), affine_matrix())
