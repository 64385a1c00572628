"""Patches of volumes of unequal sizes: the voxels, and the augmentation, of the whole volume."""

import jax
import numpy as np
import pytest

from mijax.training.batches import Cropping, PerRole, TrainingSet, pick, step_keys, take
from mijax.training.ragged import arrays_of, packed, patches
from mijax.training.step import augmented
from mijax.transforms import augment, reach

SIZES = [(5, 9, 7), (3, 12, 10), (6, 8, 11)]
RANGES = {"rotation": (30.0, 20.0, 10.0), "shear": 8.0, "scale": (0.8, 1.25)}


@pytest.fixture(scope="module")
def volumes():
    draw = np.random.default_rng(0)
    images = [draw.random((*size, 2), np.float32) for size in SIZES]
    return images, [draw.integers(1, 4, size).astype(np.uint8) for size in SIZES]


def test_what_is_packed_comes_back(volumes):
    for arrays in volumes:
        ragged = packed(arrays, box=(9, 9, 9))
        assert len(ragged) == 3
        for found, wanted in zip(arrays_of(ragged), arrays, strict=True):
            np.testing.assert_array_equal(found, wanted)
            assert np.shares_memory(found, ragged.values)
        assert arrays_of(arrays[0])[0] is arrays[0]


@pytest.mark.parametrize("size", [(3, 4, 5), (4, 6, 8), (1, 1, 1), (9, 3, 8)])
def test_patches_are_those_of_the_padded_volume(volumes, size):
    """At every place, so that all of it, and what is outside, is seen."""
    for arrays in volumes:
        ragged = packed(arrays, box=(9, 9, 9))
        for i, array in enumerate(arrays):
            centres = np.stack(np.unravel_index(np.arange(0, np.prod(SIZES[i]), 3), SIZES[i]), -1)
            index = np.full(len(centres), i)
            padded = np.pad(array, [(9, 9)] * 3 + [(0, 0)] * (array.ndim - 3))
            corners = centres + 9 - np.array(size) // 2
            wanted = [
                padded[*(slice(a, a + n) for a, n in zip(c, size, strict=True))] for c in corners
            ]
            found = patches(ragged, index, centres, size)
            np.testing.assert_array_equal(found, wanted)
            by_device = jax.jit(lambda r, i, c: patches(r, i, c, size))
            found = by_device(jax.device_put(ragged), np.int32(index), np.int32(centres))
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == array.dtype


def test_bytes_are_wider_on_a_tpu(volumes, monkeypatch):
    """There are other programs then; the labels of a step are the same."""
    images, labels = volumes
    box, key = (3, 6, 5), jax.random.key(0)
    narrow = packed(labels, box=box)
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    wide = packed(labels, box=box)
    assert (narrow.values.dtype, wide.values.dtype) == (np.uint8, np.int32)
    assert packed(images, box=box).values.dtype == np.float32
    index, centres = np.array([0, 2]), np.array([[2, 4, 3], [1, 0, 9]])
    image, *found = (
        patches(r, index, centres, box) for r in (packed(images, box=box), narrow, wide)
    )
    one, other = (augment(key, image, label, **RANGES)[1] for label in found)
    np.testing.assert_array_equal(one, other)


def test_a_patch_is_augmented_as_in_the_whole_volume(volumes):
    """Under the same key, the same voxels as a crop of the whole, to rounding; the same labels."""
    images, labels = volumes
    patch = (3, 6, 5)
    cropping = Cropping(patch, reach(patch, **RANGES), foreground=0.5)
    options = {"crop": patch, "flip": 0.5, **RANGES}
    places = np.array([[[2, 4, 3]], [[0, 0, 0]], [[5, 7, 10]]], np.int32)
    training_set = TrainingSet(
        packed(images, box=cropping.box), packed(labels, box=cropping.box), None, None, places
    )
    key, batches = np.array([0, 3], np.uint32), PerRole(12, None, None)

    @jax.jit
    def step(training_set):
        picks = pick(key, 5, training_set, batches, cropping)
        rows = take(training_set, picks, cropping)
        return picks, augmented(rows, picks, None, step_keys(key, 5), options, cropping)

    picks, batch = jax.device_get(step(jax.device_put(training_set)))
    on_host = take(training_set, picks, cropping)
    assert on_host.image.shape == (12, *cropping.box, 2)
    index, centre = picks.labelled
    assert set(index) == {0, 1, 2}
    # All in one frame, each with its own centre in the middle of it: wide enough for any of them.
    wide = np.array([24, 40, 40])
    frame, maps = np.zeros((12, *wide, 2), np.float32), np.zeros((12, *wide), np.uint8)
    for n, (i, c) in enumerate(zip(index, centre, strict=True)):
        there = tuple(slice(m, m + s) for m, s in zip(wide // 2 - c, SIZES[i], strict=True))
        frame[n][there], maps[n][there] = images[i], labels[i]
    middle = np.broadcast_to(np.float32(wide // 2), (12, 3))
    key = step_keys(key, 5).augment_labelled
    wanted = jax.jit(lambda *data: augment(key, *data, centres=middle, **options))(frame, maps)
    np.testing.assert_allclose(batch.image, wanted[0], atol=2e-5)
    assert (batch.label == wanted[1]).mean() > 0.999  # a half may round otherwise


def test_where_patches_lie(volumes):
    images, labels = volumes
    patch = np.array([3, 6, 5])
    places = np.array([[[2, 4, 3]], [[0, 0, 0]], [[5, 7, 10]]], np.int32)
    ragged = packed(images, box=(3, 6, 5))
    slices = TrainingSet(ragged, packed(labels, box=(3, 6, 5)), None, (ragged, ragged), places)
    cropping = Cropping(tuple(patch), tuple(patch), foreground=0.3)
    batches = PerRole(3000, None, 3000)
    picks = jax.jit(lambda: pick(np.array([0, 3], np.uint32), 5, slices, batches, cropping))()
    for picked, part in ((picks.labelled, 0.3), (picks.held_out, 0.0)):
        index, centre = map(np.asarray, picked)
        for i, size in enumerate(SIZES):
            corner = centre[index == i] - patch // 2
            most = size - patch
            assert (corner >= 0).all() and (corner <= most).all()
            # Uniform over all places, but for those about the structure, as far as it goes.
            own = np.clip(places[i, 0] - patch // 2, 0, most)
            there = (corner == own).all(1).mean()
            anywhere = 1 / np.prod(most + 1)
            np.testing.assert_allclose(there, part + (1 - part) * anywhere, atol=0.05)
            assert len(np.unique(corner, axis=0)) == np.prod(most + 1)
