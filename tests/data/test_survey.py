"""What a folder looks like, and what is proposed for it."""

import nibabel as nib
import numpy as np
import pytest

from mijax.data import UNLABELLED, Volume, to_slices
from mijax.data.survey import (
    grids,
    look,
    propose_slices,
    propose_window,
    slice_flags,
)
from mijax.data.volume import Geometry
from mijax.errors import UserError


def geometry(shape, spacing=(1, 1, 1)):
    return Geometry(shape, 1, np.diag([*spacing, 1.0]))


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


@pytest.mark.parametrize(
    ("grid", "plane", "size", "spacing"),
    [
        ([((31, 58, 24), (1, 1, 1)), ((43, 40, 46), (1, 1, 1))], "axial", (48, 64), None),
        ([((31, 58, 24), (1, 1, 1)), ((43, 40, 46), (1, 1, 1))], "coronal", (48, 48), None),
        ([((64, 80, 9), (1, 1.05, 7))], "axial", (64, 80), None),  # a tenth is nothing
        ([((64, 9, 80), (1, 7, 1))], "coronal", (64, 80), None),
        ([((64, 80, 9), (1, 2, 7))], "axial", (48, 112), 1.5),  # 64/1.5, 160/1.5
        ([((100, 100, 9), (0.5, 0.5, 7)), ((100, 100, 9), (1, 1, 7))], "axial", (144, 144), 0.75),
        ([((1024, 512, 9), (0.4, 0.4, 7))], "axial", (512, 256), 0.8),
        ([((1, 1, 9), (1, 1, 7))], "axial", (16, 16), None),
    ],
)
def test_proposed_size_and_spacing(grid, plane, size, spacing):
    geometries = {str(i): geometry(*one) for i, one in enumerate(grid)}
    assert propose_slices(geometries, plane=plane) == (size, spacing)
    for shape, mm in grid:  # it holds every slice: nothing is refused or cut
        volume = Volume("v", np.zeros((*shape, 1), np.float32), None, np.diag([*mm, 1.0]))
        options = {"size": size, "spacing": spacing, "plane": plane, "intensity": "minmax"}
        assert to_slices(volume, fit="pad", **options).image.shape[1:3] == size


def test_a_size_is_a_multiple_of_the_stride_of_a_network():
    geometries = {"a": geometry((490, 470, 90), (0.8, 0.8, 1.6))}
    size, _ = propose_slices(geometries, plane="axial", dims=3, stride=(16, 32, 12))
    assert size == (96, 512, 480)


def test_a_spacing_that_is_given_is_kept():
    geometries = {"a": geometry((30, 60, 9))}
    assert slice_flags(geometries, plane="axial", spacing=2.0) == (
        "--config.data.patches.size='(16,32)' --config.data.patches.fit=pad "
        "--config.data.patches.spacing=2.0"
    )
    assert "spacing" not in slice_flags(geometries, plane="axial")
    with pytest.raises(UserError, match="data.patches.plane='oblique'"):
        slice_flags(geometries, plane="oblique")


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
