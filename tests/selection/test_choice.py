"""Which patients stand for the others: known answers, brute force, properties."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mijax.selection.choice import (
    coverage,
    disputed,
    followers,
    pairwise,
    random_coverages,
    representatives,
)

# Three groups on a line, of 5, 3 and 2; their middles are 2, 6 and 8 or 9.
LINE = pairwise(np.array([0, 1, 2, 3, 4, 100, 101, 102, 200, 201.0])[:, None])


def points(seed, count=9):
    return pairwise(np.random.default_rng(seed).normal(size=(count, 2)))


def test_pairwise():
    assert pairwise(np.array([[0.0, 0], [3, 4], [0, 4]])) == pytest.approx(
        np.array([[0, 5, 4], [5, 0, 3], [4, 3, 0]])
    )


def test_coverage_is_the_mean_distance_to_the_nearest():
    assert coverage(LINE, [2, 6]) == pytest.approx((6 + 2 + 99 + 100) / 10)


def test_each_group_has_its_middle():
    assert set(representatives(LINE, 3)) in ({2, 6, 8}, {2, 6, 9})


def test_what_has_labels_already_counts():
    assert set(representatives(LINE, 2, given=[3])) in ({6, 8}, {6, 9})


def test_the_first_is_worth_most():
    assert representatives(LINE, 2, given=[6]) in ([2, 8], [2, 9])  # 2 stands for five, 8 for two


@given(st.integers(0, 10**6), st.integers(1, 3))
def test_no_exchange_is_better_and_one_alone_is_the_best(seed, count):
    distances = points(seed)
    chosen = representatives(distances, count)
    found = coverage(distances, chosen)
    for i, other in itertools.product(range(count), set(range(9)) - set(chosen)):
        assert coverage(distances, [*chosen[:i], other, *chosen[i + 1 :]]) >= found * (1 - 1e-6)
    if count == 1:
        assert found == pytest.approx(min(coverage(distances, [i]) for i in range(9)))


def test_it_is_the_best_of_all_sets_mostly():
    """Not always: exchanges are one by one."""
    least = [
        (
            coverage(d, representatives(d, 3)),
            min(coverage(d, c) for c in itertools.combinations(range(9), 3)),
        )
        for d in map(points, range(40))
    ]
    assert sum(found == pytest.approx(best) for found, best in least) >= 30
    assert all(found <= 1.1 * best for found, best in least)


def test_all_of_them_can_be_chosen():
    assert sorted(representatives(LINE, 10)) == list(range(10))
    assert sorted(representatives(LINE, 9, given=[4])) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_disputed_is_far_from_labels_and_from_each_other():
    disagreement = np.full(10, 0.1)
    assert disputed(LINE, disagreement, 2, given=[0]) == [9, 5]  # 201 first, then 100 of 4 … 102
    disagreement[1] = 30.0
    assert disputed(LINE, disagreement, 1, given=[0]) == [1]
    assert disputed(LINE, np.zeros(10), 2, given=[0]) == [1, 2]  # nothing disputed, nothing twice


def test_random_coverages_are_those_of_sets_without_what_is_given():
    d = points(1)
    all_sets = [coverage(d, [0, *pair]) for pair in itertools.combinations(range(1, 9), 2)]
    found = random_coverages(d, 2, given=[0], draws=400)
    assert set(found.round(9)) == set(np.round(all_sets, 9))
    assert found.mean() == pytest.approx(np.mean(all_sets), rel=0.05)


def test_followers_divide_those_that_are_left():
    assert followers(LINE, [2, 9], given=[6]) == {2: [1, 3, 0, 4], 9: [8]}
