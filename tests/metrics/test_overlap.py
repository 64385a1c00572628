"""3D DSC: closed forms and the rule for empty masks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mijax.metrics import dice


def test_closed_forms():
    label = np.zeros((4, 4, 2), int)
    label[:2], label[2:3] = 1, 2  # 16 and 8 voxels
    prediction = np.zeros_like(label)
    prediction[1:3], prediction[3:] = 1, 2  # 16 and 8
    np.testing.assert_allclose(dice(prediction, label, classes=3), [2 * 8 / 32, 0])
    np.testing.assert_array_equal(dice(label, label, classes=3), [1, 1])


def test_slices_are_pooled_not_averaged():
    # 1 of 1 voxel in one slice, 1 of 3 in the other: 2·2 / (4 + 2), not the mean of 1 and ½.
    label, prediction = np.zeros((2, 2, 2), int), np.zeros((2, 2, 2), int)
    label[0, 0, 0], prediction[0, 0, 0] = 1, 1
    label.reshape(2, 4)[1, :3], prediction[1, 0, 0] = 1, 1
    np.testing.assert_allclose(dice(prediction, label, classes=2), [2 / 3])


def test_empty_masks():
    empty, full = np.zeros((3, 3), np.uint8), np.ones((3, 3), np.uint8)
    np.testing.assert_array_equal(dice(empty, empty, classes=3), [1, 1])
    np.testing.assert_array_equal(dice(full, empty, classes=3), [0, 1])
    np.testing.assert_array_equal(dice(empty, full, classes=3), [0, 1])


@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_equals_the_definition_and_is_symmetric(seed, classes):
    a, b = np.random.default_rng(seed).integers(classes, size=(2, 3, 4, 2))
    expected = []
    for k in range(1, classes):
        s, g = set(np.flatnonzero(a == k)), set(np.flatnonzero(b == k))
        expected.append(2 * len(s & g) / (len(s) + len(g)) if s or g else 1)
    np.testing.assert_allclose(dice(a, b, classes=classes), expected)
    np.testing.assert_array_equal(dice(a, b, classes=classes), dice(b, a, classes=classes))


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(2, 2\).*\(4,\)"):
        dice(np.zeros((2, 2), int), np.zeros(4, int), classes=2)
