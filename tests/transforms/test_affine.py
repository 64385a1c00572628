"""Affine matrices: where known points go, the order of the cascade, inverses, and ranges."""

import functools
import itertools

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mijax.transforms import affine_matrix, check_ranges, inverse_affine, reach, sample_affine

KEY = jax.random.key(0)


def pulled(point, **kwargs):
    """Where the output pixel at this place (rows first, from the centre) is taken from."""
    matrix = affine_matrix(**kwargs, dims=len(point))
    return (np.asarray(matrix)[0] @ [*point, 1])[:-1]


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
        # The same in each slice; and about rows and about columns.
        ({"rotation": 90.0}, (7, -2, 0), (7, 0, 2)),
        ({"shear": 45.0}, (7, 5, 3), (7, 2, 3)),
        ({"rotation": [[90.0, 0.0, 0.0]]}, (7, -2, 0), (7, 0, 2)),
        ({"rotation": [[0.0, 90.0, 0.0]]}, (-2, 7, 0), (0, 7, 2)),
        ({"rotation": [[0.0, 0.0, 90.0]]}, (-2, 0, 7), (0, 2, 7)),
        # The rotation in-plane is first: a pull undoes that about columns before it.
        ({"rotation": [[90.0, 0.0, 90.0]]}, (1, 2, 3), (2, 3, 1)),
        ({"scale": [[2.0, 0.5, 1.0]]}, (2, 4, 3), (1, 8, 3)),
        ({"flip": [[-1.0, 1.0, 1.0]], "translation": [[1.0, 0.0, -2.0]]}, (2, 3, 1), (-1, 3, 3)),
    ],
)
def test_known_points(kwargs, output, source):
    assert_allclose(pulled(output, **kwargs), source, atol=1e-5)


def cascades(dims):
    return st.fixed_dictionaries(
        {
            "rotation": st.tuples(*[st.floats(-180, 180)] * (1 if dims == 2 else 3)),
            "shear": st.floats(-40, 40),
            "scale": st.tuples(*[st.floats(0.5, 2)] * dims),
            "flip": st.tuples(*[st.sampled_from([-1.0, 1.0])] * dims),
            "translation": st.tuples(*[st.floats(-20, 20)] * dims),
        }
    )


@functools.partial(jax.jit, static_argnames="spacing")
def there_and_back(cascade, spacing):
    matrix = affine_matrix(**cascade, spacing=spacing, dims=cascade["scale"].shape[1])
    return matrix[0], inverse_affine(matrix)[0]


@pytest.mark.parametrize("spacing", [None, (1.5, 1.0), (5.0, 0.8, 1.2)])
@given(st.data())
def test_the_cascade_is_flip_scale_shear_rotate_translate(spacing, data):
    dims = len(spacing or "hw")
    cascade = data.draw(cascades(dims))
    lean = np.eye(dims)
    lean[-2, -1] = np.tan(np.deg2rad(cascade["shear"]))
    forward, linear = np.eye(dims + 1), lean @ np.diag(cascade["scale"]) @ np.diag(cascade["flip"])
    for axis, angle in enumerate(np.deg2rad(cascade["rotation"])):  # about depth first
        i, j = (a for a in range(dims) if dims == 2 or a != axis)
        turn = np.eye(dims)
        turn[[i, i, j, j], [i, j, i, j]] = [
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        ]
        linear = turn @ linear
    size = np.diag(spacing or (1, 1))  # what turns and leans are millimetres
    forward[:-1, :-1] = np.linalg.inv(size) @ linear @ size
    forward[:-1, -1] = cascade["translation"]
    cascade = {k: np.asarray([v], np.float32) for k, v in cascade.items()}
    matrix, inverse = there_and_back(cascade, spacing)
    assert_allclose(matrix, np.linalg.inv(forward), rtol=1e-4, atol=3e-4)
    assert_allclose(inverse, forward, rtol=1e-4, atol=3e-4)


def test_in_plane_a_volume_is_moved_as_an_image_is():
    # Op by op: what is fused may round otherwise.
    rng = np.random.default_rng(0)
    angles = {"rotation": rng.uniform(-180, 180, 500), "shear": rng.uniform(-20, 20, 500)}
    scale, translation = rng.uniform(0.5, 2, (500, 2)), rng.uniform(-9, 9, (500, 2))
    plane = affine_matrix(**angles, scale=scale, translation=translation)
    scale, translation = (np.insert(x, 0, n, 1) for x, n in ((scale, 1), (translation, 0)))
    space = affine_matrix(**angles, scale=scale, translation=translation, dims=3)
    for ours, expected in ((space, plane), (inverse_affine(space), inverse_affine(plane))):
        assert_array_equal(ours[:, 1:, 1:], expected)
        assert_allclose(ours[:, 0], [[1, 0, 0, 0]] * 500, atol=1e-7)  # c · (1 / c) may not be 1
        assert_array_equal(ours[:, 1:, 0], 0)


