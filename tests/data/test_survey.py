"""What a folder looks like, and what is proposed for it."""

import nibabel as nib
import numpy as np
import pytest

from mijax.data import UNLABELLED, Volume
from mijax.data.survey import (
    grids,
    look,
    propose_window,
)
from mijax.data.volume import Geometry


def turned(shape, spacing, axcodes):
    """The grid of RAS+ axes as a file with others has it."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(axcodes), nib.orientations.axcodes2ornt("RAS")
    )
    order = turn[:, 0].astype(int)
    straight = np.diag([*spacing, 1.0])
    affine = straight @ np.linalg.inv(nib.orientations.inv_ornt_aff(turn, np.take(shape, order)))
    return Geometry(tuple(int(n) for n in np.take(shape, order)), 1, affine)


def test_grids_are_in_the_order_of_the_body():
    found = grids([turned((3, 4, 5), (1.0, 2.0, 3.0), codes) for codes in ("RAS", "LIP", "SPL")])
    np.testing.assert_array_equal(found.shape, [[3, 4, 5]] * 3)
    np.testing.assert_allclose(found.spacing, [[1, 2, 3]] * 3)
    assert found.axcodes == ("RAS", "LIP", "SPL")


def ct(*, low=-1000, labelled=True, high=100):
    """Air around an organ of 0 to 100 units, and as much of them as makes 10 at either end."""
    image = np.full((4, 4, 101, 1), low, np.float32)
    image[0, 0, :, 0] = np.linspace(0, high, 101)
    label = np.zeros((4, 4, 101), np.uint8)
    label[0, 0] = labelled
    return look(Volume("a", image, label, np.eye(4)), 2)


def test_a_look():
    found = ct()
    np.testing.assert_array_equal(found.counts, [15 * 101, 101, 0])
    np.testing.assert_array_equal(found.levels[0, [0, -1]], [-1000, 100])
    np.testing.assert_allclose(found.edges, [[0.5, 99.5]])
    assert ct(labelled=False).edges is None
    partly = np.array([0, 1, UNLABELLED], np.uint8).reshape(1, 1, 3)
    partly = look(Volume("a", np.arange(3.0).reshape(1, 1, 3, 1), partly, np.eye(4)), 2)
    np.testing.assert_array_equal(partly.counts, [1, 1, 1])
    np.testing.assert_array_equal(partly.edges, [[1, 1]])
    unlabelled = look(Volume("a", np.zeros((2, 2, 2, 3), np.float32), None, np.eye(4)), 2)
    assert unlabelled.levels.shape == (3, 5) and unlabelled.counts is None


@pytest.mark.parametrize(
    ("looks", "channels", "window"),
    [
        ([ct()], ["CT"], (-50, 150)),  # 0.5 − 49.5 and 99.5 + 49.5, outward to tens
        ([ct(), ct()], ["whatever"], (-50, 150)),  # as the air shows
        ([ct(low=0)], ["ct"], (-50, 150)),
        ([ct(low=0)], ["MRI"], None),
        ([ct(labelled=False)], ["CT"], None),
        ([ct(low=0, high=1)], ["CT"], None),  # scaled to 1, or by a standard deviation
        ([ct(low=-3, high=12)], ["CT"], None),
        ([ct(high=0)], ["CT"], None),  # all that is labelled has one value
        ([ct(), ct(labelled=False)], ["CT"], (-50, 150)),
    ],
)
def test_a_window_for_ct_alone(looks, channels, window):
    assert propose_window(looks, channels) == window
