"""Each change of intensity by its formula, and its draws."""

import functools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy import ndimage

from mijax import transforms

KEY = jax.random.key(0)
INTENSITIES = ("brightness", "contrast", "gamma", "noise", "blur")

# Compiled once a shape: op by op, the tests would take several times as long.
jitter = jax.jit(functools.partial(transforms.jitter_intensity, KEY), static_argnames=INTENSITIES)


def images_of(seed, *shape):
    return np.random.default_rng(seed).uniform(0.05, 0.95, size=shape).astype(np.float32)


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
    mean = IMAGES.mean((1, 2), keepdims=True)  # of each channel
    changed = np.asarray(jitter(IMAGES, contrast=0.4))
    assert_allclose(changed.mean((1, 2), keepdims=True), mean, atol=1e-5)
    far = np.abs(IMAGES - mean) > 0.02
    factor = np.where(far, changed - mean, 1) / np.where(far, IMAGES - mean, 1)
    factor = np.where(
        far, factor, np.nanmedian(np.where(far, factor, np.nan), (1, 2, 3), keepdims=True)
    )
    fills(np.log(one_number_an_image(factor)), -0.4, 0.4)


def test_gamma_is_the_exponent():
    low, high = (f(IMAGES, (1, 2), keepdims=True) for f in (np.min, np.max))  # of each channel

    def stretched(images):  # off the ends, where every exponent gives the same
        return np.clip((images - low) / (high - low), 0.05, 0.95)

    changed = np.asarray(jitter(IMAGES, gamma=0.5))
    assert_allclose(changed.min((1, 2), keepdims=True), low, atol=1e-6)
    assert_allclose(changed.max((1, 2), keepdims=True), high, atol=1e-6)
    middle = (stretched(IMAGES) > 0.2) & (stretched(IMAGES) < 0.8)
    ratio = np.log(stretched(changed)) / np.log(stretched(IMAGES))
    exponent = np.nanmedian(np.where(middle, ratio, np.nan), (1, 2, 3), keepdims=True)
    assert_allclose(np.where(middle, ratio, exponent), exponent * np.ones_like(ratio), rtol=0.2)
    fills(np.log(exponent.ravel()), -0.5, 0.5)


def test_a_channel_is_changed_as_if_it_were_alone():
    images = IMAGES * np.float32([1.0, 0.1])
    strengths = {"brightness": 0.1, "contrast": 0.4, "gamma": 0.5, "blur": 1.0}
    both = jitter(images, **strengths)
    for channel in (0, 1):
        alone = jitter(images[..., [channel]], **strengths)
        assert_allclose(both[..., [channel]], alone, atol=1e-6)


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


@pytest.mark.parametrize(("size", "radius"), [((24, 31), 12), ((5, 9, 8), 7)], ids=["2", "3"])
def test_gaussian_blur(size, radius):
    images, deviations = images_of(7, 4, *size, 2), np.array([0.0, 0.4, 1.0, 2.5], np.float32)
    blur = jax.jit(functools.partial(transforms.gaussian_blur, radius=radius))
    for blurred, image, deviation in zip(blur(images, deviations), images, deviations, strict=True):
        axes = tuple(range(len(size)))
        expected = ndimage.gaussian_filter(
            np.float64(image), deviation, mode="nearest", radius=radius, axes=axes
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


def test_intensities_of_a_volume_are_those_of_its_voxels_wherever_they_lie():
    volumes = images_of(12, 3, 4, 5, 6, 2)
    strengths = {"brightness": 0.3, "contrast": 0.4, "gamma": 0.5, "noise": 0.2}
    flat = np.asarray(jitter(volumes.reshape(3, 20, 6, 2), **strengths))
    assert_allclose(jitter(volumes, **strengths), flat.reshape(volumes.shape), atol=1e-5)


def test_a_traced_blur_is_refused():
    with pytest.raises(ValueError, match="blur sets how many pixels are summed: a number, static"):
        jax.jit(lambda s: transforms.jitter_intensity(KEY, IMAGES, blur=s))(1.0)
