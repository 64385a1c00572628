"""Boxes: where they lie, how large they are, and what is pasted."""

import functools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mijax import transforms

KEY = jax.random.key(0)
COUNT, SHAPE = 2000, (30, 40)
sample = jax.jit(
    functools.partial(transforms.sample_boxes, count=COUNT, shape=SHAPE),
    static_argnames=("area", "aspect", "probability"),
)
place = jax.jit(transforms.place_boxes, static_argnames="shape")


def sides_of(boxes):
    """First pixel and length along each axis of every box, which must be a full one."""
    boxes = np.asarray(boxes) > 0
    axes = range(1, boxes.ndim)
    lines = [boxes.any(tuple(a for a in axes if a != axis)) for axis in axes]
    whole = functools.reduce(
        np.logical_and,
        (np.expand_dims(x, [a for a in axes if a != i]) for i, x in enumerate(lines, 1)),
    )
    assert_array_equal(boxes, whole)
    for line in lines:  # in one piece
        assert (np.abs(np.diff(np.pad(line, ((0, 0), (1, 1))).astype(int))).sum(1) <= 2).all()
    return *(x.argmax(1) for x in lines), *(x.sum(1) for x in lines)


def test_areas_and_aspects_are_uniform_in_their_ranges():
    _, _, height, width = sides_of(sample(KEY, area=(0.1, 0.3), aspect=(0.8, 1.25)))
    part = height * width / np.prod(SHAPE)
    # Sides are cut down to whole pixels.
    assert 0.07 < part.min() < 0.11 and 0.27 < part.max() <= 0.3
    assert part.mean() == pytest.approx(0.2 * (1 - 0.5 / 13) * (1 - 0.5 / 18), abs=0.005)
    aspect = (height / SHAPE[0]) / (width / SHAPE[1])
    assert 0.7 < aspect.min() < 0.85 and 1.15 < aspect.max() < 1.35


def test_boxes_are_those_of_the_drawn_numbers():
    area_key, aspect_key, place_key, _ = jax.random.split(KEY, 4)
    area = np.asarray(jax.random.uniform(area_key, (COUNT,), minval=0.02, maxval=0.4), float)
    aspect = np.asarray(jax.random.uniform(aspect_key, (COUNT,), minval=0.3, maxval=3.0), float)
    top, left, height, width = sides_of(sample(KEY, area=(0.02, 0.4), aspect=(0.3, 3.0)))
    for sides, n, found in ((area * aspect, SHAPE[0], height), (area / aspect, SHAPE[1], width)):
        exact = np.minimum(np.sqrt(sides) * n, n)
        sure = np.abs(exact - np.round(exact)) > 1e-3
        assert_array_equal(found[sure], np.floor(exact[sure]))
    first = jax.random.randint(
        place_key, (COUNT, 2), 0, np.array(SHAPE) - np.stack([height, width], 1) + 1
    )
    assert_array_equal(np.stack([top, left], 1), first)


def test_in_space_the_volume_and_two_aspects_are_uniform_in_their_ranges():
    shape, count = (40, 60, 50), 400
    boxes = transforms.sample_boxes(KEY, count, shape, area=(0.1, 0.3), aspect=(0.8, 1.25))
    depth, height, width = (x / n for x, n in zip(sides_of(boxes)[3:], shape, strict=True))
    # Sides are cut down to whole voxels: each is 0.5 to 1 voxel short, of 16 and more.
    assert 0.08 < (depth * height * width).min() < 0.12
    assert 0.26 < (depth * height * width).max() <= 0.3
    for aspect in (height / width, depth / np.sqrt(height * width)):
        assert 0.7 < aspect.min() < 0.85 and 1.15 < aspect.max() < 1.35
        assert np.median(aspect) == pytest.approx((0.8 + 1.25) / 2, abs=0.06)
    assert abs(np.corrcoef(height / width, depth / np.sqrt(height * width))[0, 1]) < 0.2


def test_a_box_that_is_too_long_is_cut_to_the_frame():
    _, _, height, width = sides_of(sample(KEY, area=(0.4, 0.4), aspect=(0.1, 0.1)))
    assert_array_equal(width, SHAPE[1])
    assert_array_equal(height, int(0.2 * SHAPE[0]))


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_probability(probability):
    boxes = sample(KEY, probability=probability)
    assert np.mean(np.asarray(boxes).any((1, 2))) == pytest.approx(probability, abs=0.04)


def test_every_place_of_the_frame_is_reached():
    boxes = place(KEY, np.full((COUNT, 2), 2 / 3), shape=(6, 9))
    top, left, height, width = sides_of(boxes)
    assert set(height) == {4} and set(width) == {6}
    assert set(zip(top.tolist(), left.tolist(), strict=True)) == {
        (i, j) for i in range(3) for j in range(4)
    }


def test_every_place_of_a_volume_is_reached():
    sides = np.tile(np.float32([[0.5, 2 / 3, 1.0]]), (400, 1))
    first = np.stack(sides_of(place(KEY, sides, shape=(4, 6, 3))), 1)
    assert_array_equal(first[:, 3:], [[2, 4, 3]] * 400)
    assert len(np.unique(first[:, :3], axis=0)) == 3 * 3 * 1


def test_an_empty_box_and_one_as_large_as_the_frame():
    boxes = place(KEY, np.tile(np.array([[0.0], [1.0], [2.0]]), 2), shape=(5, 4))
    assert_array_equal(boxes, np.broadcast_to([[[0.0]], [[1.0]], [[1.0]]], (3, 5, 4)))


def test_paste_takes_maps_and_labels_and_leaves_nan_behind():
    box = np.zeros((2, 3, 3), np.float32)
    box[0, 1, 1] = 1
    image, other = np.full((2, 3, 3, 2), 1.0), np.full((2, 3, 3, 2), np.nan)
    other[0, 1, 1], image[0, 1, 1] = 7, np.nan
    assert_array_equal(transforms.paste(box, image, other), 1 + 6 * box[..., None] * np.ones(2))
    labels = transforms.paste(box, np.zeros((2, 3, 3), int), np.full((2, 3, 3), 4))
    assert labels.dtype == np.int32
    assert_allclose(labels, 4 * box)
    boxes = np.stack([box, 1 - box], 1)  # of a volume of two slices
    volume = transforms.paste(boxes, np.zeros((2, 2, 3, 3, 1)), np.ones((2, 2, 3, 3, 1)))
    assert_array_equal(volume[..., 0], boxes)
    one = transforms.paste(boxes[:1], np.zeros((2, 2, 3, 3)), np.ones((2, 2, 3, 3)))
    assert_array_equal(one, boxes[[0, 0]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"area": (0.5, 0.1)}, "area is"),
        ({"area": (0.0, 1.5)}, "area is"),
        ({"aspect": (0.0, 1.0)}, "aspect is"),
        ({"probability": 2.0}, "probability is between 0 and 1, not 2.0"),
    ],
)
def test_ranges_that_are_none(options, message):
    with pytest.raises(ValueError, match=message):
        transforms.sample_boxes(KEY, 2, (4, 4), **options)
