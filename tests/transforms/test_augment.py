"""Augmentation: images and labels move as one, and each change of intensity by its formula."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from mijax import transforms

KEY = jax.random.key(0)
INTENSITIES = ("brightness", "contrast", "gamma", "noise", "blur")
MOVES = ("crop", "rotation", "shear", "scale", "flip", "quarter_turns")

# Compiled once a shape: op by op, the tests would take several times as long.
augment = jax.jit(transforms.augment, static_argnames=(*MOVES, *INTENSITIES))
jitter = jax.jit(functools.partial(transforms.jitter_intensity, KEY), static_argnames=INTENSITIES)


def images_of(seed, *shape):
    return np.random.default_rng(seed).uniform(0.05, 0.95, size=shape).astype(np.float32)


@pytest.mark.parametrize("crop", [(4, 3), (7, 5)])
def test_a_crop_copies_the_image_at_a_random_place(crop):
    count, size = 256, (7, 8)
    images = np.tile(images_of(1, 1, *size, 2), (count, 1, 1, 1))
    labels = np.tile(np.arange(size[0] * size[1]).reshape(1, *size), (count, 1, 1))
    cut, cut_labels = (np.asarray(x) for x in augment(KEY, images, labels, crop=crop))
    places = [np.unravel_index(first, size) for first in cut_labels[:, 0, 0]]
    for n, (i, j) in enumerate(places):
        window = (n, slice(i, i + crop[0]), slice(j, j + crop[1]))
        assert_array_equal(cut[n], images[window])
        assert_array_equal(cut_labels[n], labels[window])
    # Every place is reached.
    assert len(set(places)) == (size[0] - crop[0] + 1) * (size[1] - crop[1] + 1)


def test_a_crop_larger_than_the_image_pads_with_background():
    images, labels = images_of(2, 3, 4, 4, 1), np.ones((3, 4, 4), int)
    padded, padded_labels = augment(KEY, images, labels, crop=(7, 6))
    assert_array_equal(np.sum(padded_labels, (1, 2)), [16] * 3)
    assert_array_equal(np.asarray(padded)[..., 0] > 0, np.asarray(padded_labels) == 1)
    assert_allclose(np.sum(padded, (1, 2)), images.sum((1, 2)), rtol=1e-6)


def test_labels_go_where_the_images_go():
    labels = np.random.default_rng(3).integers(2, size=(8, 12, 12))
    moved, moved_labels = augment(
        KEY,
        labels[..., None].astype(np.float32),
        labels,
        crop=(8, 8),
        rotation=180.0,
        shear=10.0,
        scale=(0.8, 1.25),
        flip=True,
    )
    # The nearest of the four pixels weighs at least a quarter.
    share, moved_labels = np.asarray(moved)[..., 0], np.asarray(moved_labels)
    assert (share > 0.76).any() and (share < 0.24).any()
    assert_array_equal(moved_labels[share > 0.76], 1)
    assert_array_equal(moved_labels[share < 0.24], 0)


BATCH = images_of(4, 4, 9, 9, 1), np.random.default_rng(4).integers(3, size=(4, 9, 9))
GEOMETRY = {"rotation": 90.0, "flip": True, "crop": (8, 8)}


def test_intensity_leaves_labels_and_places_alone():
    plain, plain_labels = augment(KEY, *BATCH, **GEOMETRY)
    bright, bright_labels = augment(KEY, *BATCH, **GEOMETRY, brightness=0.5)
    assert_array_equal(bright_labels, plain_labels)
    change = np.asarray(bright) - np.asarray(plain)
    assert_allclose(change, np.broadcast_to(change[:, :1, :1], change.shape), atol=1e-6)
    assert np.abs(change).min() > 0


def test_a_key_determines_the_result():
    one, same, other = (
        np.asarray(augment(jax.random.key(n), *BATCH, **GEOMETRY, brightness=0.5)[0])
        for n in (0, 0, 1)
    )
    assert_array_equal(one, same)
    assert (one[0] != other[0]).all() and (one[0] != one[1]).all()


# Intensity -----------------------------------------------------------------------------

IMAGES = images_of(6, 300, 4, 5, 2)


def one_number_an_image(x):
    x = np.asarray(x)
    number = np.median(x, axis=(1, 2, 3))
    assert_allclose(x, np.broadcast_to(number[:, None, None, None], x.shape), rtol=1e-3, atol=1e-5)
    return number


def fills(draws, low, high):
    slack = 1e-3 * (high - low)
    assert low - slack <= draws.min() < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < draws.max() <= high + slack


def test_brightness_is_added():
    fills(one_number_an_image(jitter(IMAGES, brightness=0.3) - IMAGES), -0.3, 0.3)


def test_contrast_multiplies_the_distance_to_the_mean():
    mean = IMAGES.mean((1, 2, 3), keepdims=True)
    changed = np.asarray(jitter(IMAGES, contrast=0.4))
    assert_allclose(changed.mean((1, 2, 3), keepdims=True), mean, atol=1e-5)
    far = np.abs(IMAGES - mean) > 0.02
    factor = np.where(far, changed - mean, 1) / np.where(far, IMAGES - mean, 1)
    factor = np.where(
        far, factor, np.nanmedian(np.where(far, factor, np.nan), (1, 2, 3), keepdims=True)
    )
    fills(np.log(one_number_an_image(factor)), -0.4, 0.4)


def test_gamma_is_the_exponent():
    low, high = (f(IMAGES, (1, 2, 3), keepdims=True) for f in (np.min, np.max))

    def stretched(images):  # off the ends, where every exponent gives the same
        return np.clip((images - low) / (high - low), 0.05, 0.95)

    changed = np.asarray(jitter(IMAGES, gamma=0.5))
    assert_allclose(changed.min((1, 2, 3)), low.ravel(), atol=1e-6)
    assert_allclose(changed.max((1, 2, 3)), high.ravel(), atol=1e-6)
    middle = (stretched(IMAGES) > 0.2) & (stretched(IMAGES) < 0.8)
    ratio = np.log(stretched(changed)) / np.log(stretched(IMAGES))
    exponent = np.nanmedian(np.where(middle, ratio, np.nan), (1, 2, 3), keepdims=True)
    assert_allclose(np.where(middle, ratio, exponent), exponent * np.ones_like(ratio), rtol=0.2)
    fills(np.log(exponent.ravel()), -0.5, 0.5)


def test_gamma_knows_no_range_and_leaves_a_flat_image():
    scores = np.linspace(-3, 900, 16, dtype=np.float32).reshape(1, 4, 4, 1)
    changed = np.asarray(jitter(scores, gamma=0.5))
    assert changed.min() == -3 and changed.max() == 900
    flat = np.full((1, 4, 4, 1), 7.0, np.float32)
    assert_array_equal(jitter(flat, gamma=0.5), flat)


def test_noise_has_the_standard_deviation_drawn():
    images = np.full((200, 20, 20, 1), 0.5, np.float32)
    noise = np.asarray(jitter(images, noise=0.2)) - images
    deviation = noise.std((1, 2, 3))
    assert deviation.min() < 0.02 and 0.18 < deviation.max() < 0.22
    normal = noise / deviation[:, None, None, None]
    assert abs(normal.mean()) < 0.01 and abs((np.abs(normal) < 1).mean() - 0.6827) < 0.01


def test_gaussian_blur():
    images, deviations = images_of(7, 4, 24, 31, 2), np.array([0.0, 0.4, 1.0, 2.5], np.float32)
    blur = jax.jit(functools.partial(transforms.gaussian_blur, radius=12))
    for blurred, image, deviation in zip(blur(images, deviations), images, deviations, strict=True):
        expected = ndimage.gaussian_filter(
            np.float64(image), (deviation, deviation, 0), mode="nearest", radius=(12, 12, 0)
        )
        assert_allclose(blurred, expected, atol=2e-6)


def test_blur_is_drawn_for_each_image_from_none_to_its_strength():
    image = np.zeros((400, 21, 21, 1), np.float32)
    image[:, 10, 10] = 1
    blurred = np.asarray(jitter(image, blur=2.0))[..., 0]
    assert_allclose(blurred.sum((1, 2)), 1, rtol=1e-5)
    squares = (np.arange(21) - 10) ** 2
    deviations = np.sqrt((blurred.sum(2) * squares).sum(1))
    assert deviations.min() < 0.05 and 1.85 < deviations.max() < 2.0
    assert deviations.mean() == pytest.approx(1.0, abs=0.1)


def test_quarter_turns():
    images = np.tile(images_of(8, 1, 8, 8, 1), (64, 1, 1, 1))
    labels = np.tile(np.arange(64).reshape(1, 8, 8), (64, 1, 1))
    turned, turned_labels = augment(KEY, images, labels, quarter_turns=True)
    seen = set()
    for image, label in zip(np.asarray(turned), np.asarray(turned_labels), strict=True):
        (quarters,) = (k for k in range(4) if (np.rot90(labels[0], k) == label).all())
        assert_allclose(image, np.rot90(images[0], quarters), atol=1e-5)
        seen.add(quarters)
    assert seen == {0, 1, 2, 3}


def test_images_keep_their_type():
    images = images_of(9, 2, 9, 9, 1).astype(jnp.bfloat16)
    options = {"brightness": 0.1, "contrast": 0.2, "gamma": 0.3, "noise": 0.05}
    options |= {"crop": (8, 8), "rotation": 20.0}
    moved, no_labels = augment(KEY, images, **options)
    expected, _ = augment(KEY, images.astype(np.float32), **options)
    assert moved.dtype == jnp.bfloat16 and no_labels is None
    # The warp rounds once and the intensities once, not at every step.
    eps = float(jnp.finfo(jnp.bfloat16).eps)
    assert_allclose(np.asarray(moved, np.float32), expected, atol=eps)
    blurred = jax.eval_shape(
        lambda x: transforms.gaussian_blur(x, np.ones(2, np.float32), radius=2), images
    )
    assert blurred.dtype == jnp.bfloat16


@pytest.mark.parametrize("wide", [False, True])
def test_in_x64_the_same_is_drawn(wide):
    images, labels = images_of(10, 2, 9, 9, 1), np.arange(162).reshape(2, 9, 9)
    options = {"rotation": 20.0, "flip": True, "noise": 0.1, "blur": 1.0, "crop": (8, 8)}
    expected, expected_labels = augment(KEY, images, labels, **options)
    if wide:  # normal numbers of float64 are others
        images, options = images.astype(np.float64), options | {"noise": 0.0}
    with jax.enable_x64(True):
        moved, moved_labels = augment(KEY, images, labels, **options)
    assert moved.dtype == images.dtype
    assert_array_equal(moved_labels, expected_labels)
    if not wide:
        assert_allclose(moved, expected, atol=1e-5)


def test_traced_strengths_do_what_numbers_do():
    images = images_of(11, 4, 6, 6, 1)
    strengths = {"brightness": 0.2, "contrast": 0.3, "gamma": 0.4, "noise": 0.1}
    traced = jax.jit(functools.partial(transforms.augment, KEY, images))
    assert_allclose(traced(**strengths)[0], augment(KEY, images, **strengths)[0], atol=1e-6)
    assert_allclose(traced(**dict.fromkeys(strengths, 0.0))[0], images, atol=1e-6)

    # And they have gradients: by how much the brightness changes with its strength.
    def brighter(strength):
        return transforms.jitter_intensity(KEY, images, brightness=strength)

    value, change = jax.jit(lambda b: jax.jvp(brighter, (b,), (1.0,)))(0.2)
    assert_allclose(0.2 * np.asarray(change), np.asarray(value) - images, atol=1e-6)


def test_a_traced_blur_is_refused():
    with pytest.raises(ValueError, match="blur sets how many pixels are summed: a number, static"):
        jax.jit(lambda s: transforms.jitter_intensity(KEY, IMAGES, blur=s))(1.0)


def test_a_mistake_is_blamed_on_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"augment\(\) got an unexpected .* 'rotaton'"):
        transforms.augment(KEY, np.ones((1, 4, 4, 1), np.float32), rotaton=3.0)
    image = np.ones((4, 4, 1), np.float32)  # without its batch axis
    for call in (
        lambda: transforms.augment(KEY, image),
        lambda: transforms.jitter_intensity(KEY, image, noise=0.1),
        lambda: transforms.warp(image, np.eye(3)[None]),
    ):
        with pytest.raises(ValueError, match=r"images are \(b, h, w, c\), not \(4, 4, 1\)"):
            call()
    with pytest.raises(ValueError, match=r"scale is \(low, high\) with 0 < low <= high, not 1.1"):
        transforms.sample_view(KEY, 2, scale=1.1)