def test_scalars_and_batches_mix():
    matrix = affine_matrix(rotation=np.array([0.0, 90.0, 180.0]), scale=2.0)
    assert matrix.shape == (3, 3, 3)
    assert_allclose(matrix[1], affine_matrix(rotation=90.0, scale=2.0)[0], atol=1e-7)


def test_inverse_of_flips_and_doublings_is_exact():
    matrix = affine_matrix(flip=[[-1.0, 1.0]], scale=2.0, translation=[[3.0, 5.0]])
    assert_array_equal((matrix @ inverse_affine(matrix))[0], np.eye(3))
    flips = {"flip": [[-1.0, 1.0, -1.0]], "translation": [[3.0, 5.0, 7.0]]}
    matrix = affine_matrix(**flips, scale=[[0.5, 2.0, 4.0]], dims=3)
    assert_array_equal((matrix @ inverse_affine(matrix))[0], np.eye(4))


@given(st.integers(0, 2**31 - 1))
def test_inverses_are_those_of_numpy(seed):
    matrix = np.random.default_rng(seed).normal(size=(8, 4, 4)).astype(np.float32)
    matrix[:, :3, :3] += 4 * np.eye(3, dtype=np.float32)
    matrix[:, 3] = [0, 0, 0, 1]
    expected = np.linalg.inv(matrix.astype(np.float64))
    assert_allclose(inverse_affine(matrix), expected, rtol=1e-3, atol=1e-4)


RANGES = {"rotation": 30.0, "shear": 10.0, "scale": (0.8, 1.25), "flip": 0.5}


def forward_maps(dims=2, **ranges):
    matrix = np.asarray(sample_affine(KEY, 500, **ranges, dims=dims), np.float64)
    assert matrix.shape == (500, dims + 1, dims + 1)
    assert_array_equal(matrix[:, -1], [[0] * dims + [1]] * 500)
    assert_array_equal(matrix[:, :-1, -1], 0)
    return np.linalg.inv(matrix[:, :-1, :-1])


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
    forward = forward_maps(flip=0.5)
    signs = forward[:, [0, 1], [0, 1]]
    assert set(np.unique(signs)) == {-1, 1}
    corners = np.unique(signs, axis=0, return_counts=True)[1]
    assert len(corners) == 4 and corners.min() > 80  # the axes are independent
    assert_array_equal(forward_maps(), [np.eye(2)] * 500)


@pytest.mark.parametrize("axis", range(3))
def test_each_axis_of_space_is_turned_in_its_range_and_flipped_by_its_probability(axis):
    i, j = (a for a in range(3) if a != axis)
    forward = forward_maps(3, rotation=(30.0 * np.eye(3)[axis]).tolist())
    assert_allclose(forward[:, axis], [np.eye(3)[axis]] * 500, atol=1e-6)
    fills(np.rad2deg(np.arctan2(forward[:, j, i], forward[:, i, i])), -30, 30)
    forward = forward_maps(3, flip=[(0.0, 1.0, 0.0), (0.0, 0.0, 0.25), (0.5, 0.0, 0.0)][axis])
    flipped = (forward[:, range(3), range(3)] < 0).mean(0)
    assert_allclose(flipped, [(0, 1, 0), (0, 0, 0.25), (0.5, 0, 0)][axis], atol=0.05)
    assert_array_equal(flipped == 0, [(1, 0, 1), (1, 1, 0), (0, 1, 1)][axis])


@pytest.mark.parametrize("flip", [0.5, (0.5, 0.0), np.array([0.5, 0.0])])
def test_a_half_flips_what_true_did_in_earlier_versions(flip):
    forward = sample_affine(jax.random.key(2), 8, flip=flip)
    signs = forward[:, [0, 1], [0, 1]]
    first, second = [1, 0, 1, 1, 1, 0, 1, 0], [1, 1, 1, 1, 0, 1, 0, 1]
    second = np.zeros(8) if np.ndim(flip) else second
    assert_array_equal(signs < 0, np.transpose([first, second]))


