"""The largest region of each class on the device, against SciPy's labelling."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import ndimage

from mijax.transforms import largest_components

keep = jax.jit(largest_components, static_argnums=1)


def by_scipy(labels, num_classes):
    kept = np.zeros_like(labels)
    for n, k in np.ndindex(len(labels), num_classes - 1):
        numbers, count = ndimage.label(labels[n] == k + 1, np.ones((3,) * (labels.ndim - 1)))
        if count:
            sizes = np.bincount(numbers.ravel())[1:]
            kept[n][numbers == sizes.argmax() + 1] = k + 1
    return kept


@pytest.mark.parametrize(
    ("shape", "share"),
    [
        ((6, 20, 17), 0.3),
        ((6, 20, 17), 0.5),
        ((6, 20, 17), 0.9),
        ((3, 6, 10, 9), 0.1),
        ((3, 6, 10, 9), 0.4),
    ],
)
def test_random_maps(shape, share):
    rng = np.random.default_rng(0)
    labels = rng.integers(1, 4, size=shape) * (rng.uniform(size=shape) < share)
    smooth = ndimage.median_filter(labels, (1, *[3] * (len(shape) - 1)))
    for maps in (labels, smooth):
        assert_array_equal(keep(maps, 4), by_scipy(maps, 4))


def test_a_spiral_is_one_region():
    spiral = np.zeros((1, 21, 21), np.uint8)
    i = j = 0
    step = (0, 1)
    spiral[0, 0, 0] = 1
    for length in [20, 20, *np.repeat(np.arange(18, 0, -2), 2).tolist()]:
        for _ in range(length):
            i, j = i + step[0], j + step[1]
            spiral[0, i, j] = 1
        step = (step[1], -step[0])
    assert ndimage.label(spiral[0], np.ones((3, 3)))[1] == 1
    assert_array_equal(keep(spiral, 2), spiral)
    assert keep(spiral, 2).dtype == np.uint8


def test_nothing_stays_nothing_and_a_full_frame_stays_full():
    for value in (0, 1):
        labels = np.full((2, 5, 4), value)
        assert_array_equal(keep(labels, 3), labels)


def test_labels_may_be_too_short_for_the_number_of_classes():
    labels = np.array([[[3, 0, 3, 3, 44]]], np.uint8)
    assert_array_equal(keep(labels, 300), [[[0, 0, 3, 3, 44]]])


def test_of_equal_regions_the_upper_one_is_kept():
    labels = np.zeros((1, 5, 5), int)
    labels[0, [0, 4], [4, 0]] = 1
    assert_array_equal(np.argwhere(keep(labels, 2)), [[0, 0, 4]])
    volume = np.zeros((1, 3, 5, 5), int)
    volume[0, [0, 2], [4, 0], [4, 0]] = 1
    assert_array_equal(np.argwhere(keep(volume, 2)), [[0, 0, 4, 4]])


def test_voxels_that_share_a_corner_are_of_one_region_and_slices_are_not_apart():
    labels = np.zeros((1, 4, 4, 4), int)
    labels[0, range(3), range(3), range(3)] = 1
    labels[0, 3, 0, :2] = 1
    assert_array_equal(np.argwhere(keep(labels, 2))[:, 1], range(3))
