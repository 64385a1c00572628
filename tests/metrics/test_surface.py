"""HD95 and ASSD in mm: closed forms, brute force, and MedPy on the whole volume."""

import numpy as np
import pytest
from medpy.metric.binary import assd, hd95
from numpy.testing import assert_allclose, assert_array_equal

from mijax.metrics import surface_distances

SPACING = (0.5, 1.5, 4.0)


def cuboid(corner, size, shape=(14, 12, 10)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(c, c + s) for c, s in zip(corner, size, strict=True))] = True
    return mask


def surface_points(mask, spacing):
    """Voxels with one of their six neighbours outside, in mm."""
    padded = np.pad(mask, 1)
    inner = padded.copy()
    for axis in range(3):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)
    return np.argwhere(padded & ~inner) * spacing


def directed(a, b, spacing):
    a, b = surface_points(a, spacing), surface_points(b, spacing)
    return np.sqrt(((a[:, None] - b[None]) ** 2).sum(-1)).min(1)


def blobs(seed):
    rng = np.random.default_rng(seed)
    z, y, x = np.mgrid[:14, :12, :10]
    masks = []
    for centre in rng.uniform(3, 7, size=(2, 3)):
        distance = ((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) ** 0.5
        masks.append(distance + rng.normal(0, 0.4, distance.shape) < rng.uniform(2, 4))
    return masks


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("steps", [1, 2])
def test_shifted_voxels_and_sheets_are_as_far_apart_as_the_shift(axis, steps):
    move = np.eye(3, dtype=int)[axis] * steps
    for corner, size in [((3, 3, 3), (1, 1, 1)), ((3, 3, 3), np.where(np.eye(3)[axis], 1, 5))]:
        pair = cuboid(corner, size), cuboid(corner + move, size)
        expected = steps * SPACING[axis]
        assert_allclose(surface_distances(*pair, spacing=SPACING), (expected, expected))


def test_shifted_cube():
    # A 3³ cube has 26 surface voxels. Shifted by one along x it covers 18 places, of which one,
    # the centre of the old face, is inside the other cube and a step from its surface: its 9
    # new voxels are a step away too.
    pair = cuboid((3, 3, 3), (3, 3, 3)), cuboid((4, 3, 3), (3, 3, 3))
    _, average = surface_distances(*pair, spacing=(1.0, 1.0, 1.0))
    assert_allclose(average, 10 / 26)


@pytest.mark.parametrize("seed", range(3))
def test_equals_brute_force_and_medpy_on_the_whole_volume(seed):
    prediction, label = blobs(seed)
    values = surface_distances(prediction, label, spacing=SPACING)
    there, back = directed(prediction, label, SPACING), directed(label, prediction, SPACING)
    pooled = np.concatenate([there, back])
    assert_allclose(values, (np.percentile(pooled, 95), pooled.mean()))
    assert_array_equal(
        values,
        [f(prediction, label, voxelspacing=SPACING) for f in (hd95, assd)],
    )
    assert values[0] <= max(np.percentile(there, 95), np.percentile(back, 95))


def test_masks_at_the_frame_and_far_apart():
    # The bounding box of the two is the frame itself, or has nothing around the masks.
    for pair in [
        (cuboid((0, 0, 0), (4, 5, 6)), cuboid((10, 7, 4), (4, 5, 6))),
        (cuboid((0, 0, 0), (14, 12, 10)), cuboid((0, 0, 0), (1, 1, 1))),
    ]:
        values = surface_distances(*pair, spacing=SPACING)
        assert_array_equal(values, [f(*pair, voxelspacing=SPACING) for f in (hd95, assd)])


def test_a_mask_is_no_distance_from_itself():
    mask = blobs(0)[0]
    assert surface_distances(mask, mask, spacing=SPACING) == (0, 0)


def test_empty_masks():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert surface_distances(empty, empty, spacing=SPACING) == (0, 0)
    assert np.isnan(surface_distances(full, empty, spacing=SPACING)).all()
    assert np.isnan(surface_distances(empty, full, spacing=SPACING)).all()
    with pytest.raises(ValueError, match="one shape"):
        surface_distances(full, full[:2], spacing=SPACING)
