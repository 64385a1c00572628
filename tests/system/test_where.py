"""Where a run is wrong, of maps made by hand."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from benchmarks.where import dice, measures, part_of


def test_parts_of_the_slices_that_show_something():
    label = np.zeros((14, 4, 4), int)
    label[2:12, 1, 1] = 2  # ten slices
    expected = [-1, -1, 0, 0, *[1] * 6, 2, 2, -1, -1]
    assert_array_equal(part_of(label), expected)
    assert_array_equal(part_of(np.zeros((3, 4, 4), int)), [-1] * 3)
    assert_array_equal(part_of(label[2:4]), [1, 1])
    for n in (4, 6, 7, 9):  # upside down it is the same
        found = part_of(np.ones((n, 4, 4), int))
        assert_array_equal(found, 2 - found[::-1])


def test_measures():
    truth = np.zeros((3, 4, 4), int)
    truth[:, 1:3, 1:3] = np.array([[1, 1], [2, 2]])
    found = truth.copy()
    found[0, 1, 1] = 2  # in the low slice one pixel of the four
    sure = np.where(found == truth, 0.9, 0.6)
    probs = np.where(np.eye(3, dtype=bool)[found], sure[..., None], (1 - sure[..., None]) / 2)
    again, inside = probs.copy(), np.ones(truth.shape, bool)
    again[1, 1, 1] = [1, 0, 0]
    again[2] = np.eye(3)[0]  # but no pixel of that slice stayed inside
    inside[2] = False
    values = measures(probs, again, inside, truth, np.array([0, 1, 2]), ["none", "a", "b"])
    assert values["a"] == pytest.approx(2 * 5 / 11) and values["b"] == pytest.approx(2 * 6 / 13)
    assert values["low slices"] == pytest.approx((2 / 3 + 4 / 5) / 2)
    assert values["middle slices"] == values["high slices"] == 1
    assert values["annotation"] == pytest.approx(11 / 12)
    assert values["itself under T"] == pytest.approx(7 / 8)
    assert values["confidence"] == pytest.approx((11 * 0.9 + 0.6) / 12)
    assert values["calibration error"] == pytest.approx((11 * 0.1 + 0.6) / 12)


def test_a_class_that_is_nowhere_is_0():
    assert dice(np.zeros(3), np.zeros(3), [1]) == 0
