"""Runs that go on with more labels, on the cases that the run before them held out."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mijax.data import Case, Drawn, Splits, read_splits, write_annotation, write_splits
from mijax.errors import UserError
from mijax.files import write_json
from mijax.report.figures import styles
from mijax.report.growth import caption, find_growth, growth_curve
from mijax.report.illustrator import Illustrator
from mijax.runs.annotation import settle_annotation
from mijax.runs.folder import Run, open_run, start_run
from mijax.runs.growth import (
    check_annotation_follows,
    grown_config,
    grown_splits,
    noted_lineage,
)
from mijax.runs.info import check_grown
from mijax.runs.source import index_data, open_data
from mijax.runs.splits import settle_splits
from mijax.training import loop, train

BEFORE = Splits(("a",), ("b", "c"), ("v",), ("t",))


def cases(labels, **patients):
    """A case a letter, with a label where it is a capital."""
    return [Case(x.lower(), patients.get(x.lower(), x.lower()), x.isupper()) for x in labels]


@pytest.fixture
def before(tmp_path):
    write_splits(tmp_path / "splits.json", BEFORE)
    return tmp_path


def test_validation_and_test_stay_and_new_labels_come(before, told):
    found = grown_splits(before, cases("ABcVTDe"))
    assert found == Splits(("a", "b", "d"), ("c", "e"), ("v",), ("t",))
    assert told == [f"grown from {before}: 1 labelled cases and 2 more"]


def test_new_scans_of_those_held_out_are_left_out(before, told):
    found = grown_splits(before, cases("ABcVTDe", d="t", e="v"))
    assert found == Splits(("a", "b"), ("c",), ("v",), ("t",))
    assert told[0].startswith("2 new scan(s) of validation or test patients are left out (d, …)")


def test_labels_stay_when_a_patient_is_scanned_again(before, told):
    found = grown_splits(before, cases("ABcVTDe", d="a", e="a"))
    assert found == Splits(("a", "b", "d"), ("c",), ("v",), ("t",))
    assert told[0] == "1 new scan(s) without a label, of labelled patients, are left out (e, …)"


def test_unlabelled_cases_may_be_taken_out(before, told):
    found = grown_splits(before, cases("ABVT"))
    assert found == Splits(("a", "b"), (), ("v",), ("t",))
    assert told[0] == f"1 unlabelled case(s) of {before}/splits.json are gone (c, …)"


def test_a_patient_counts_when_all_scans_have_labels(before):
    found = grown_splits(before, cases("ABcVTD", c="b"))
    assert found.labelled == ("a", "d") and found.unlabelled == ("b", "c")


def test_a_file_says_who_is_labelled(before, tmp_path):
    path = tmp_path / "more.json"
    write_splits(path, BEFORE._replace(labelled=("a", "c"), unlabelled=("b",)))
    assert grown_splits(before, cases("ABCVT"), file=path).labelled == ("a", "c")


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        (BEFORE._replace(test=("b",), unlabelled=("c",)), "more.json: has other test cases than"),
        (BEFORE._replace(validation=("v", "b"), unlabelled=()), "other validation cases"),
        (Splits(("b",), ("a",), ("v",), ("t",)), r"1 case\(s\) are not labelled that .* \(a, …\)"),
        (BEFORE, "config.grow_from: no training case has got a label since .*, which has 1"),
        (BEFORE._replace(labelled=("a", "z")), "more.json: splits: case z is not in the data set"),
    ],
)
def test_files_that_do_not_follow(before, tmp_path, splits, message):
    path = tmp_path / "more.json"
    write_splits(path, splits)
    with pytest.raises(UserError, match=message):
        grown_splits(before, cases("ABCVT"), file=path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("AbcVT", "no training case has got a label"),
        ("ABcV", "case t is not in the data set"),
        ("BcVT", "config.grow_from: .*splits.json: splits: case a is not in the data set"),
    ],
)
def test_data_that_did_not_grow(before, labels, message):
    with pytest.raises(UserError, match=message):
        grown_splits(before, cases(labels))


def test_more_slices_of_the_same_cases_are_new_labels(before, tmp_path, told):
    labels, same, more = cases("AbcVT"), before / "annotation.json", tmp_path / "more.json"
    write_annotation(same, {"a": Drawn(slices=(1, 2))})
    write_annotation(more, {"a": Drawn(slices=(1, 2, 3))})
    assert grown_splits(before, labels, annotation=more) == BEFORE
    assert grown_splits(before, labels) == BEFORE  # all of them
    assert told[-1] == f"grown from {before}: 1 labelled cases and 0 more"
    with pytest.raises(UserError, match="no training case has got a label"):
        grown_splits(before, labels, annotation=same)


@pytest.mark.parametrize("name", ["v", "t"])
def test_the_annotation_of_those_held_out_stays(before, name):
    drawn = {name: Drawn(slices=(1, 2))}
    write_annotation(before / "annotation.json", drawn)
    for other in ({"a": Drawn(slices=(1,)), name: Drawn(slices=(1, 2, 3))}, {}):
        with pytest.raises(UserError, match=f"case {name} is held out, and its annotation is of"):
            check_annotation_follows(before, other)
    check_annotation_follows(before, {"a": Drawn(slices=(1,)), **drawn})


def test_an_annotation_is_given_again_until_there_is_a_checkpoint(tiny, tmp_path, saved):
    before, given, config = tmp_path / "before", tmp_path / "given.json", tiny("supervised")
    found, drawn = index_data(config), {"phantom_0001": Drawn((1,)), "phantom_0003": Drawn((2,))}
    names = [case.name for case in found.cases]
    before.mkdir()
    write_splits(before / "splits.json", Splits(names[1:2], names[4:], names[2:3], names[3:4]))
    write_annotation(before / "annotation.json", drawn)
    config.grow_from = str(before)
    run = start_run(tmp_path / "run", config)
    with pytest.raises(UserError, match=r"give --config.data.annotation.file=.*/before/annotation"):
        settle_annotation(run, found)
    config.data.annotation.file = str(given)
    for changed in ({}, drawn | {"phantom_0003": Drawn((1, 2))}):
        write_annotation(given, changed)
        with pytest.raises(UserError, match="case phantom_0003 is held out"):
            settle_annotation(run, found)
        assert not (run.folder / "annotation.json").exists()
    write_annotation(given, drawn | {"phantom_0001": Drawn((1, 2))})
    settle_splits(run, found.cases)
    settle_annotation(run, found)
    write_annotation(given, {})  # the splits are settled, and this is read once more
    settle_splits(run, found.cases)
    with pytest.raises(UserError, match="case phantom_0003 is held out"):
        settle_annotation(run, found)
    saved(run)
    assert settle_annotation(run, found).cases["phantom_0001"] == Drawn((1, 2))


@pytest.mark.xdist_group("runs")
def test_begins_with_all_weights_and_knows_where_they_are_from(
    copied, restored, saved, tmp_path, told, monkeypatch
):
    old = copied("supervised")
    (old.folder / "scores.json").unlink(missing_ok=True)
    for step in (None, 8, 12):
        if step:
            entries = {"last": {"step": step, "mean_dsc": None}, "best": {"mean_dsc": 0.5}}
            write_json(old.folder / "scores.json", entries)
        if step != 12:
            with pytest.raises(UserError, match="copy is not finished and scored; .* goes on"):
                grown_config(old.folder)
    with pytest.raises(UserError, match="nowhere.json: cannot be read as an annotation"):
        grown_config(old.folder, annotation=tmp_path / "nowhere.json")
    splits = read_splits(old.folder / "splits.json")
    more = splits._replace(
        labelled=(*splits.labelled, splits.unlabelled[0]), unlabelled=splits.unlabelled[1:]
    )
    write_splits(tmp_path / "more.json", more)
    config = grown_config(old.folder, splits=tmp_path / "more.json")
    run = start_run(tmp_path / "run", config)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_loop", lambda *arguments: arguments)
        state = jax.device_get(train(run)[3])
    saved(run)
    _, origin = restored(old, "best")
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, origin.params))
    assert read_splits(run.folder / "splits.json") == more
    (ancestor,) = noted_lineage(run)
    assert ancestor.folder == str(old.folder.resolve())
    assert ancestor.labelled == len(splits.labelled) and ancestor.scores == {"best": 0.5}
    write_json(run.folder / "scores.json", {"last": {"step": 12}})
    # As it began itself, not with the weights of what it has grown from.
    assert grown_config(run.folder, weights=False).init_from == ""
    # A run stays as it is, whatever gets a label then.
    run.config.data.splits.file = ""
    assert settle_splits(run, open_data(run.config).cases) == more
    assert "have got labels since" in told[-1] and f"--grow {run.folder} --workdir NEW" in told[-1]
    again = start_run(run.folder, open_run(run.folder).config)
    assert again.config.grow_from == str(old.folder.resolve())


@pytest.mark.xdist_group("runs")
def test_says_when_validation_cases_were_annotated_anew(copied, told):
    old = copied("supervised")
    run = SimpleNamespace(config=SimpleNamespace(grow_from=str(old.folder)))
    source = open_data(old.config)
    volumes = [source.volume(n) for n in read_splits(old.folder / "splits.json").validation]
    check_grown(run, volumes)
    check_grown(old, volumes[:0])
    assert not told
    check_grown(run, [volumes[0]._replace(label=1 - np.minimum(volumes[0].label, 1)), *volumes[1:]])
    assert told == [
        "the validation cases have other labels or voxel grids than in "
        f"{old.folder}, so that its scores and those of this run do not compare"
    ]


def row(points, label="ours"):
    """A run that has grown over these numbers of labels and DSC."""
    *ancestors, (labelled, dsc) = points
    info = {
        "lineage": [
            {"folder": "x", "labelled": n, "scores": {"best": d}, "terms": {}} for n, d in ancestors
        ]
    }
    run = SimpleNamespace(info=lambda: info)
    splits = SimpleNamespace(labelled=range(labelled))
    one = SimpleNamespace(run=run, entry={"mean_dsc": dsc}, splits=splits)
    return SimpleNamespace(runs=[one], label=label, base=label)


def test_what_more_labels_are_expected_to_bring():
    growth = find_growth(row([(2, 0.5), (4, 0.6), (8, 0.7), (12, 0.8)]), checkpoint="best")
    assert growth.more == 4
    x, y = np.log2([2, 4, 8, 12]), np.array([50, 60, 70, 80])
    slope = np.sum((x - x.mean()) * y) / np.sum((x - x.mean()) ** 2)
    np.testing.assert_allclose(growth.gain, slope * np.log2(16 / 12))
    low, high = growth.interval
    assert low < growth.gain < high and high - low < 10
    exact = find_growth(row([(2, 0.5), (4, 0.6), (8, 0.7), (16, 0.8)]), checkpoint="best")
    np.testing.assert_allclose((exact.gain, *exact.interval), 100 * 0.1 * np.log2(24 / 16))
    text = caption([SimpleNamespace(label="ours")], [growth])
    assert f"the next 4 are expected to bring {growth.gain:+.1f} points (95 % interval" in text
    axes = growth_curve([row([(2, 0.5), (4, 0.6)])], [growth], [{"color": "red"}]).axes[0]
    assert axes.lines[0].get_xdata().tolist() == [2, 4, 8, 12]


def test_only_scores_that_compare_make_a_curve():
    one = row([(2, 0.5), (4, 0.6), (8, 0.7)])
    first, second = one.runs[0].run.info()["lineage"]
    first["terms"] = {"best": {"data": "a", "mirror": False}}
    second["terms"] = {"best": {"data": "a", "mirror": True}}
    one.runs[0].entry |= {"data": "a", "mirror": False}
    assert find_growth(one, checkpoint="best").labelled.tolist() == [2, 8]
    first["terms"]["best"]["data"] = "b"  # annotated anew since
    assert find_growth(one, checkpoint="best") is None


def test_a_row_has_its_colour_where_others_did_not_grow(monkeypatch):
    rows, drawn = [row([(2, 0.5)], "a"), row([(2, 0.5), (4, 0.6)], "b")], []
    monkeypatch.setattr(Illustrator, "_add", lambda self, *what: drawn.append(what[-1]))
    Illustrator().draw_growth(rows, checkpoint="best")
    assert drawn[0].axes[0].lines[0].get_color() == styles(rows)[1]["color"]


def test_too_few_scores_for_an_interval(tmp_path):
    growth = find_growth(row([(2, 0.5), (4, 0.6)]), checkpoint="best")
    assert growth.interval is None
    assert "(2 scores, too few for an interval)" in caption([SimpleNamespace(label="")], [growth])
    assert find_growth(row([(4, 0.6)]), checkpoint="best") is None
    assert find_growth(row([(4, None)]), checkpoint="best") is None
    nothing = row([(2, 0.5), (4, 0.6)])
    nothing.runs[0].run = Run(tmp_path, None)  # without an info.json
    assert find_growth(nothing, checkpoint="best") is None
    assert find_growth(row([(2, 0.5), (4, 0.6)]), checkpoint="last") is None


def test_the_command_refuses(run_here, tmp_path):
    code, out, (line,) = run_here("mijax.main", "--grow", tmp_path / "nowhere", "--workdir=x")
    assert (code, out) == (1, "") and "nowhere is not a run: it has no config.json" in line


@pytest.mark.parametrize(
    ("flag", "other"),
    [("--annotation=a.json", "data.annotation.file"), ("--splits=s.json", "data.splits.file"),
     ("--noweights", "init_from")],
)  # fmt: skip
def test_flags_of_growing_are_refused_without_it(run_here, tmp_path, flag, other):
    code, out, (line,) = run_here("mijax.main", f"--workdir={tmp_path}", flag)
    assert (code, out) == (2, "") and line.endswith(f"of a new run it is --config.{other}")