def test_one_number_scales_in_plane_and_three_scale_all_axes():
    for rotation, depth in ((0.0, False), ((0.0, 0.0, 0.0), True)):
        sizes = forward_maps(3, rotation=rotation, scale=(0.5, 2.0))[:, range(3), range(3)]
        fills(np.log(sizes[:, 1]), np.log(0.5), np.log(2))
        assert_array_equal(sizes[:, 2], sizes[:, 1])
        assert_array_equal(sizes[:, 0], sizes[:, 1] if depth else 1)
    forward = forward_maps(3, flip=0.5)[:, range(3), range(3)]
    assert np.unique(forward, axis=0, return_counts=True)[1].min() > 35  # of 8, about 62
    quarters = forward_maps(3, rotation=(0.0, 0.0, 0.0), quarter_turns=True)
    assert_allclose(quarters[:, 0], [[1, 0, 0]] * 500)
    assert len(np.unique(quarters.round(3), axis=0)) == 4


def test_a_key_determines_the_draw():
    # As many as above, for which the ops are there.
    one, same = (sample_affine(KEY, 500, **RANGES) for _ in range(2))
    other = sample_affine(jax.random.key(1), 500, **RANGES)
    assert_array_equal(one, same)
    assert len(np.unique(np.concatenate([one, other]), axis=0)) == 1000


@pytest.mark.parametrize(
    "bad",
    [
        {"rotation": -1.0},
        {"rotation": 181.0},
        {"rotation": float("nan")},
        {"rotation": (30.0, 30.0)},
        {"rotation": (30.0, -30.0, 30.0)},
        {"shear": -1.0},
        {"shear": 45.0},
        {"scale": (1.2, 0.8)},
        {"scale": (0.0, 1.0)},
        {"scale": (1.0,)},
        {"scale": (1.0, float("nan"))},
        {"flip": 1.5},
        {"flip": (0.5, 2.0)},
        {"flip": (0.5,)},
        {"flip": True},
        {"flip": np.bool_(False)},
        {"flip": (0.5, True)},
    ],
    ids=str,
)
def test_ranges_that_are_none_are_refused(bad):
    ranges = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0)} | bad
    for refuse in (check_ranges, lambda **r: sample_affine(KEY, 1, **r)):
        with pytest.raises(ValueError, match=next(iter(bad))):
            refuse(**ranges)


def test_ranges_of_the_other_dimension_are_refused():
    for bad, dims in (
        ({"rotation": (1.0, 1.0, 1.0)}, 2),
        ({"flip": (0.5, 0.5, 0.5)}, 2),
        ({"flip": (0.5, 0.5)}, 3),
        ({"translation": (1.0, 1.0)}, 3),
        ({"spacing": (1.0, 1.0)}, 3),
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            sample_affine(KEY, 1, **bad, dims=dims)
    check_ranges(rotation=(1.0, 1.0, 1.0), shear=0.0, scale=(1.0, 1.0), flip=(0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("shape", "ranges"),
    [
        ((7, 12), {}),
        ((7, 12), {"rotation": 30.0}),
        ((7, 12), {"rotation": 180.0, "scale": (0.7, 1.4)}),
        ((40, 12), {"rotation": 10.0, "shear": 10.0, "scale": (1.1, 1.4)}),
        ((9, 20), {"quarter_turns": True, "rotation": 5.0}),
        ((5, 9, 20), {"rotation": 30.0, "scale": (0.5, 1.0)}),
        ((8, 16, 11), {"rotation": (180.0, 20.0, 10.0), "shear": 8.0, "scale": (0.8, 1.25)}),
        ((8, 16, 11), {"rotation": (20.0, 90.0, 45.0), "quarter_turns": True}),
        ((8, 16, 11), {"rotation": (20.0, 10.0, 30.0), "spacing": (3.0, 0.8, 1.0)}),
        ((16, 11), {"rotation": 30.0, "shear": 8.0, "spacing": (0.5, 1.0)}),
    ],
)
def test_reach_is_as_far_as_a_frame_is_sampled(shape, ranges):
    """Of many maps none goes beyond it; and in-plane it is not much larger than it must be."""
    matrices = sample_affine(KEY, 2_000, flip=0.5, **ranges, dims=len(shape))[:, :-1, :-1]
    half = (np.array(shape) - 1) / 2
    corners = np.array(list(itertools.product(*([-h, h] for h in half))))
    farthest = np.abs(np.einsum("nij,cj->nci", matrices, corners)).max((0, 1))
    found = reach(shape, **ranges)
    beyond = (np.array(found) - 1) / 2 - farthest
    assert (beyond >= 1).all()
    if np.ndim(ranges.get("rotation", 0)) == 0:
        assert (beyond < 3).all()
    assert all((n - m) % 2 == 0 for n, m in zip(found, shape, strict=True))


def test_reach_of_ranges_that_are_none():
    with pytest.raises(ValueError, match="scale is"):
        reach((8, 8), scale=(0.0, 1.0))
