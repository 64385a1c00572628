"""Affine matrices: where known points go, the order of the cascade, inverses, and ranges."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mijax.transforms import affine_matrix, check_ranges, inverse_affine, sample_affine

KEY = jax.random.key(0)


def pulled(point, **kwargs):
    """Where the output pixel at this place (rows first, from the centre) is taken from."""
    return (np.asarray(affine_matrix(**kwargs))[0] @ [*point, 1])[:2]


@pytest.mark.parametrize(
    ("kwargs", "output", "source"),
    [
        ({}, (2, 3), (2, 3)),
        # Counter-clockwise on the screen: what was on the right is now on top.
        ({"rotation": 90.0}, (-2, 0), (0, 2)),
        ({"rotation": 180.0}, (2, 3), (-2, -3)),
        # Moved down by 1 and left by 2.
        ({"translation": [[1.0, -2.0]]}, (1, -2), (0, 0)),
        ({"flip": [[-1.0, 1.0]]}, (2, 3), (-2, 3)),
        ({"flip": -1.0}, (2, 3), (-2, -3)),
        ({"scale": 2.0}, (2, 4), (1, 2)),
        ({"scale": [[2.0, 0.5]]}, (2, 4), (1, 8)),
        # tan 45° = 1: a row goes down by a pixel every pixel.
        ({"shear": 45.0}, (5, 3), (2, 3)),
    ],
)
def test_known_points(kwargs, output, source):
    assert_allclose(pulled(output, **kwargs), source, atol=1e-5)


cascades = st.fixed_dictionaries(
    {
        "rotation": st.floats(-180, 180),
        "shear": st.floats(-40, 40),
        "scale": st.tuples(*[st.floats(0.5, 2)] * 2),
        "flip": st.tuples(*[st.sampled_from([-1.0, 1.0])] * 2),
        "translation": st.tuples(*[st.floats(-20, 20)] * 2),
    }
)


@given(cascades)
def test_the_cascade_is_flip_scale_shear_rotate_translate(cascade):
    angle, lean = np.deg2rad([cascade["rotation"], cascade["shear"]])
    rotate = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shear = [[1, np.tan(lean)], [0, 1]]
    forward = np.eye(3)
    forward[:2, :2] = rotate @ (shear @ np.diag(cascade["scale"]) @ np.diag(cascade["flip"]))
    forward[:2, 2] = cascade["translation"]
    matrix = affine_matrix(**{k: np.asarray([v], np.float32) for k, v in cascade.items()})
    assert_allclose(matrix[0], np.linalg.inv(forward), rtol=1e-4, atol=1e-4)
    assert_allclose(inverse_affine(matrix)[0], forward, rtol=1e-4, atol=1e-4)


def test_scalars_and_batches_mix():
    matrix = affine_matrix(rotation=np.array([0.0, 90.0, 180.0]), scale=2.0)
    assert matrix.shape == (3, 3, 3)
    assert_allclose(matrix[1], affine_matrix(rotation=90.0, scale=2.0)[0], atol=1e-7)


def test_inverse_of_flips_and_doublings_is_exact():
    matrix = affine_matrix(flip=[[-1.0, 1.0]], scale=2.0, translation=[[3.0, 5.0]])
    np.testing.assert_array_equal((matrix @ inverse_affine(matrix))[0], np.eye(3))


RANGES = {"rotation": 30.0, "shear": 10.0, "scale": (0.8, 1.25), "flip": True}


def forward_maps(**ranges):
    matrix = np.asarray(sample_affine(KEY, 500, **ranges), np.float64)
    assert matrix.shape == (500, 3, 3)
    np.testing.assert_array_equal(matrix[:, 2], [[0, 0, 1]] * 500)
    np.testing.assert_array_equal(matrix[:, :2, 2], 0)
    return np.linalg.inv(matrix[:, :2, :2])


def fills(draws, low, high):
    """Draws keep within the range and use most of it, both halves about alike."""
    slack = 1e-4 * (high - low)
    assert low - slack <= draws.min() < low + 0.05 * (high - low)
    assert high - 0.05 * (high - low) < draws.max() <= high + slack
    assert abs(np.mean(draws > (low + high) / 2) - 0.5) < 0.1


def test_each_range_is_kept_and_used():
    forward = forward_maps(rotation=30.0)
    fills(np.rad2deg(np.arctan2(forward[:, 1, 0], forward[:, 0, 0])), -30, 30)
    forward = forward_maps(shear=10.0)
    fills(np.rad2deg(np.arctan(forward[:, 0, 1])), -10, 10)
    forward = forward_maps(scale=(0.5, 2.0))
    np.testing.assert_array_equal(forward[:, 0, 0], forward[:, 1, 1])
    fills(np.log(forward[:, 0, 0]), np.log(0.5), np.log(2))
    forward = forward_maps(flip=True)
    signs = forward[:, [0, 1], [0, 1]]
    assert set(np.unique(signs)) == {-1, 1}
    corners = np.unique(signs, axis=0, return_counts=True)[1]
    assert len(corners) == 4 and corners.min() > 80  # the axes are independent
    np.testing.assert_array_equal(forward_maps(), [np.eye(2)] * 500)


def test_a_key_determines_the_draw():
    # As many as above, for which the ops are there.
    one, same = (sample_affine(KEY, 500, **RANGES) for _ in range(2))
    other = sample_affine(jax.random.key(1), 500, **RANGES)
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 1000


@pytest.mark.parametrize(
    "bad",
    [
        {"rotation": -1.0},
        {"rotation": 181.0},
        {"rotation": float("nan")},
        {"shear": -1.0},
        {"shear": 45.0},
        {"scale": (1.2, 0.8)},
        {"scale": (0.0, 1.0)},
        {"scale": (1.0,)},
        {"scale": (1.0, float("nan"))},
    ],
    ids=str,
)
def test_ranges_that_are_none_are_refused(bad):
    ranges = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0)} | bad
    for refuse in (check_ranges, lambda **r: sample_affine(KEY, 1, **r)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            refuse(**ranges)
