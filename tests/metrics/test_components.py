"""The largest component of each class, by shapes made by hand."""

import numpy as np
import pytest

from mijax.metrics import largest_components


def test_the_largest_of_each_class_stays():
    labels = np.zeros((12, 9, 7), np.uint8)
    expected = np.zeros_like(labels)
    expected[1:5, 1:5, 1:5] = 1
    expected[2, 2, 2] = 3  # within another class
    expected[7:9, 2:4, 3] = 2
    labels[:] = expected
    labels[8:11, 7, 1:3] = 1
    labels[0, 8, 6] = 2
    labels[11, 0, 0] = 2
    labels[2, 2, 5] = 3  # a voxel apart, and behind the other: of equals the first
    labels[2, 2, 4] = 1
    before = labels.copy()
    found = largest_components(labels)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(largest_components(found), found)


def test_a_shared_corner_holds_together_and_a_slice_between_does_not():
    labels = np.zeros((5, 5, 5), np.uint8)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[2, 2, 2] = 7
    np.testing.assert_array_equal(largest_components(labels), labels)
    labels[2, 2, 4] = 7
    assert largest_components(labels).sum() == 3 * 7


@pytest.mark.parametrize("value", [0, 255])
def test_one_value_everywhere(value):
    labels = np.full((3, 2, 4), value, np.uint8)
    np.testing.assert_array_equal(largest_components(labels), labels)
