"""What holds of views and of augmentation, whatever is drawn and whatever the images are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mijax import transforms

COUNT, SIZE = 2, (14, 17)
VIEWS = {
    "flips": {"flip": 0.5},
    "all": {
        "rotation": 180.0,
        "shear": 20.0,
        "scale": (0.7, 1.4),
        "flip": 0.5,
        "translation": 0.2,
        "shape": SIZE,
    },
}
MOVES = {"rotation": 180.0, "shear": 20.0, "scale": (0.5, 2.0), "flip": 0.5}
STRENGTHS = {"brightness": 0.3, "contrast": 0.4, "gamma": 0.5, "noise": 0.2}
STATIC = ("crop", "rotation", "shear", "scale", "flip", *STRENGTHS)

# Compiled once a shape: op by op, the tests would take several times as long.
augment = jax.jit(transforms.augment, static_argnames=STATIC)

seeds = st.integers(0, 2**31 - 1)
kinds = st.sampled_from(["normal", "constant", "zero", "large", "scores"])


def images_of(seed, kind):
    rng = np.random.default_rng(seed)
    images, level = rng.uniform(size=(COUNT, *SIZE, 3)), rng.uniform()
    return {
        "normal": images,
        "constant": 0 * images + level,
        "zero": 0 * images,
        "large": 1e6 * images,
        "scores": 4000 * images - 1000,
    }[kind].astype(np.float32)


def labels_of(seed):
    return np.random.default_rng(seed).choice([1, 3, 200], size=(COUNT, *SIZE)).astype(np.uint8)


def flips_of(x):
    """The two axes of each image flipped in all four ways."""
    return [x, x[:, ::-1], x[:, :, ::-1], x[:, ::-1, ::-1]]


# Views ---------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def there_and_back(name, key, images):
    """Images and their mask after T, and after T and T⁻¹."""
    view = transforms.sample_view(key, COUNT, **VIEWS[name])
    there = view.apply(images)
    return there, view.inside(SIZE), view.restore(there), view.mask(SIZE)


@pytest.mark.parametrize("name", VIEWS)
@given(seeds)
def test_what_is_straight_comes_back_where_the_mask_says(name, seed):
    # Bilinear resampling of a plane is exact; its third channel has the weight of the frame.
    slopes = np.random.default_rng(seed).uniform(-1, 1, size=(COUNT, 3, 2))
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in SIZE), indexing="ij")
    planes = np.einsum("bic,ihw->bhwc", slopes, np.stack([0 * y + 1, y, x]))
    images = np.concatenate([planes, np.ones((COUNT, *SIZE, 1))], -1).astype(np.float32)
    there, inside, back, mask = (
        np.asarray(out) for out in there_and_back(name, jax.random.key(seed), images)
    )
    for maps, valid in ((there, inside), (back, mask)):
        assert valid.shape == maps.shape[:3] and np.isin(valid, [0, 1]).all()
        assert_array_equal(valid, maps[..., 2] > 1 - 1e-3)
    assert mask[:, 7, 8].all() and (mask.all() or name != "flips")
    assert_allclose(back[mask > 0], images[mask > 0], atol=3e-3)


@pytest.mark.parametrize("name", VIEWS)
@given(seeds, st.sampled_from([1.0, 0.01]))
def test_probabilities_stay_those_of_pixels_inside(name, seed, concentration):
    # Of 0.01 they are about one-hot.
    probs = np.random.default_rng(seed).dirichlet([concentration] * 3, size=(COUNT, *SIZE))
    probs = probs.astype(np.float32)
    there, inside, back, mask = there_and_back(name, jax.random.key(seed), probs)
    for maps, valid in ((there, inside), (back, mask)):
        total = np.asarray(maps).sum(-1)
        assert maps.min() >= 0 and total.max() <= 1 + 1e-5
        assert_allclose(total[valid > 0], 1, atol=2e-3)


@given(seeds, kinds)
def test_flips_are_undone_exactly(seed, kind):
    images = images_of(seed, kind)
    there, _, back, _ = there_and_back("flips", jax.random.key(seed), images)
    assert_array_equal(back, images)
    assert all(any((there[n] == x[n]).all() for x in flips_of(images)) for n in range(COUNT))


# Augmentation --------------------------------------------------------------------------


@given(seeds, kinds)
def test_without_strengths_nothing_changes(seed, kind):
    images, labels = images_of(seed, kind), labels_of(seed)
    same, same_labels = augment(jax.random.key(seed), images, labels)
    assert_array_equal(same, images)
    assert_array_equal(same_labels, labels)


@given(seeds, kinds)
def test_labels_are_flipped_with_their_image(seed, kind):
    images, labels = images_of(seed, kind), labels_of(seed)
    flipped, flipped_labels = augment(jax.random.key(seed), images, labels, flip=0.5)
    ways = list(zip(flips_of(images), flips_of(labels), strict=True))
    assert all(
        any((flipped[n] == x[n]).all() and (flipped_labels[n] == y[n]).all() for x, y in ways)
        for n in range(COUNT)
    )


@given(seeds, kinds)
def test_augmented_images_have_their_shape_and_no_values_but_those_of_the_image(seed, kind):
    key, images, labels = jax.random.key(seed), images_of(seed, kind), labels_of(seed)
    moved, moved_labels = augment(key, images, labels, crop=(20, 6), **MOVES)
    assert moved.shape == (COUNT, 20, 6, 3) and moved.dtype == jnp.float32
    assert moved_labels.shape == (COUNT, 20, 6) and moved_labels.dtype == labels.dtype
    for n in range(COUNT):
        low, high = min(images[n].min(), 0), max(images[n].max(), 0)  # 0 is what is outside
        slack = 1e-5 * (high - low)
        assert low - slack <= moved[n].min() and moved[n].max() <= high + slack
        assert set(np.unique(moved_labels[n])) <= {0, *np.unique(labels[n])}
    # What is done to the intensities does not reach the labels.
    noisy, same_labels = augment(key, images, labels, crop=(20, 6), **MOVES, noise=0.2)
    assert (noisy != moved).any() or kind == "large"
    assert_array_equal(same_labels, moved_labels)


# Intensity -----------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnums=0)
def jitter(name, key, images):
    """Images of another intensity, and the gradient of a weighted sum of them."""
    strength = {name: STRENGTHS[name]}
    changed, pull = jax.vjp(lambda x: transforms.jitter_intensity(key, x, **strength), images)
    return changed, pull(jnp.cos(jnp.arange(images.size)).reshape(images.shape))[0]


@pytest.mark.parametrize("name", STRENGTHS)
@given(seeds, kinds)
def test_images_stay_finite_and_know_nothing_of_each_other(name, seed, kind):
    key, images = jax.random.key(seed), images_of(seed, kind)
    changed, gradient = jitter(name, key, images)
    assert changed.shape == images.shape and changed.dtype == jnp.float32
    assert np.isfinite(changed).all() and np.isfinite(gradient).all()
    images[1] = np.nan
    for ours, expected in zip(jitter(name, key, images), (changed, gradient), strict=True):
        assert_array_equal(ours[0], expected[0])


@given(seeds, kinds)
def test_each_change_keeps_what_it_leaves_alone(seed, kind):
    key, images = jax.random.key(seed), images_of(seed, kind)
    axes, close = (1, 2, 3), {"rtol": 1e-5, "atol": 1e-5 * max(1, np.abs(images).max())}
    brighter, contrasted, bent, noisy = (jitter(name, key, images)[0] for name in STRENGTHS)
    change = np.asarray(brighter - images)
    assert_allclose(change, np.broadcast_to(change[:, :1, :1, :1], change.shape), **close)
    assert np.abs(change).max() <= STRENGTHS["brightness"] + close["atol"]
    assert_allclose(contrasted.mean(axes), images.mean(axes), **close)
    for extreme in (np.min, np.max):  # the range of gamma
        assert_allclose(extreme(bent, axes), extreme(images, axes), **close)
    assert np.abs(noisy - images).max() <= 6 * STRENGTHS["noise"] + close["atol"]
    if kind in ("constant", "zero"):
        assert_allclose([contrasted, bent], [images] * 2, rtol=1e-5)
