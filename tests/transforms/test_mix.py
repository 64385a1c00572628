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
    """First row and column, height and width of each box, which must be a full rectangle."""
    boxes = np.asarray(boxes)
    rows, columns = boxes.any(2), boxes.any(1)
    assert_array_equal(boxes, rows[:, :, None] & columns[:, None, :])
    for line in (rows, columns):  # in one piece
        assert (np.abs(np.diff(np.pad(line, ((0, 0), (1, 1))).astype(int))).sum(1) <= 2).all()
    return rows.argmax(1), columns.argmax(1), rows.sum(1), columns.sum(1)


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
