"""Who may be chosen: training patients without labels, whole, or one line why there are none."""

from types import SimpleNamespace

import pytest

from mijax.data import Case, Splits, check_splits, draw_splits, write_splits
from mijax.errors import UserError
from mijax.selection.candidates import find_candidates

CASES = tuple(Case(f"p{p}_{s}", f"p{p}", p < 4) for p in range(9) for s in range(2))


def data(*, file="", validation=1, test=1):
    splits = {"file": file, "seed": 0, "labelled": 3, "validation": validation, "test": test}
    return SimpleNamespace(splits=SimpleNamespace(**splits))


def given(path, *, labelled=(), unlabelled=("p4", "p5"), validation=("p0",), test=()):
    roles = (labelled, unlabelled, validation, test)
    names = ([f"{p}_{s}" for p in patients for s in range(2)] for patients in roles)
    write_splits(path, Splits(*names))
    return str(path)


def test_those_without_labels_and_the_splits_of_a_training():
    found = find_candidates(data(), CASES, count=5)
    splits = draw_splits(CASES, labelled=0, validation=1, test=1, seed=0)
    assert found.splits == splits and not found.bare and found.drawn
    assert set(found.patients) - set(found.labelled) == {"p4", "p5", "p6", "p7", "p8"}
    assert len(found.labelled) == 2


def test_all_scans_of_a_patient_go_together():
    found = find_candidates(data(), CASES, count=1)
    assert found.scans["p4"] == ("p4_0", "p4_1")
    after = found.chosen(["p4", "p7"])
    assert set(after.labelled) - set(found.splits.labelled) == {"p4_0", "p4_1", "p7_0", "p7_1"}
    assert set(after.unlabelled) == set(found.splits.unlabelled) - set(after.labelled)
    assert after[2:] == found.splits[2:]
    check_splits(after, [case._replace(labelled=True) for case in CASES])


def test_no_label_at_all():
    bare = [case._replace(labelled=False) for case in CASES]
    found = find_candidates(data(), bare, count=7)
    assert found.bare == {*found.splits[2], *found.splits[3]} and not found.labelled
    assert len(found.splits.validation) == len(found.splits.test) == 2
    assert not found.scans.keys() & {n[:2] for n in (*found.splits[2], *found.splits[3])}


def test_a_splits_file_alone_says_who_is_a_candidate(tmp_path):
    file = given(tmp_path / "s.json", labelled=("p1",), unlabelled=("p2", "p5"))
    found = find_candidates(data(file=file), CASES, count=1)
    assert found.patients == ["p1", "p2", "p5"] and found.labelled == ("p1",)
    bare = [case._replace(labelled=False) for case in CASES]
    found = find_candidates(data(file=file), bare, count=1)
    assert found.bare == {"p0_0", "p0_1"} and not found.drawn and not found.set_aside


def test_labels_that_came_after_a_run_count(tmp_path, told):
    file = given(tmp_path / "s.json", labelled=("p1",), unlabelled=("p2", "p5"))
    found = find_candidates(data(), CASES, count=1, given=file)
    assert found.labelled == ("p1", "p2") and found.splits.unlabelled == ("p5_0", "p5_1")
    assert not found.set_aside
    assert told == ["2 case(s) have labels that the run did not learn from: they count"]
    # Where all have some they were set aside to see what they bring.
    everything = [case._replace(labelled=True) for case in CASES]
    found = find_candidates(data(), everything, count=2, given=file)
    assert found.labelled == ("p1",) and found.set_aside
    # One that was taken out of the folder is no candidate.
    found = find_candidates(data(), [c for c in CASES if c.patient != "p2"], count=1, given=file)
    assert found.patients == ["p1", "p5"] and "2 unlabelled case(s) of" in told[-1]
    bare = [case._replace(labelled=False) for case in CASES]
    with pytest.raises(UserError, match="s.json: splits: case p1_0 in labelled has no label"):
        find_candidates(data(), bare, count=1, given=file)


@pytest.mark.parametrize(
    ("count", "splits", "message"),
    [
        (0, {}, "--count=0: must be at least 1"),
        (3, {}, "--count=3, but there are 2 training patients without labels; lower it"),
        (1, {"labelled": ("p1",), "unlabelled": ()}, "all 1 training patients are labelled alrea"),
        (1, {"unlabelled": ("p5", "x")}, "s.json: splits: case x_0 is not in the data set"),
        (1, {"unlabelled": ("p5", "p0")}, "s.json: splits: case p0_0 is there 2 times"),
    ],
)
def test_what_cannot_be_chosen(tmp_path, count, splits, message):
    file = given(tmp_path / "s.json", **splits)
    with pytest.raises(UserError) as caught:
        find_candidates(data(file=file), CASES, count=count)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_all_are_labelled():
    everything = [case._replace(labelled=True) for case in CASES]
    with pytest.raises(UserError, match="all 7 training patients are labelled already; a file"):
        find_candidates(data(), everything, count=1)


def test_too_few_patients_to_choose_from():
    """Of one labelled patient a training draws nothing: its roles have to be given."""
    one = [case._replace(labelled=case.patient == "p0") for case in CASES]
    with pytest.raises(UserError, match="there are 1; annotate more; or give --config.data.splits"):
        find_candidates(data(test=0), one, count=1)
    bare = [case._replace(labelled=False) for case in CASES]
    with pytest.raises(UserError, match="there are 9 patients, and 8 for validation and 1 for te"):
        find_candidates(data(validation=8), bare, count=1)
