"""Resampling against SciPy, exact cases, the way there and back, and the gathered gradient."""

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

WILD = {"rotation": 180.0, "shear": 20.0, "scale": (0.5, 2.0), "flip": True}
seeds = st.integers(0, 2**31 - 1)


@jax.jit
def two_wild(seed):
    return sample_affine(jax.random.key(seed), 2, **WILD)


def images_of(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def sources(matrix, shape, size):
    """Where each pixel of a ``shape`` frame comes from in a ``size`` frame, in float64."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    centred = grid - (np.reshape(shape, (2, 1, 1)) - 1) / 2
    matrix = np.asarray(matrix, np.float64)
    place = np.einsum("ij,jhw->ihw", matrix[:2, :2], centred) + matrix[:2, 2, None, None]
    return place + (np.reshape(size, (2, 1, 1)) - 1) / 2


def warp64(image, matrix, shape):
    places = sources(matrix, shape, image.shape[:2])
    # "grid-constant" weighs pixels outside the frame as zeros; "constant" cuts at their edge.
    channels = [
        ndimage.map_coordinates(c, places, order=1, mode="grid-constant")
        for c in np.moveaxis(image.astype(np.float64), -1, 0)
    ]
    return np.stack(channels, -1)


@given(seeds)
def test_warp_equals_scipy(seed):
    images = images_of(seed, 2, 7, 10, 3)
    matrix = two_wild(seed)
    warped = warp_forward(images, matrix)
    for n in range(2):
        assert_allclose(warped[n], warp64(images[n], matrix[n], (7, 10)), atol=2e-5)


def test_warp_to_another_shape_keeps_the_centre():
    images = images_of(0, 1, 8, 11, 2)
    matrix = affine_matrix(rotation=25.0, translation=[[0.5, -1.25]])
    for shape in [(4, 5), (12, 11)]:
        warped = warp_forward(images, matrix, shape=shape)
        assert warped.shape == (1, *shape, 2)
        assert_allclose(warped[0], warp64(images[0], matrix[0], shape), atol=2e-5)
    assert_array_equal(warp_forward(images, affine_matrix(), shape=(4, 5)), images[:, 2:6, 3:8])


@given(seeds)
def test_warped_labels_are_those_of_the_nearest_pixel(seed):
    labels = np.random.default_rng(seed).integers(5, size=(2, 7, 10))
    matrix = two_wild(seed)
    warped = warp_labels(labels, matrix, fill=9)
    for n in range(2):
        places = sources(matrix[n], (7, 10), (7, 10))
        rows, columns = np.rint(places).astype(int)
        inside = (rows >= 0) & (rows < 7) & (columns >= 0) & (columns < 10)
        expected = np.where(inside, labels[n][rows.clip(0, 6), columns.clip(0, 9)], 9)
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
        ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": True}
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
    inverse = inverse_affine(matrix)
    there = warp(np.ones((2, 16, 16, 1), np.float32), matrix)
    masks = coverage(matrix, (16, 16)), validity(matrix, inverse, (16, 16))
    return there[..., 0], warp(there, inverse)[..., 0], *masks


@given(seeds)
def test_masks_are_those_of_a_warped_image_of_ones(seed):
    matrix = two_wild(seed)
    there, back, cover, mask = map(np.asarray, ones_and_masks(matrix))
    assert_allclose(cover, there, atol=1e-5)
    sure = np.abs(back - (1 - EDGE)) > 1e-5
    assert_array_equal(mask[sure], (back > 1 - EDGE)[sure])


# The gathered gradient -----------------------------------------------------------------


@jax.jit
def pullbacks(images, matrix, inverse, cotangent):
    shape = cotangent.shape[1:3]
    _, scatter = jax.vjp(lambda x: warp(x, matrix, shape=shape), images)
    _, gather = jax.vjp(lambda x: warp(x, matrix, inverse=inverse, shape=shape), images)
    return scatter(cotangent)[0], gather(cotangent)[0]


@jax.jit
def four_turns_and_shifts(seed):
    key = jax.random.key(seed)
    turn = sample_affine(key, 4, rotation=180.0, shear=8.0, scale=(0.4, 1.2), flip=True)
    shift = affine_matrix(translation=jax.random.uniform(key, (4, 2), minval=-3, maxval=3))
    return turn @ shift, inverse_affine(turn @ shift)


@given(seeds)
def test_gathered_gradient_equals_the_scattered_one(seed):
    # ‖M⁻¹‖∞ ≤ √2 · scale · (1 + tan shear), at most 1.94 here.
    matrix, inverse = four_turns_and_shifts(seed)
    images, cotangent = images_of(seed, 4, 7, 9, 2), images_of(seed + 1, 4, 5, 12, 2)
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


def test_in_half_precision_the_four_weights_still_sum_to_1():
    ones = np.ones((5, 16, 16, 1), jnp.bfloat16)
    warped = jax.jit(lambda angle: warp(ones, affine_matrix(rotation=angle)))(np.linspace(0, 40, 5))
    assert warped.dtype == jnp.bfloat16
    assert_array_equal(np.asarray(warped, np.float32)[:, 5:11, 5:11], 1)


def test_images_of_integers_are_refused():
    with pytest.raises(ValueError, match="images are floats, not uint8"):
        warp(np.ones((1, 4, 4, 1), np.uint8), affine_matrix())


def test_an_inverse_beyond_the_limit_is_refused():
    matrix = affine_matrix(rotation=45.0, scale=1.5)
    with pytest.raises(ValueError, match="leave inverse out"):
        warp(np.ones((1, 4, 4, 1)), matrix, inverse=inverse_affine(matrix))
