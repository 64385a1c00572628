"""HD95, ASSD and NSD: closed forms, brute force, MedPy and surface-distance on whole volumes."""

import functools
import warnings

import numpy as np
import pytest
import surface_distance
from medpy.metric.binary import assd, hd95
from numpy.testing import assert_allclose

from mijax.metrics import surface_dice, surface_distances

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
    expected = [f(prediction, label, voxelspacing=SPACING) for f in (hd95, assd)]
    assert_allclose(values, expected, rtol=1e-12)
    assert values[0] <= max(np.percentile(there, 95), np.percentile(back, 95))


def test_masks_at_the_frame_and_far_apart():
    # The bounding box of the two is the frame itself, or has nothing around the masks.
    for pair in [
        (cuboid((0, 0, 0), (4, 5, 6)), cuboid((10, 7, 4), (4, 5, 6))),
        (cuboid((0, 0, 0), (14, 12, 10)), cuboid((0, 0, 0), (1, 1, 1))),
    ]:
        values = surface_distances(*pair, spacing=SPACING)
        expected = [f(*pair, voxelspacing=SPACING) for f in (hd95, assd)]
        assert_allclose(values, expected, rtol=1e-12)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_slice_is_an_image(axis):
    prediction, label = (mask[:, :, 5] for mask in blobs(0))
    spacing = SPACING[:2]
    flat = [np.expand_dims(mask, axis) for mask in (prediction, label)]
    solid = tuple(np.insert(spacing, axis, 7.0))
    values = surface_distances(*flat, spacing=solid)
    assert values == surface_distances(prediction, label, spacing=spacing)
    expected = [f(prediction, label, voxelspacing=spacing) for f in (hd95, assd)]
    assert_allclose(values, expected, rtol=1e-12)
    for tolerance in (0.0, 0.9, 2.0):
        found = surface_dice(*flat, spacing=solid, tolerance=tolerance)
        assert_allclose(found, of_the_library(prediction, label, spacing, tolerance), rtol=1e-9)
        assert 0 < found < 1


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


# NSD ---------------------------------------------------------------------------------------


def of_the_library(prediction, label, spacing, tolerance):
    with warnings.catch_warnings():  # of names in SciPy that it has from before
        warnings.simplefilter("ignore", DeprecationWarning)
        found = surface_distance.compute_surface_distances(label, prediction, spacing)
    return surface_distance.compute_surface_dice_at_tolerance(found, tolerance)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), SPACING, (1.37, 0.77, 8.1)])
@pytest.mark.parametrize("seed", range(3))
def test_nsd_is_that_of_surface_distance(seed, spacing):
    prediction, label = blobs(seed)
    values = [
        surface_dice(prediction, label, spacing=spacing, tolerance=tolerance)
        for tolerance in (0.0, 0.9, 2.0, 5.0)
    ]
    expected = [of_the_library(prediction, label, spacing, t) for t in (0.0, 0.9, 2.0, 5.0)]
    assert_allclose(values, expected, rtol=1e-12)
    assert 0 < values[0] < values[2] and values == sorted(values)
    swapped = surface_dice(label, prediction, spacing=spacing, tolerance=2.0)
    assert_allclose(swapped, values[2], rtol=1e-12)


def test_nsd_of_masks_at_the_frame_and_far_apart():
    for pair in [
        (cuboid((0, 0, 0), (4, 5, 6)), cuboid((1, 0, 0), (4, 5, 6))),
        (cuboid((9, 7, 4), (5, 5, 6)), cuboid((10, 7, 3), (4, 5, 7))),
    ]:
        found = surface_dice(*pair, spacing=SPACING, tolerance=0.4)
        assert_allclose(found, of_the_library(*pair, SPACING, 0.4), rtol=1e-12)
        assert 0 < found < 1
    apart = cuboid((0, 0, 0), (3, 3, 3)), cuboid((8, 8, 6), (3, 3, 3))
    assert surface_dice(*apart, spacing=SPACING, tolerance=2.0) == 0


def test_nsd_counts_areas_not_voxels():
    # Two slabs with one face in common; the other two are 1 mm apart, the rims as wide as that.
    wide = np.zeros((100, 100, 6), bool)
    wide[2:-2, 2:-2, 2:3] = True
    thick = wide.copy()
    thick[2:-2, 2:-2, 3:4] = True
    assert_allclose(surface_dice(thick, wide, spacing=(1, 1, 1), tolerance=0.1), 0.5, atol=0.02)
    # Of slabs that are much thicker than wide, the rims are nearly all of the area.
    found = surface_dice(thick, wide, spacing=(1, 1, 1e6), tolerance=0.1)
    assert_allclose(found, of_the_library(thick, wide, (1, 1, 1e6), 0.1), rtol=1e-12)


def test_a_distance_of_just_the_tolerance_is_within():
    """Rounding is to decide nothing: 3 · 0.7 − 0.7 is more than 2 · 0.7 in binary."""
    pair = cuboid((3, 3, 3), (3, 4, 4)), cuboid((5, 3, 3), (3, 4, 4))
    assert surface_dice(*pair, spacing=(0.7, 1.0, 1.0), tolerance=1.4) == 1
    assert surface_dice(*pair, spacing=(0.7, 1.0, 1.0), tolerance=1.39) < 1


def test_nsd_of_empty_masks_and_wrong_arguments():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    options = {"spacing": SPACING, "tolerance": 2.0}
    assert surface_dice(empty, empty, **options) == 1
    assert surface_dice(full, empty, **options) == surface_dice(empty, full, **options) == 0
    assert surface_dice(full, full, **options) == 1
    with pytest.raises(ValueError, match="one shape"):
        surface_dice(full, full[:2], **options)
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="tolerance is 0 mm or more"):
            surface_dice(full, full, spacing=SPACING, tolerance=wrong)
    with pytest.raises(ValueError, match=r"masks are \(x, y, z\), not \(3, 3\)"):
        surface_dice(full[0], full[0], spacing=SPACING[:2], tolerance=2.0)


@pytest.mark.parametrize(
    "score", [surface_distances, functools.partial(surface_dice, tolerance=2.0)]
)
def test_masks_that_are_not_boolean_are_refused(score):
    mask = np.ones((3, 3, 3), bool)
    for pair in ((mask, mask.astype(np.uint8)), (mask * 255, mask)):
        with pytest.raises(ValueError, match="masks are boolean, not"):
            score(*pair, spacing=SPACING)
