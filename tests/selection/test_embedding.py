"""A scan as numbers: means over cells, and blocks that count alike."""

import numpy as np
import pytest

from mijax.configs.phantom import get_config
from mijax.data import Volume
from mijax.selection import describe_volume
from mijax.selection.choice import pairwise
from mijax.selection.embedding import LEVELS, by_thirds, describe, pooling, standardised


@pytest.mark.parametrize("length", [1, 2, 5, 8, 13])
def test_pooling_keeps_the_mean_and_needs_no_multiple(length):
    matrix = pooling(length, 4)
    assert matrix.shape == (4, length)
    assert matrix.sum(1) == pytest.approx(np.ones(4))
    assert matrix.mean(0) == pytest.approx(np.full(length, 1 / length))


def test_pooling_of_a_multiple_is_the_mean_of_each_part():
    values = np.arange(12.0)
    assert pooling(12, 4) @ values == pytest.approx(values.reshape(4, 3).mean(1))


def test_thirds_of_few_slices():
    assert by_thirds(np.array([[6.0, 1]])) == pytest.approx([6, 1] * 3)
    assert by_thirds(np.array([[0.0], [6]])) == pytest.approx([0, 3, 6])


def test_describe_sees_where_how_bright_and_how_large():
    image = np.zeros((6, 16, 16, 2), np.float32)
    image[0, :2, 14:, 1] = 5
    found = describe(image, (10, 20, 30))
    coarse = found["coarse"].reshape(6, 8, 8, 2)
    assert coarse[0, 0, 7, 1] == 5 and np.count_nonzero(coarse) == 1
    assert found["levels"].shape == (2 * len(LEVELS),)
    assert found["size"] == pytest.approx(np.log([10, 20, 30]))


def test_the_order_of_the_axes_in_a_file_does_not_matter():
    patches = get_config().data.patches
    patches.size = (16, 16)
    image, affine = np.random.default_rng(0).normal(size=(12, 14, 5, 1)), np.diag([1.0, 2, 3, 1])
    first = describe_volume(Volume("a", image, None, affine), patches)
    turned = Volume("a", image.transpose(2, 0, 1, 3), None, affine[:, [2, 0, 1, 3]])
    for block, values in describe_volume(turned, patches).items():
        np.testing.assert_allclose(values, first[block], err_msg=block)


def test_blocks_count_alike_whatever_their_length_and_unit():
    random = np.random.default_rng(0)
    short, long = random.normal(size=(50, 2)), 1e4 * random.normal(size=(50, 90)) + 7
    rows = [{"a": a, "b": b} for a, b in zip(short, long, strict=True)]
    for column in ("a", "b"):
        alone = pairwise(standardised([{column: row[column]} for row in rows]))
        assert np.square(alone).mean() == pytest.approx(2)
    both = pairwise(standardised(rows))
    assert np.square(both).mean() == pytest.approx(2)
    twice = [{"a": row["a"], "b": np.tile(row["b"] / 3, 4)} for row in rows]
    assert pairwise(standardised(twice)) == pytest.approx(both)


def test_a_block_that_all_have_alike_counts_for_nothing():
    rows = [{"a": np.array([x]), "b": np.array([4.0, 5])} for x in (1.0, 2, 4)]
    distances = pairwise(standardised(rows))
    assert distances[0, 2] == pytest.approx(3 * distances[0, 1])
