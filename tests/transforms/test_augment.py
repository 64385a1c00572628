"""Augmentation: images and labels move as one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mijax import transforms

KEY = jax.random.key(0)
INTENSITIES = ("brightness", "contrast", "gamma", "noise", "blur")
MOVES = ("crop", "rotation", "shear", "scale", "flip", "quarter_turns")

# Compiled once a shape: op by op, the tests would take several times as long.
augment = jax.jit(transforms.augment, static_argnames=(*MOVES, *INTENSITIES))


def images_of(seed, *shape):
    return np.random.default_rng(seed).uniform(0.05, 0.95, size=shape).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "crop"), [((7, 8), (4, 3)), ((7, 8), (7, 5)), ((4, 5, 6), (3, 4, 3))]
)
def test_a_crop_copies_the_image_at_a_random_place(size, crop):
    count = 256
    images = np.repeat(images_of(1, 1, *size, 2), count, 0)
    labels = np.repeat(np.arange(np.prod(size)).reshape(1, *size), count, 0)
    cut, cut_labels = (np.asarray(x) for x in augment(KEY, images, labels, crop=crop))
    places = [np.unravel_index(x.flat[0], size) for x in cut_labels]
    for n, place in enumerate(places):
        window = (n, *(slice(i, i + length) for i, length in zip(place, crop, strict=True)))
        assert_array_equal(cut[n], images[window])
        assert_array_equal(cut_labels[n], labels[window])
    # Every place is reached.
    assert len(set(places)) == np.prod(np.subtract(size, crop) + 1)


def test_a_crop_larger_than_the_image_pads_with_background():
    images, labels = images_of(2, 3, 4, 4, 1), np.ones((3, 4, 4), int)
    padded, padded_labels = augment(KEY, images, labels, crop=(7, 6))
    assert_array_equal(np.sum(padded_labels, (1, 2)), [16] * 3)
    assert_array_equal(np.asarray(padded)[..., 0] > 0, np.asarray(padded_labels) == 1)
    assert_allclose(np.sum(padded, (1, 2)), images.sum((1, 2)), rtol=1e-6)
    centred, _ = augment(KEY, images, crop=(7, 6), centres=np.full((3, 2), 2, np.float32))
    assert_array_equal(centred, padded)


@pytest.mark.parametrize(
    ("size", "crop", "rotation"),
    [
        ((12, 12), (8, 8), 180.0),
        ((6, 9, 9), (4, 7, 7), (180.0, 180.0, 180.0)),
        ((6, 9, 9), (5, 7, 7), 180.0),
    ],
    ids=["plane", "space", "in-plane"],
)
def test_labels_go_where_the_images_go(size, crop, rotation):
    labels = np.random.default_rng(3).integers(2, size=(8, *size))
    moved, moved_labels = augment(
        KEY,
        labels[..., None].astype(np.float32),
        labels,
        crop=crop,
        rotation=rotation,
        shear=10.0,
        scale=(0.8, 1.25),
        flip=0.5,
    )
    # The nearest of the four pixels weighs at least a quarter; of eight, an eighth.
    least = 1 / 8 - 0.01 if rotation == (180.0, 180.0, 180.0) else 1 / 4 - 0.01
    share, moved_labels = np.asarray(moved)[..., 0], np.asarray(moved_labels)
    assert (share > 1 - least).any() and (share < least).any()
    assert_array_equal(moved_labels[share > 1 - least], 1)
    assert_array_equal(moved_labels[share < least], 0)


BATCH = images_of(4, 4, 9, 9, 1), np.random.default_rng(4).integers(3, size=(4, 9, 9))
GEOMETRY = {"rotation": 90.0, "flip": 0.5, "crop": (8, 8)}


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


def test_volumes_turn_in_plane_and_are_flipped_in_depth():
    volume, labels = images_of(8, 1, 3, 6, 6, 1), np.arange(108).reshape(1, 3, 6, 6)
    turned, turned_labels = augment(
        KEY, np.repeat(volume, 64, 0), np.repeat(labels, 64, 0), quarter_turns=True, flip=0.5
    )
    seen = set()
    ways = [(d, k, f) for d in (1, -1) for k in range(4) for f in (1, -1)]
    for image, label in zip(np.asarray(turned), np.asarray(turned_labels), strict=True):

        def moved(x, way):
            depth, quarters, columns = way
            return np.rot90(x[::depth, :, ::columns], quarters, axes=(1, 2))

        (way,) = (w for w in ways if (moved(labels[0], w) == label).all())
        assert_allclose(image, moved(volume[0], way), atol=1e-5)
        seen.add(way)
    assert len(seen) == 16


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
    options = {"rotation": 20.0, "flip": 0.5, "noise": 0.1, "blur": 1.0, "crop": (8, 8)}
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


def test_a_mistake_is_blamed_on_the_function_that_was_called():
    with pytest.raises(TypeError, match=r"augment\(\) got an unexpected .* 'rotaton'"):
        transforms.augment(KEY, np.ones((1, 4, 4, 1), np.float32), rotaton=3.0)
    image = np.ones((4, 4, 1), np.float32)  # without its batch axis
    for call in (
        lambda: transforms.augment(KEY, image),
        lambda: transforms.jitter_intensity(KEY, image, noise=0.1),
        lambda: transforms.warp(image, np.eye(3)[None]),
    ):
        with pytest.raises(ValueError, match=r"images are \(b, h, w, c\) or .*, not \(4, 4, 1\)"):
            call()
    with pytest.raises(ValueError, match=r"scale is \(low, high\) with 0 < low <= high, not 1.1"):
        transforms.sample_view(KEY, 2, scale=1.1)


@pytest.mark.parametrize("dims", [2, 3])
def test_crops_are_centred_where_they_are_asked_for(dims):
    size, crop = (12, 10, 9)[-dims:], (4, 4, 3)[-dims:]
    place = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), -1).astype(np.float32)
    images = np.stack([place] * 3)  # each pixel says where it is
    middle, corner = [n // 2 for n in size], [0] * dims
    centres = np.float32([middle, corner, [np.nan] * dims])
    found, _ = jax.jit(lambda k, x, c: augment(k, x, crop=crop, centres=c))(KEY, images, centres)
    half = [n // 2 for n in crop]
    np.testing.assert_array_equal(found[0][tuple(half)], middle)
    np.testing.assert_array_equal(found[1][(0,) * dims], corner)  # as far as the frame allows
    plain, _ = jax.jit(lambda k, x: augment(k, x, crop=crop))(KEY, images)
    np.testing.assert_array_equal(found[2], plain[2])
    with pytest.raises(ValueError, match="centres are"):
        augment(KEY, images, crop=crop, centres=centres[:2])
