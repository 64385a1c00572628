"""Batches filled across stacks: the network sees one shape, and nobody can tell from the result."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mijax.inference.batching import predict_stacks

BATCH = 4


def network(shapes):
    """A stand-in that is right only where each row is computed from its own image."""

    def predict(weights, images):
        shapes.append(images.shape)
        return np.stack([weights * images[..., 0], images[..., 0] ** 2], axis=-1)

    return predict


def stacks_of(sizes):
    key = np.random.default_rng(0)
    return [key.random((n, 3, 2, 1), np.float32) for n in sizes]


@given(st.lists(st.integers(0, 11), max_size=6))
@example([])
@example([0])
@example([0, 0, 3])
@example([3, 0, 0])
@example([4, 0, 4])
def test_equal_to_one_call_a_stack(sizes):
    stacks, shapes = stacks_of(sizes), []
    results = list(predict_stacks(network(shapes), 2.0, iter(stacks), batch=BATCH))
    assert len(results) == len(stacks)
    for result, stack in zip(results, stacks, strict=True):
        np.testing.assert_array_equal(result, network([])(2.0, stack))
    assert set(shapes) <= {(BATCH, 3, 2, 1)}
    assert len(shapes) == max(-(-sum(sizes) // BATCH), min(len(sizes), 1))


def test_one_batch_is_taken_ahead_of_the_result():
    taken = []

    def stacks():
        for index, stack in enumerate(stacks_of([4, 4, 4])):
            taken.append(index)
            yield stack

    stream = predict_stacks(network([]), 1.0, stacks(), batch=BATCH)
    for index in range(3):
        next(stream)
        assert taken == list(range(min(index + 2, 3)))
    with pytest.raises(StopIteration):
        next(stream)
