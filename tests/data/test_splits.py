"""Splits: by patient, disjoint, nested, drawn from a seed; or refused in one line."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mijax.data import (
    Case,
    Splits,
    all_labelled,
    check_splits,
    draw_splits,
    read_splits,
    write_splits,
)
from mijax.errors import UserError


def cases_of(patients: int, *, scans: int = 1, unlabelled: int = 0) -> tuple[Case, ...]:
    """Patients with all scans labelled, then some whose last scan is not."""
    return tuple(
        Case(f"p{p:03d}_{s}", f"p{p:03d}", p < patients or s < scans - 1)
        for p in range(patients + unlabelled)
        for s in range(scans)
    )


def patients(names) -> set[str]:
    return {name.split("_")[0] for name in names}


numbers = st.tuples(*[st.integers(0, 5)] * 2, st.integers(1, 4), st.integers(0, 4))


@given(numbers, st.integers(1, 3), st.integers(0, 4), st.integers(0, 2**32))
def test_splits_are_disjoint_complete_and_of_the_size_asked(sizes, scans, unlabelled, seed):
    rest, labelled, validation, test = sizes
    labelled += 1
    cases = cases_of(rest + labelled + validation + test, scans=scans, unlabelled=unlabelled)
    splits = draw_splits(cases, labelled=labelled, validation=validation, test=test, seed=seed)
    check_splits(splits, cases)
    assert sorted(sum(splits, ())) == sorted(case.name for case in cases)
    assert [len(patients(names)) for names in splits] == [
        labelled,
        rest + unlabelled,
        validation,
        test,
    ]


@given(st.integers(0, 2**32))
def test_more_labels_change_neither_test_nor_validation(seed):
    cases = cases_of(20, scans=2, unlabelled=3)
    drawn = [draw_splits(cases, labelled=n, validation=3, test=5, seed=seed) for n in range(1, 13)]
    everything = draw_splits(cases, labelled=0, validation=3, test=5, seed=seed)
    for fewer, more in zip(drawn, [*drawn[1:], everything], strict=True):
        assert fewer.test == more.test and fewer.validation == more.validation
        assert set(fewer.labelled) <= set(more.labelled)


def test_full_supervision_labels_all_that_remain():
    cases = cases_of(10, scans=2, unlabelled=2)
    splits = draw_splits(cases, labelled=0, validation=2, test=3, seed=0)
    assert len(patients(splits.labelled)) == 5
    assert patients(splits.unlabelled) == {"p010", "p011"}


@pytest.mark.parametrize(("scans", "unlabelled"), [(1, 0), (1, 4), (2, 3)])
def test_all_labels_of_splits_are_those_of_full_supervision(scans, unlabelled):
    cases = cases_of(10, scans=scans, unlabelled=unlabelled)
    draws = [draw_splits(cases, labelled=n, validation=2, test=2, seed=1) for n in (0, 2)]
    assert all_labelled(draws[1], cases) == all_labelled(draws[0], cases) == draws[0]


def test_order_and_unlabelled_patients_do_not_change_the_draw():
    cases = cases_of(10)
    splits = draw_splits(cases, labelled=2, validation=2, test=2, seed=1)
    assert draw_splits(cases[::-1], labelled=2, validation=2, test=2, seed=1) == splits
    more = draw_splits(cases_of(10, unlabelled=5), labelled=2, validation=2, test=2, seed=1)
    assert (more.labelled, more.validation, more.test) == (
        splits.labelled,
        splits.validation,
        splits.test,
    )
    assert draw_splits(cases, labelled=2, validation=2, test=2, seed=2) != splits


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"labelled": 5, "validation": 3, "test": 3}, "there are 10"),
        ({"labelled": 0, "validation": 5, "test": 5}, "there are 10"),
        ({"labelled": 10, "validation": 1, "test": 0}, "10; lower --config.data.splits.labelled,"),
        ({"labelled": 1, "validation": 9, "test": 1}, "lower --config.data.splits.validation or "),
        ({"labelled": 2, "validation": 0, "test": 2}, "empty split"),
        (
            {"labelled": 2, "validation": 2, "test": 2, "seed": -1},
            "data.splits.seed=-1: must not",
        ),
        ({"labelled": -1, "validation": 1, "test": 2}, "data.splits.labelled=-1"),
        ({"labelled": 1, "validation": -1, "test": 2}, "data.splits.validation=-1"),
        ({"labelled": 1, "validation": 1, "test": -2}, "data.splits.test=-2"),
    ],
)
def test_what_cannot_be_drawn(asked, expected):
    with pytest.raises(UserError, match=expected) as caught:
        draw_splits(cases_of(10, unlabelled=4), **{"seed": 0} | asked)
    assert "\n" not in str(caught.value)


def test_one_labelled_patient_is_too_few_and_nothing_can_be_lowered():
    with pytest.raises(UserError, match="but there are 1; annotate more$"):
        draw_splits(cases_of(1, unlabelled=4), labelled=0, validation=1, test=0, seed=0)


def test_no_label_at_all():
    with pytest.raises(UserError, match="no case has a label; python -m mijax.select"):
        draw_splits(cases_of(0, unlabelled=4), labelled=1, validation=1, test=0, seed=0)


CASES = (*cases_of(3, scans=2), Case("bare_0", "bare", False))
GOOD = Splits(
    labelled=("p000_0", "p000_1"), unlabelled=("bare_0",), validation=("p001_0",), test=("p002_0",)
)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"test": ("p009_0",)}, "p009_0 is not in the data set"),
        ({"test": ("p002_0", "p002_0")}, "p002_0 is there 2 times, in test"),
        ({"test": ("p001_0",)}, "p001_0 is there 2 times, in validation and test"),
        ({"unlabelled": ("p001_1",)}, "patient p001 is in unlabelled and in validation"),
        ({"test": ("bare_0",), "unlabelled": ()}, "bare_0 in test has no label"),
        ({"labelled": ()}, "labelled is an empty split"),
        ({"validation": ()}, "validation is an empty split"),
    ],
)
def test_splits_that_are_refused(change, expected):
    check_splits(GOOD, CASES)
    with pytest.raises(UserError, match=expected) as caught:
        check_splits(GOOD._replace(**change), CASES)
    assert "\n" not in str(caught.value)


def test_written_and_read(tmp_path):
    path = tmp_path / "splits.json"
    path.write_text("an older one")
    write_splits(path, GOOD)
    assert read_splits(path) == GOOD
    assert json.loads(path.read_text())["labelled"] == ["p000_0", "p000_1"]
    assert list(tmp_path.iterdir()) == [path]
    assert read_splits(path, CASES) == GOOD


def test_read_splits_that_do_not_fit_the_cases_are_named(tmp_path):
    write_splits(tmp_path / "mine.json", GOOD._replace(test=("bare_0",), unlabelled=()))
    assert read_splits(tmp_path / "mine.json", CASES, complete=False).test == ("bare_0",)
    with pytest.raises(UserError, match="mine.json: splits: case bare_0 in test has no label"):
        read_splits(tmp_path / "mine.json", CASES)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "cannot be read"),
        ("[]", "keys labelled, unlabelled, validation, test"),
        ('{"labelled": []}', "keys labelled"),
        ('{"labelled": [], "unlabelled": [], "validation": "a", "test": []}', '"validation"'),
        ('{"labelled": [1], "unlabelled": [], "validation": [], "test": []}', '"labelled"'),
    ],
)
def test_files_that_are_no_splits(tmp_path, text, expected):
    path = tmp_path / "splits.json"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as caught:
        read_splits(path)
    assert "splits.json" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_splits_file(tmp_path):
    with pytest.raises(UserError, match="splits.json: cannot be read"):
        read_splits(tmp_path / "splits.json")


def test_names_of_a_splits_file_are_in_the_form_of_the_cases(tmp_path):
    names = {"labelled": ["Scha\u0308del"], "unlabelled": [], "validation": ["b"], "test": []}
    (tmp_path / "splits.json").write_text(json.dumps(names), encoding="utf-8")
    splits = read_splits(tmp_path / "splits.json")
    assert splits.labelled == ("Sch\u00e4del",)
    check_splits(splits, [Case("Sch\u00e4del", "p", True), Case("b", "b", True)])
