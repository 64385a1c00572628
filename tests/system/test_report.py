"""The report: its numbers by another computation, its groups and refusals, its page."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.special import stdtr

from mijax import main
from mijax.configs import phantom
from mijax.data import Drawn, Splits, Volume, write_annotation, write_splits
from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.inference import evaluate
from mijax.inference.trust import Estimate
from mijax.inference.volumes import even_slices
from mijax.report import make_report
from mijax.report.chance import holm, interval, paired_p, resampled_means
from mijax.report.clusters import _slices
from mijax.report.excerpts import choose_slices, make_excerpt, native_slices, thinned
from mijax.report.figures import case_strips, styles
from mijax.report.finding import finding
from mijax.report.formats import latex, to_latex, to_markdown
from mijax.report.illustrator import Illustrator
from mijax.report.joints import validation_slices
from mijax.report.page import narrow_grids, to_html
from mijax.report.predictions import (
    Predictions,
    best_first,
    choose_cases,
    predict,
    scored_predictor,
    source_for,
    unpacked,
)
from mijax.report.ranking import find_ranking
from mijax.report.runs import Row, read_rows
from mijax.report.statistics import make_table
from mijax.report.values import case_means
from mijax.report.viewer import list_cases
from mijax.runs.folder import open_run

CASES = [f"case_{i}" for i in range(7)]
CLASSES = ["body", "core"]
RAS = np.eye(4)


@pytest.fixture
def write(tmp_path):
    """``write(folder, method, dsc, **changes)``: a scored run folder, made by hand.

    ``dsc`` is (cases, classes); distances are (1 − dsc) · 10 mm, undefined where dsc is 0, and
    volumes are those of the annotation, 1 ml.
    Where the configuration asks for no number of labelled cases, ``labelled`` are all there are
    and ``unlabelled`` the others.
    """

    def make(
        folder,
        method="supervised",
        dsc=None,
        *,
        classes=CLASSES,
        split="test",
        data="0",
        labelled=10,
        unlabelled=0,
        options=(),
        **changes,
    ):
        folder = tmp_path / folder
        folder.mkdir()
        config = phantom.get_config(method)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        (folder / "config.json").write_text(config.to_json_best_effort())
        (folder / "info.json").write_text(json.dumps({"data": data}))
        learn = [f"learn_{i}" for i in range(labelled + unlabelled)]
        first = config.data.splits.labelled or labelled
        splits = {"labelled": learn[:first], "unlabelled": learn[first:], "validation": ["c"]}
        (folder / "splits.json").write_text(json.dumps({**splits, "test": CASES}))
        if dsc is None:
            return folder
        cases = {
            case: {
                c: {
                    "dsc": d,
                    "nsd": d,
                    "hd95": 10 * (1 - d) if d else None,
                    "assd": 5 * (1 - d) if d else None,
                    "volume_error": 0.0,
                    "volume": 1.0,
                }
                for c, d in zip(classes, row, strict=True)
            }
            for case, row in zip(CASES, np.asarray(dsc).tolist(), strict=False)
        }
        entry = {"step": 300, "split": split, "mean_dsc": float(np.mean(dsc)),
                 "patients": {case: case for case in cases},
                 "nsd_tolerance": dict.fromkeys(classes, 2), **dict(options),
                 "classes": {name: {"dsc": {"mean": 0.5}} for name in classes},
                 "cases": cases}  # fmt: skip
        scores = {"best": entry, "last": {**entry, "step": config.steps}}
        (folder / "scores.json").write_text(json.dumps(scores))
        return folder

    return make


def drawn(seed, mean):
    return np.clip(np.random.default_rng(seed).normal(mean, 0.05, (len(CASES), 2)), 0.01, 0.99)


@pytest.fixture
def study(write):
    """Full, partial and two methods, two seeds each: folders, and the DSC by row."""
    values, folders = {}, []
    for row, (method, mean, changes) in {
        "Full supervision": ("supervised", 0.9, {"data__splits__labelled": 0}),
        "Partial supervision": ("supervised", 0.6, {}),
        "Mean Teacher": ("mean_teacher", 0.75, {}),
        "Ours (KL)": ("local_mi", 0.78, {}),
    }.items():
        values[row] = np.stack([drawn([seed, *map(ord, row)], mean) for seed in (0, 1)])
        for seed in (1, 0):
            name = f"{row.split()[0]}{seed}"
            folders.append(write(name, method, values[row][seed], seed=seed, **changes))
    return folders, values


def rows_of(folders, **options):
    return read_rows(folders, **{"checkpoint": "best", **options})[0]


# Numbers -----------------------------------------------------------------------------------


def test_means_and_deviations_over_seeds(study):
    folders, values = study
    table = make_table(rows_of(folders))
    assert [row.label for row in table.rows] == list(values)  # the order of the paper
    assert table.columns == ("body", "core", "mean")
    for i, dsc in enumerate(values.values()):
        by_seed = np.concatenate([dsc.mean(1), dsc.mean((1, 2))[:, None]], 1)
        for j, column in enumerate(table.columns):
            cell = table.cells["dsc"][column][i]
            np.testing.assert_allclose(cell.mean, by_seed[:, j].mean())
            np.testing.assert_allclose(cell.std, abs(by_seed[0, j] - by_seed[1, j]) / 2**0.5)
            distance = table.cells["hd95"][column][i]
            np.testing.assert_allclose(distance.mean, 10 * (1 - by_seed[:, j].mean()))


def one_sided_p(better, worse):
    """Of the paired t-test of means over patients that the first are higher."""
    difference = better - worse
    t = difference.mean() / (difference.std(ddof=1) / len(difference) ** 0.5)
    return stdtr(len(difference) - 1, -t)


def test_ours_is_tested_against_each_other_row(study):
    folders, values = study
    table = make_table(rows_of(folders))
    _, partial, teacher, ours = (v.mean((0, 2)) for v in values.values())
    p = [one_sided_p(ours, other) for other in (partial, teacher)]
    assert p[0] < p[1] < 0.05
    corrected = [None, 2 * p[0], max(2 * p[0], p[1]), None]  # Holm; the bound is no competitor
    assert table.tested == 3 and not table.picked
    for metric in ("dsc", "hd95"):  # lower is better, and distances are linear in the DSC here
        cells = table.cells[metric]["mean"]
        assert [cell.best for cell in cells] == [False, False, False, True]
        for cell, expected in zip(cells, corrected, strict=True):
            assert cell.p == (expected and pytest.approx(expected, rel=1e-6))
    assert [cell.significant for cell in table.cells["dsc"]["mean"]] == [False, True, True, False]
    text = to_markdown(table, checkpoint="best")
    assert "p of the t-test that Ours (KL) is better, DSC" in text
    assert "corrected by Holm's method for the number of rows" in text and "flatters it" not in text


def test_another_row_may_be_tested(study):
    folders, values = study
    with pytest.raises(UserError, match="--against: 'Nobody' is none of the rows Full superv.*KL"):
        make_table(rows_of(folders), against="Nobody")
    table = make_table(rows_of(folders), against="Mean Teacher")
    _, partial, teacher, ours = (v.mean((0, 2)) for v in values.values())
    p = {1: one_sided_p(teacher, partial), 3: one_sided_p(teacher, ours)}
    assert p[1] < 0.05 < p[3] and table.tested == 2
    cells = table.cells["dsc"]["mean"]
    assert [cell.p for cell in cells] == [
        None, pytest.approx(2 * p[1], rel=1e-6), None, pytest.approx(p[3], rel=1e-6),
    ]  # fmt: skip
    assert [cell.significant for cell in cells] == [False, True, False, False]
    assert finding(table).endswith(
        "Mean Teacher is significantly better than 1 of the 2 other rows (p < 0.05, corrected for "
        "their number)."
    )


def test_without_ours_the_best_row_is_tested_and_that_is_told(study):
    folders, _ = study
    table = make_table(rows_of(folders[:6]))
    assert table.rows[table.tested].label == "Mean Teacher" and table.picked
    assert "is tested for having the best mean DSC of the same cases, which flatters it" in (
        to_markdown(table, checkpoint="best")
    )


def test_holm_by_hand():
    # In order 4 · 0.005, 3 · 0.01, 2 · 0.03, 1 · 0.04, none below the one before it.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1, 1] and holm([0.2]) == [0.2] and holm([]) == []


def test_a_class_that_no_case_shows_is_in_no_mean(study):
    """Its cases are perfect, or as they were predicted; no mean takes them."""
    folders, values = study
    perfect = {row: np.stack([v[..., 0], np.ones_like(v[..., 0])], -1) for row, v in values.items()}
    for folder in folders:
        scores = json.loads((folder / "scores.json").read_text())
        for entry in scores.values():
            for case in entry["cases"].values():
                case["core"] |= {"dsc": 1.0, "hd95": 0.0, "assd": 0.0}
            entry["classes"]["core"] = {"dsc": {"mean": None, "std": None, "undefined": 7}}
        (folder / "scores.json").write_text(json.dumps(scores))
    table = make_table(rows_of(folders))
    assert table.unseen == ("core",)
    for i, dsc in enumerate(perfect.values()):
        for metric in ("dsc", "hd95", "assd"):
            assert table.cells[metric]["core"][i] == (None, None, 0, False, None, None)
            assert table.cells[metric]["mean"][i] == table.cells[metric]["body"][i]
        np.testing.assert_allclose(table.cells["dsc"]["mean"][i].mean, dsc[..., 0].mean())
    assert table.gaps["core"] == [None] * 4 and table.gaps["mean"] == table.gaps["body"]
    text = to_markdown(table, checkpoint="best")
    assert "No case shows core: undefined, and left out of the mean." in text
    (ours,) = (row for row in table.rows if row.label == "Ours (KL)")
    means = dict(zip(CASES, values["Ours (KL)"][..., 0].mean(0), strict=True))
    assert case_means(ours) == pytest.approx(means)


def test_t_test_without_an_answer():
    worse = np.random.default_rng(0).random(7)
    better = worse + np.linspace(0.1, 0.2, 7)
    assert paired_p(better, better, higher=True) is None
    assert paired_p(better[:6], worse[:6], higher=True) < 0.01
    assert paired_p(better[:5], worse[:5], higher=True) is None  # of fewer than 6 cases
    worse[2:4] = np.nan
    assert paired_p(better, worse, higher=True) is None


def with_patients(folders, patients):
    for folder in folders:
        scores = json.loads((folder / "scores.json").read_text())
        for entry in scores.values():
            entry["patients"] = dict(zip(CASES, patients, strict=True))
        (folder / "scores.json").write_text(json.dumps(scores))


def test_scans_of_one_patient_are_one_sample(study):
    folders, values = study
    with_patients(folders, ["a", "a", "b", "c", "d", "e", "f"])
    table = make_table(rows_of(folders))
    by_case = [v.mean((0, 2)) for v in values.values()]
    _, partial, teacher, ours = (np.array([v[:2].mean(), *v[2:]]) for v in by_case)
    p = [one_sided_p(ours, other) for other in (partial, teacher)]
    cells = table.cells["dsc"]["mean"]
    assert cells[1].p == pytest.approx(2 * p[0], rel=1e-6)
    assert cells[2].p == pytest.approx(max(2 * p[0], p[1]), rel=1e-6)
    # Five patients are too few for a test, seven cases or not.
    with_patients(folders, ["a", "a", "b", "b", "c", "d", "e"])
    table = make_table(rows_of(folders))
    assert all(cell.p is None for cell in table.cells["dsc"]["mean"])
    assert table.samples == [None] * 4
    assert {cell.interval for cell in table.cells["dsc"]["mean"]} == {None}


def test_interval_of_the_mean(study):
    folders, values = study
    table = make_table(rows_of(folders))
    for i, dsc in enumerate(values.values()):
        cases = dsc.mean(2)
        low, high = table.cells["dsc"]["mean"][i].interval
        # The variances of what is drawn add up: means of patients, of seeds, and what is left.
        patients, seeds = cases.mean(0), cases.mean(1)
        left = cases - patients - seeds[:, None] + cases.mean()
        variance = patients.var() / 7 + seeds.var() / 2 + left.var() / 14
        half = 1.96 * variance**0.5
        assert low == pytest.approx(cases.mean() - half, abs=0.2 * half)
        assert high == pytest.approx(cases.mean() + half, abs=0.2 * half)
    # Patients with more scans weigh more, and come with all of them.
    values, patients = np.array([0.0] * 6 + [1.0, 0.5] * 5), ["a"] * 6 + [*"bbccddeeff"]
    low, high = interval(resampled_means(values, patients))
    assert 0.1 < low < values.mean() < high == 0.75
    assert resampled_means(values[:4], patients[:4]) is None and interval(None) is None


def test_gap_closed(study):
    folders, values = study
    table = make_table(rows_of(folders))
    full, partial, teacher, ours = (v.mean() for v in values.values())
    expected = [(m - partial) / (full - partial) for m in (teacher, ours)]
    assert table.gaps["mean"][:2] == [None, None]
    np.testing.assert_allclose(table.gaps["mean"][2:], expected)
    assert make_table(rows_of(folders[2:])).gaps["mean"] == [None] * 3  # no full supervision


def test_gap_is_against_the_baseline_of_the_same_labelled_cases(write):
    folders = [
        write("full", dsc=drawn(0, 0.9), data__splits__labelled=0),
        write("partial2", dsc=drawn(1, 0.5)),
        write("partial4", dsc=drawn(2, 0.7), data__splits__labelled=4),
        write("ours4", "local_mi", drawn(3, 0.8), data__splits__labelled=4),
        write("ours8", "local_mi", drawn(4, 0.8), data__splits__labelled=8),
    ]
    table = make_table(rows_of(folders))
    gaps = dict(zip([row.label for row in table.rows], table.gaps["mean"], strict=True))
    full, partial, ours = (drawn(i, m).mean() for i, m in ((0, 0.9), (2, 0.7), (3, 0.8)))
    expected = (ours - partial) / (full - partial)
    np.testing.assert_allclose(gaps["Ours (KL), labelled=4"], expected)
    assert gaps["Ours (KL), labelled=8"] is None


def test_classes_that_were_not_drawn_are_left_out_and_counted(write):
    first, second = drawn(1, 0.6), drawn(2, 0.8)
    first[0, 1] = second[0, 1] = np.nan
    folders = [write("a", "supervised", first), write("b", "local_mi", second)]
    rows = rows_of(folders)
    table = make_table(rows)
    for i, dsc in enumerate((first, second)):
        body, core, mean = (table.cells["dsc"][column][i] for column in table.columns)
        assert (body.undefined, core.undefined, mean.undefined) == (0, 1, 1)
        np.testing.assert_allclose(core.mean, dsc[1:, 1].mean())
        np.testing.assert_allclose(mean.mean, (body.mean + core.mean) / 2)
        low, high = core.interval
        assert low < core.mean < high
    p = paired_p(second[1:].mean(1), first[1:].mean(1), higher=True)
    np.testing.assert_allclose(table.cells["dsc"]["mean"][0].p, p)
    text = to_markdown(table, checkpoint="best")
    assert "A class that was not drawn in a case has no score there." in text
    assert "nan" not in text
    assert case_strips(table).axes
    first[:3, 1] = second[:3, 1] = np.nan  # which leaves 4 patients
    folders = [write("c", "supervised", first), write("d", "local_mi", second)]
    text = to_markdown(make_table(rows_of(folders)), checkpoint="best")
    assert "\\* p < 0.05 in a one-sided paired t-test" in text  # of the body
    text = to_markdown(make_table(rows_of(folders[:1])), checkpoint="best")
    assert "they take 6 patients with a score of each class, and there are fewer." in text


def test_undefined_distances_are_left_out_and_counted(write):
    dsc = drawn(0, 0.7)
    dsc[2, 0] = 0
    table = make_table(rows_of([write("a", dsc=dsc), write("b", "entropy", drawn(1, 0.6))]))
    cell = table.cells["hd95"]["body"][0]
    assert cell.undefined == 1
    np.testing.assert_allclose(cell.mean, 10 * (1 - np.delete(dsc[:, 0], 2)).mean())
    assert "[1]" in to_markdown(table, checkpoint="best")
    dsc = drawn(0, 0.7)
    dsc[:, 1] = 0
    table = make_table(rows_of([write("c", dsc=dsc)]))
    assert table.cells["hd95"]["core"][0].mean is None
    assert table.cells["hd95"]["mean"][0].mean is None
    assert "–" in to_markdown(table, checkpoint="best")


# The headline ------------------------------------------------------------------------------


def finding_of(folders):
    return finding(make_table(rows_of(folders)))


def test_finding(study):
    folders, values = study
    full, partial, _, ours = (100 * v.mean() for v in values.values())
    gap = round(100 * (ours - partial) / (full - partial))
    assert finding_of(folders) == (
        f"Ours (KL) has the highest mean DSC, {ours:.2f} %, full supervision aside; that is "
        f"{ours - partial:.2f} points above Partial supervision, which has the same labels, and "
        f"closes {gap} % of the gap to full supervision. It is significantly better than "
        "every other row (p < 0.05, corrected for their number)."
    )
    assert finding_of(folders[:2]) == ""


@pytest.mark.parametrize("other", ["supervised", "local_mi"])
def test_beside_the_bound_alone_nothing_is_tested_nor_the_best(write, other):
    full = write("full", dsc=drawn(0, 0.9), data__splits__labelled=0)
    table = make_table(rows_of([full, write("other", other, drawn(1, 0.7))]))
    assert table.comparisons == {} and finding(table) == ""
    text = to_markdown(table, checkpoint="best")
    assert not re.search(r"t-test|Holm|Bold|\*\*\d", text)


def test_where_every_row_is_full_supervision_none_is_set_aside(write):
    everything = {"data__splits__labelled": 0}
    folders = [
        write("full", dsc=drawn(0, 0.7), **everything),
        write("teacher", dsc=drawn(1, 0.9), teacher__decay=0.9, **everything),
    ]
    table = make_table(rows_of(folders))
    assert list(table.comparisons) == [0] and find_ranking(table).places == [1, 0]
    said = finding(table)
    assert said.startswith("Full supervision + MT has the highest mean DSC")
    assert said.endswith("It is significantly better than Full supervision (p < 0.05).")
    text = to_markdown(table, checkpoint="best")
    assert "one-sided paired t-test" in text
    assert "aside" not in said + text and "all but" not in text


def test_finding_where_all_labels_are_few(write):
    """The baseline of 4 labelled and 32 unlabelled cases is a row like others, not set aside."""
    of_the_set = {"data__splits__labelled": 0, "labelled": 4, "unlabelled": 32}
    folders = [
        write("supervised", dsc=drawn(0, 0.72), **of_the_set),
        write("ours", "local_mi", drawn(1, 0.63), **of_the_set),
    ]
    text = finding_of(folders)
    assert text.startswith("Partial supervision has the highest mean DSC")
    assert "it is the baseline that learns from the labels alone." in text
    assert "full supervision" not in text and "4 + 32" in to_markdown(
        make_table(rows_of(folders)), checkpoint="best"
    )


def test_finding_of_few_cases_or_little_difference(write):
    few = [write(f"few{i}", "entropy", drawn(i, 0.6)[:2], seed=i, method__weight=i) for i in (1, 2)]
    assert finding_of(few).endswith("differences are more than chance, 2 patients cannot tell.")
    table = to_markdown(make_table(rows_of(few)), checkpoint="best")
    assert (
        "No t-test, and no intervals: they take 6 patients, and there are 2." in table
        and "p < 0.05" not in table
        and "False claim" not in table
    )
    same = drawn(0, 0.6)
    folders = [
        write("a", "entropy", same),
        write("b", dsc=same[::-1]),
        write("c", "uamt", same - 0.1, data__splits__labelled=4),
    ]
    assert re.search(
        r"It is not significantly better than .* \(p < 0.05\)\.$", finding_of(folders[:2])
    )
    assert finding_of(folders).endswith("only those of the same are like with like.")


def test_what_learned_from_the_scored_labels_is_named(write):
    learning = {"hypergradient__weights": ("mi_weight",)}
    for split in ("test", "validation"):
        folders = [
            write(f"plain-{split}", "local_mi", drawn(0, 0.6), split=split),
            write(f"learning-{split}", "local_mi", drawn(1, 0.6), split=split, **learning),
        ]
        text = to_markdown(make_table(rows_of(folders)), checkpoint="best")
        sentence = "Ours (KL), weights=(mi_weight): the weights of the losses were learned from the"
        assert (sentence in text) == (split == "validation")


def test_estimates_that_were_learned_from_the_scored_cases_are_told(
    write, tmp_path, monkeypatch, png_alone
):
    def seen(rows, **_):
        known = {rows[0].label: {name: Estimate(0.5, 0.4, 0.6) for name in CASES}}
        worst = SimpleNamespace(title="Worst case", case=CASES[0], axis=2)
        return Predictions(("background", *CLASSES), [worst], [], [], [None], known, None)

    monkeypatch.setattr("mijax.report.predictions.predict", seen)
    for name in ("contours", "joint_distributions", "marginals"):
        monkeypatch.setattr(f"mijax.report.illustrator.{name}", lambda *_, **__: Figure())
    for split in ("test", "validation"):
        page = make_report([write(split, dsc=drawn(0, 0.5), split=split)], tmp_path / "report")
        # Of the list of cases and of three figures.
        count = page.read_text().count("The estimate was learned from the DSC of these very cases")
        assert count == (4 if split == "validation" else 0)


# Groups ------------------------------------------------------------------------------------


def test_labels(write):
    runs = {
        "Entropy min.": ("entropy", {}),
        "Mutual information": ("local_mi", {"method__consistency_weight": 0.0}),
        "Consistency reg.": ("local_mi", {"method__mi_weight": 0.0}),
        "UAMT": ("uamt", {}),
        "ICT": ("ict", {}),
        "Cross pseudo supervision": ("cross_pseudo", {}),
        "FixMatch": ("fixmatch", {}),
        "Ours (MSE)": ("local_mi", {"method__consistency": "mse"}),
        "Ours (KL)": ("local_mi", {}),
        "Ours (KL) + MT": ("local_mi", {"teacher__decay": 0.9}),
        "Global + local MI": ("global_local_mi", {}),
        "Local contrast": ("local_contrast", {}),
    }
    folders = [
        write(f"run{i}", method, drawn(i, 0.6), **changes)
        for i, (method, changes) in enumerate(runs.values())
    ]
    assert [row.label for row in rows_of(folders[::-1])] == list(runs)


def test_how_a_run_was_computed_is_no_setting(write):
    changes = {"model__remat": True, "steps_per_dispatch": 1, "stream": False, "predict_batch": 2}
    folders = [write("a", dsc=drawn(0, 0.5)), write("b", dsc=drawn(1, 0.5), seed=1, **changes)]
    (row,) = rows_of(folders)
    assert len(row.runs) == 2


def test_values_of_a_label_have_no_blanks(write):
    folders = [
        write(name, dsc=drawn(0, 0.5), augmentation__scale=scale)
        for name, scale in (("a", (0.8, 1.2)), ("b", (0.7, 1.3)))
    ]
    origin = json.loads(phantom.get_config("local_mi").to_json_best_effort())
    for folder, scale in zip(folders, ([0.5, 1.5], [0.6, 1.4]), strict=True):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"init_from": "x"}))
        before = origin | {"augmentation": origin["augmentation"] | {"scale": scale}}
        (folder / "info.json").write_text(json.dumps({"data": "0", "init_from": before}))
    labels = " ".join(row.label for row in rows_of(folders))
    assert "(0.8,1.2)" in labels and "(0.5,1.5)" in labels


@pytest.mark.parametrize("changes", [{"labelled": 0}, {"file": "mine.json"}])
def test_full_supervision_is_where_nothing_is_unlabelled(write, changes):
    """Not where the configuration takes every label there is, which may be few."""
    changes = {f"data__splits__{key}": value for key, value in changes.items()}
    few = write("few", dsc=drawn(0, 0.9), labelled=4, unlabelled=32, **changes)
    assert rows_of([few])[0].label == "Partial supervision"
    splits = json.loads((few / "splits.json").read_text())
    (few / "splits.json").write_text(json.dumps({**splits, "unlabelled": []}))
    assert rows_of([few])[0].label == "Full supervision"


def test_full_supervision_is_of_all_labels_that_there_are_beside_images_without_one(write):
    """Where another row had fewer of them."""
    full = write("full", dsc=drawn(0, 0.9), unlabelled=6, data__splits__labelled=0)
    folders = [
        full,
        write("partial", dsc=drawn(1, 0.6), unlabelled=6, data__splits__labelled=4),
        write("ours", "local_mi", drawn(2, 0.8), unlabelled=6, data__splits__labelled=4),
    ]
    assert [row.kind for row in rows_of([full])] == ["Partial supervision"]
    table = make_table(rows_of(folders))
    kinds = ["Full supervision", "Partial supervision", "Ours (KL)"]
    assert [row.kind for row in table.rows] == kinds and table.gaps["mean"][2] > 0
    # No bound of what learned from as many.
    more = write("more", "local_mi", drawn(3, 0.8), unlabelled=6, data__splits__labelled=0)
    kinds = {row.kind for row in rows_of([*folders, more])}
    assert kinds == {"Partial supervision", "Ours (KL)"}


def test_a_part_of_an_annotation_is_not_full_supervision_nor_the_same_as_a_whole_one(write):
    whole = {"data__splits__labelled": 0}
    partly = write("partly", dsc=drawn(0, 0.6), **whole)
    ours = write("ours", "local_mi", drawn(1, 0.8), **whole)
    for folder in (partly, ours):
        write_annotation(folder / "annotation.json", {"learn_0": Drawn((1,))})
    assert [row.kind for row in rows_of([partly, ours])] == ["Partial supervision", "Ours (KL)"]
    other = write("other", dsc=drawn(2, 0.6), **whole)  # of a case that it does not learn from
    write_annotation(other / "annotation.json", {"case_0": Drawn((1,))})
    assert [row.kind for row in rows_of([other])] == ["Full supervision"]
    assert "the same labels" in finding_of([partly, ours])
    (partly / "annotation.json").unlink()
    splits = json.loads((ours / "splits.json").read_text()) | {"unlabelled": ["u"]}
    for folder in (partly, ours):
        (folder / "splits.json").write_text(json.dumps(splits))
    text = finding_of([partly, ours])
    assert "the same labels" not in text
    assert text.endswith(
        "Rows differ in what was annotated of their labelled cases: only those of the same are "
        "like with like."
    )


def test_runs_of_other_hyperparameters_are_rows_of_their_own(write):
    elsewhere = {"cache": "elsewhere", "data__source__follow_links": True}
    folders = [
        write("a0", "local_mi", drawn(0, 0.6), seed=0),
        write("a1", "local_mi", drawn(1, 0.6), seed=1, **elsewhere, log_every=10),
        write("b0", "local_mi", drawn(2, 0.6), seed=0, method__weight=0.5),
    ]
    rows = rows_of(folders)
    assert [row.label for row in rows] == ["Ours (KL), weight=0.1", "Ours (KL), weight=0.5"]
    assert [[one.seed for one in row.runs] for row in rows] == [[0, 1], [0]]


def test_short_names_have_what_few_rows_have(write):
    changes = [
        {},
        {"method__weight": 0.5},
        {"method__scale": (0.9, 1.1)},
        {"data__splits__labelled": 4, "method__rotation": 5.0, "augmentation__rotation": 5.0},
        {"data__splits__file": "/data/ours/a.json"},
        {"data__splits__file": "/data/b.json"},
    ]
    folders = [write(f"run{i}", "local_mi", drawn(i, 0.6), **c) for i, c in enumerate(changes)]
    assert [row.label for row in rows_of(folders)] == [
        "Ours (KL)",
        "Ours (KL), weight=0.5",
        "Ours (KL), scale=(0.9,1.1)",
        "Ours (KL), method.rotation=5.0, labelled=4, augmentation.rotation=5.0",
        "Ours (KL), file=ours/a.json",
        "Ours (KL), file=b.json",
    ]


def test_given_names_are_in_the_order_of_the_runs(study):
    folders, _ = study
    rows = rows_of(folders[::-1], names=["λ, slow", "teacher", "baseline", "bound"])
    assert [row.label for row in rows] == ["bound", "baseline", "teacher", "λ, slow"]
    assert [row.kind for row in rows][::3] == ["Full supervision", "Ours (KL)"]
    order = "Full supervision; Partial supervision; Mean Teacher; Ours"
    with pytest.raises(UserError, match=f"one name for each row, not 1; .*: {order}"):
        rows_of(folders, names=["one"])
    for name in ("", "b", "a\nb"):
        with pytest.raises(UserError, match="is empty, there twice or not printable"):
            rows_of(folders, names=["b", "c", "d", name])


def test_colours_of_rows():
    rows = [
        Row(kind + more, kind + more, kind, ())
        for kind in ("Full supervision", "Partial supervision", "Mean Teacher", "A new one", "Ours")
        for more in ("", " + MT")
    ]
    found = styles(rows)
    assert len({(style["color"], style["linestyle"]) for style in found}) == len(rows)
    assert found[0] == {"color": "#000000", "linestyle": "-"}
    assert found[2] == {"color": "#808080", "linestyle": "-"}
    assert found[1] == styles(rows[1:2])[0]  # the others in turn
    many = styles(30 * rows[-1:])
    assert len({tuple(style.values()) for style in many}) == 30


def test_a_folder_stands_for_its_runs_and_a_run_given_twice_counts_once(study, tmp_path):
    folders, _ = study
    rows = rows_of([tmp_path, folders[0]])
    assert sum(len(row.runs) for row in rows) == len(folders)


def test_checkpoint(study):
    folders, _ = study
    assert rows_of(folders)[0].runs[0].entry["step"] == 300
    assert rows_of(folders, checkpoint="last")[0].runs[0].entry["step"] == 400


# Refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"data__source__seed": 1}, "different data sets"),
        ({"classes": ["body", "brain"]}, "different classes"),
        ({"dsc": drawn(0, 0.5)[:-1]}, "different cases"),
        ({"options": {"mirror": True}}, "one was scored with --largest_component or --mirror"),
        ({"split": "validation"}, "different splits"),
        ({"options": {"nsd_tolerance": {"body": 3, "core": 2}}}, "NSD is of different tolerances"),
        ({"data": "1", "seed": 1}, "different data, whose cases have the same names"),
        ({"options": {"data": "1"}}, "other labels or voxel grids when they were scored"),
        ({"name": "twin"}, "same configuration with the same seed 0"),
    ],
)
def test_what_does_not_go_into_one_table_is_refused(write, other, message):
    first = write("first", dsc=drawn(0, 0.5), options={"data": "0"})
    name = other.pop("name", "second")
    second = write(name, **{"dsc": drawn(1, 0.5), **other})
    with pytest.raises(UserError, match=message) as error:
        rows_of([first, second])
    assert "\n" not in str(error.value)
    assert "first" in str(error.value) and name in str(error.value)


def test_an_option_of_the_data_that_one_alone_names_is_no_difference(write):
    """As test_images, of configs/folder.py and not of configs/hippocampus.py."""
    folders = [write(name, name, drawn(0, 0.5)) for name in ("uamt", "ict")]
    path = folders[1] / "config.json"
    config = json.loads(path.read_text())
    config["data"]["source"]["test_images"] = True
    path.write_text(json.dumps(config))
    assert len(rows_of(folders)) == 2


def test_an_older_run_before_them_hides_no_difference(write):
    folders = [write("older", dsc=drawn(0, 0.5))]
    folders += [
        write(name, name, drawn(1, 0.5), options={"data": name}) for name in ("uamt", "ict")
    ]
    with pytest.raises(UserError, match=r"uamt and .*ict .* other labels or voxel grids"):
        rows_of(folders)


@pytest.mark.parametrize("volume", [1.0, None])
def test_cases_that_were_annotated_otherwise_are_refused(write, volume):
    folders = [write(name, method, drawn(0, 0.5)) for name, method in (("a", "uamt"), ("b", "ict"))]

    def note(folder, value):
        scores = json.loads((folder / "scores.json").read_text())
        scores["best"]["cases"]["case_3"]["core"] |= {"volume": value}
        (folder / "scores.json").write_text(json.dumps(scores))

    note(folders[0], 2.0)
    note(folders[1], 2.0 + 1e-12)
    assert len(rows_of(folders)) == 2
    note(folders[1], volume)
    with pytest.raises(UserError, match="core of case case_3 was annotated otherwise"):
        rows_of(folders)
    for folder in folders:
        note(folder, None)
    assert len(rows_of(folders)) == 2


def test_runs_that_have_grown_from_one_at_different_times_are_two_rows(write):
    folders = [write(name, dsc=drawn(0, 0.5), grow_from=f"/{name}") for name in "ab"]
    path = folders[1] / "splits.json"
    splits = json.loads(path.read_text())
    path.write_text(json.dumps(splits | {"labelled": [*splits["labelled"], "new_0", "new_1"]}))
    labels = [row.label for row in rows_of(folders)]
    numbers = [len(splits["labelled"]) + more for more in (0, 2)]
    assert [str(n) in label for n, label in zip(numbers, labels, strict=True)] == [True, True]
    path.write_text(json.dumps(splits))
    with pytest.raises(UserError, match="same configuration with the same seed"):
        rows_of(folders)


def test_seeds_that_have_grown_twice_of_partly_annotated_runs_are_one_row(write):
    """Each from runs of its own seed; and one that streamed its data is a seed as well."""
    folders = []
    for seed in (0, 1):
        before, now = f"/first-{seed}", f"/second-{seed}"
        file = {"data__annotation__file": f"{now}/annotation.json", "stream": bool(seed)}
        grown = {"grow_from": now, "init_from": now, **file}
        folders.append(write(f"third-{seed}", dsc=drawn(seed, 0.5), seed=seed, **grown))
        origin = phantom.get_config("supervised")
        origin.seed, origin.grow_from, origin.init_from = seed, before, before
        info = json.loads((folders[-1] / "info.json").read_text())
        info["init_from"] = json.loads(origin.to_json_best_effort())
        (folders[-1] / "info.json").write_text(json.dumps(info))
    (row,) = rows_of(folders)
    assert [one.seed for one in row.runs] == [0, 1]


@pytest.mark.parametrize("other", [{"labelled": 9}, {"unlabelled": 4}, {"drawn": True}])
def test_runs_of_other_training_cases_are_no_seeds_of_a_row(write, other):
    drawn_in_part, given = other.pop("drawn", False), {"data__splits__labelled": 0}
    folders = [write("a", dsc=drawn(0, 0.5), **given)]
    folders.append(write("b", dsc=drawn(1, 0.5), seed=1, **given, **other))
    if drawn_in_part:
        (folders[1] / "annotation.json").write_text('{"learn_0": {"slices": [1]}}')
    with pytest.raises(UserError, match="/a and .*/b differ in their training cases, .* alone"):
        rows_of(folders)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"last": {}}', '{"best": {"classes": {}}}'])
def test_damaged_scores_are_refused(write, content):
    folder = write("a", dsc=drawn(0, 0.5))
    (folder / "scores.json").write_text(content)
    with pytest.raises(UserError, match=r"scores.json is damaged .* python -m mijax.evaluate"):
        rows_of([folder])


def test_a_run_without_scores_is_named_and_left_out(write, tmp_path, told):
    scored, under_way = write("a", dsc=drawn(0, 0.5)), write("b")
    rows, left_out = read_rows([scored, under_way], checkpoint="best")
    assert len(rows) == 1 and left_out == [under_way]
    assert told == [f"{under_way} is left out: it has no scores.json yet"]
    with pytest.raises(UserError, match="none of the runs is finished and scored"):
        read_rows([under_way], checkpoint="best")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty is not a run and holds none"):
        rows_of([tmp_path / "empty"])


def test_a_run_that_was_scored_before_its_end_is_named_and_left_out(write, told):
    done, stopped = write("a", dsc=drawn(0, 0.5)), write("b", dsc=drawn(1, 0.5), seed=1)
    scores = json.loads((stopped / "scores.json").read_text())
    scores["last"]["step"] = 399
    (stopped / "scores.json").write_text(json.dumps(scores))
    (row,), left_out = read_rows([done, stopped], checkpoint="best")
    assert len(row.runs) == 1 and left_out == [stopped]
    assert told == [f"{stopped} is left out: its scores are of an unfinished training"]


# Files -------------------------------------------------------------------------------------


def test_latex_escapes():
    assert latex(r"a_b & 50% #1 $x$ {y} ~^\ –") == (
        r"a\_b \& 50\% \#1 \$x\$ \{y\} \textasciitilde{}\textasciicircum{}\textbackslash{} --"
    )
    assert latex("[12] UAMT") == "{}[12] UAMT"  # no option of the end of the line before


def test_latex_table(study):
    folders, values = study
    text = to_latex(make_table(rows_of(folders)), checkpoint="best")
    assert "p $<$ 0.05" in text
    # Five metrics, the tests of ours, p by class, and best and last.
    for one in (r"\toprule", r"\bottomrule", r"\begin{table}", r"\end{tabular}}", r"\caption"):
        assert text.count(one) == 8
    ours = next(line for line in text.splitlines() if line.startswith("Ours (KL) &"))
    by_seed = 100 * values["Ours (KL)"].mean((1, 2))
    mean = f"{by_seed.mean():.2f} ({by_seed.std(ddof=1):.2f})"
    assert rf"\textbf{{{mean}}}" in ours and ours.count("&") == 7 and ours.endswith(r"\\")


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex")
def test_latex_typesets_it_within_the_page(study, tmp_path):
    folders, _ = study
    (tmp_path / "table.tex").write_text(to_latex(make_table(rows_of(folders)), checkpoint="best"))
    packages = r"\usepackage{booktabs,graphicx}"
    (tmp_path / "paper.tex").write_text(
        rf"\documentclass{{article}}{packages}\begin{{document}}\input{{table}}\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and (tmp_path / "paper.pdf").exists()
    assert "Overfull" not in done.stdout and "too large" not in done.stdout


def test_cases_csv(study, tmp_path, png_alone):
    folders, values = study
    make_report(folders, tmp_path / "report", predictions=False)
    with (tmp_path / "report" / "cases.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(folders) * len(CASES) * len(CLASSES)
    for line in lines:
        dsc = values[line["method"]][int(line["seed"]), CASES.index(line["case"])]
        assert float(line["dsc"]) == dsc[CLASSES.index(line["class"])]


class References(HTMLParser):
    """Everything that a page refers to, and that its tags are closed in order."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self, text):
        super().__init__()
        self.found, self.open = [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.found += [
            (tag, value)
            for name, value in attributes
            if name in ("src", "href", "srcset", "action", "data", "poster")
        ]
        assert tag not in ("iframe", "object", "embed", "link")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def assert_self_contained(page):
    text = page.read_text(encoding="utf-8")
    assert "url(" not in text and "@import" not in text
    for tag, target in References(text).found:
        if tag == "a":
            assert (page.parent / target).exists()
        else:
            assert target.startswith("data:image/webp;base64,")
    return text


def test_page_refers_to_nothing_outside_and_says_what_is_missing(
    study, tmp_path, monkeypatch, told, png_alone
):
    def unreachable(*_):
        raise UserError("no folder <lost> & found")

    monkeypatch.setattr("mijax.report.predictions.open_data", unreachable)
    folders, _ = study
    page = make_report(folders, tmp_path / "report")
    text = assert_self_contained(page)
    assert "no folder &lt;lost&gt; &amp; found" in text
    assert len(told) == 1 and "no folder <lost> & found" in told[0]
    assert "No learning curves" in text
    assert {f.name for f in page.parent.iterdir()} == {
        "index.html", "table.md", "table.tex", "table.csv", "cases.csv", "figures",
    }  # fmt: skip


def test_a_report_where_nothing_but_ascii_can_be_shown(write, tmp_path):
    run = write("Großhirn", dsc=drawn(0, 0.5), classes=["Großhirn", "$x$"], name="Schädel")
    locale = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-m", "mijax.report", run]  # into the folder report in it
    done = subprocess.run(
        [*command, "--nopredictions"],
        env={**os.environ, **locale},
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(rb"Gro\?+hirn.report.index.html\n$", done.stdout)
    text = assert_self_contained(run / "report" / "index.html")
    assert "Großhirn, $x$" in text and "<b>Schädel</b>" in text
    figures = list((run / "report" / "figures").iterdir())
    assert {f.suffix for f in figures} == {".pdf", ".svg", ".png"}
    assert len(figures) == 3 * len({f.stem for f in figures})
    assert "Großhirn" in (run / "report" / "table.tex").read_text(encoding="utf-8")


def test_a_table_of_many_columns_is_divided():
    header = ["Method", *map(str, range(14))]
    rows = [[f"{row}{column}" for column in header] for row in "ab"]
    parts = narrow_grids("DSC", header, rows)
    assert [title for title, *_ in parts] == ["DSC", "DSC, continued", "DSC, continued"]
    assert [len(head) for _, head, _ in parts] == [6, 6, 5]
    assert [column for _, head, _ in parts for column in head[1:]] == header[1:]
    for _, head, lines in parts:
        assert lines == [[f"{row}{column}" for column in head] for row in "ab"]
    assert narrow_grids("DSC", header[:9], [row[:9] for row in rows]) == [
        ("DSC", header[:9], [row[:9] for row in rows])
    ]


def test_page_escapes_what_it_is_given(write):
    script = "<script>alert(1)</script>"
    run = write("a<b>", dsc=drawn(0, 0.5), name=script, classes=["body", script])
    rows, nothing = rows_of([run]), Illustrator()
    table = make_table(rows)
    text = to_html(
        rows,
        table,
        checkpoint="best",
        listed=list_cases(table, None, {}),
        illustrator=nothing,
        left_out=[Path("<i>")],
        files=[],
    )
    assert "<script>alert" not in text and "a<b>" not in text and "<i>" not in text
    assert "&lt;script&gt;" in text and "a&lt;b&gt;" in text and "&lt;i&gt;" in text


def test_of_an_earlier_report_nothing_stays_and_of_others_everything(study, tmp_path, png_alone):
    output = tmp_path / "report"
    (output / "figures").mkdir(parents=True)
    foreign, stale = ("figures/mine.png", "mine.tex"), ("figures/trust.png", "measures.csv")
    for name in (*foreign, *stale):
        (output / name).touch()
    make_report(study[0], output, predictions=False)
    assert all((output / name).exists() for name in foreign)
    assert not any((output / name).exists() for name in stale)


def test_a_figure_that_fails_is_noted(study, tmp_path, monkeypatch, told, png_alone):
    def fails(*_):
        raise ValueError("<nothing> to draw")

    monkeypatch.setattr("mijax.report.illustrator.case_strips", fails)
    page = make_report(study[0], tmp_path / "report", predictions=False)
    reason = "figure cases: ValueError: &lt;nothing&gt; to draw."
    assert f"No {reason}" in page.read_text() and len(told) == 1
    assert {f.name for f in (page.parent / "figures").iterdir()} == {"ranking.png", "volumes.png"}


def test_an_output_that_cannot_be_written_is_one_line(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to .*file"):
        make_report(study[0], tmp_path / "file", predictions=False)


# With networks -----------------------------------------------------------------------------


def test_cases_chosen(study):
    folders, values = study
    means = np.mean([v.mean((0, 2)) for v in values.values()], 0)
    order = [CASES[i] for i in np.argsort(-means)]
    chosen = {"Best case": order[0], "Median case": order[3], "Worst case": order[6]}
    assert choose_cases(rows_of(folders)) == chosen


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_some_slices_of_a_label_map(plane, tiny):
    """They are those of the whole volume, whichever way that faces."""
    rng = np.random.default_rng(0)
    slices = tiny("local_mi", data__patches__plane=plane).data.patches
    affine = np.array([[0, 0, -2, 0], [1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
    image = rng.normal(size=(6, 7, 8, 1)).astype(np.float32)
    volume = Volume("a", image, rng.integers(0, 3, (6, 7, 8)).astype(np.uint8), affine)
    cut = slice_volume(volume, slices)
    for places in ([0], [1, 3, 4]):
        thin = thinned(volume, volume.label, cut.grid, places)
        np.testing.assert_array_equal(slice_volume(thin, slices).label, cut.label[places])
    # As files are numbered: y goes with the first axis, x down the third, z down the second.
    expected = {"axial": [6, 4], "coronal": [0, 2], "sagittal": [7, 5]}[plane]
    assert native_slices(cut.grid, [0, 2]) == expected


@pytest.mark.parametrize("fit", ["pad", "crop", "resize"])
def test_cases_that_exceed_a_slice_and_those_without_foreground_are_shown(tiny, tmp_path, fit):
    run = SimpleNamespace(folder=tmp_path, config=tiny("local_mi", data__patches__fit=fit))
    volumes = {
        name: Volume(name, np.zeros((*size, 4, 1), np.float32), np.zeros((*size, 4), np.uint8), RAS)
        for name, size in {"small": (30, 20), "large": (40, 35)}.items()
    }
    write_splits(tmp_path / "splits.json", Splits((), (), tuple(volumes), ()))
    source, slices = SimpleNamespace(volume=volumes.get, classes=CLASSES), run.config.data.patches
    images, truth = validation_slices(source, run)
    assert images.shape == (8, 32, 32, 1) and truth.shape == (8, 32, 32, 2)
    assert even_slices(volumes.values(), slices, count=5).shape == (5, 32, 32, 1)
    assert _slices([*volumes.values()], slices)[0].shape == (2, 32, 32, 1)
    large = volumes["large"]
    shown = make_excerpt("Worst case", large, slices, [large.label], [0.5])
    size = (40, 35) if fit == "pad" else (32, 32)
    assert shown.image.shape == shown.truth.shape == shown.labels[0].shape == (3, *size)


def test_images_without_their_bias_field_are_of_a_source_of_their_own(tiny, monkeypatch):
    monkeypatch.setattr("mijax.report.predictions.source_of", lambda run, _: run)
    plain, corrected = (
        SimpleNamespace(config=tiny("local_mi", data__patches__bias_correction=x))
        for x in (False, True)
    )
    assert source_for(plain, "first", plain, None) == "first"
    assert source_for(corrected, "first", plain, None) is corrected


def test_slices_chosen():
    label = np.zeros((12, 4, 4))
    label[3:9] = 1
    assert choose_slices(label) == [4, 6, 7]
    assert choose_slices(label[:4]) == [3]
    assert choose_slices(0 * label) == [3, 6, 9]


def test_report_of_a_run(copied, monkeypatch, png_alone):
    """All figures of one real run, and that they show its label maps and its probabilities."""
    monkeypatch.setattr("mijax.inference.calibration.LEAST", 2)  # as many as it has for validation
    run = copied("local_mi")
    (run.folder / "trust.json").unlink(missing_ok=True)
    evaluate(run)
    page = make_report([run.folder], run.folder / "report")
    text = assert_self_contained(page)
    files = {f.name for f in (page.parent / "figures").iterdir()}
    names = {
        "cases", "curves", "contours_best", "contours_worst", "joint", "marginals", "trust",
        "risk_coverage", "volumes", "reliability",
    }  # fmt: skip
    assert files == {f"{name}.png" for name in names}
    assert text.count("<img decoding") == len(names)
    assert "<h1>Ours (KL)</h1>" in text

    rows = rows_of([run.folder])
    found = predict(rows, data_dir=None, cases=0)
    assert found.notes == []
    predictor, (seen,) = scored_predictor(rows[0].runs[0]), found.maps
    assert (
        list(seen) == best_first(rows)[::-1] and found.estimates["Ours (KL)"].keys() == seen.keys()
    )
    assert len(list((page.parent / "viewer").glob("case_*.js"))) == len(seen)
    volumes = [found.volume(name) for name in seen]
    for maps, (labels, _) in zip(seen.values(), predictor.segment(volumes), strict=True):
        np.testing.assert_array_equal(unpacked(maps.labels, labels.shape), labels)
    for excerpt in found.excerpts:
        assert excerpt.labels[0].shape == excerpt.truth.shape == excerpt.image.shape
        assert len(excerpt.numbers) == len(excerpt.truth) and excerpt.axis == 2
    true, ours = found.joints
    k = len(found.classes)
    assert ours.joint.shape == (3, 3, k, k)
    np.testing.assert_allclose(ours.joint.sum((2, 3)), 1, rtol=1e-5)
    assert true.joint[1, 1].trace() == pytest.approx(1)  # a label agrees with itself
    assert 0 <= ours.information < true.information

    path = run.folder / "trust.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"step": 1}))
    (note,) = predict(rows, data_dir=None, cases=1).notes
    assert note.startswith(
        "Ours (KL): the estimated DSC were learned with the checkpoint of step 1,"
    )
    path.unlink()
    found = predict(rows, data_dir=None, cases=1)
    (note,) = found.notes
    assert not found.estimates and note.startswith("Ours (KL) is missing among the estimated DSC: ")
    assert note.endswith(f"python -m mijax.evaluate --workdir {run.folder} writes it")


def test_a_row_without_its_checkpoint_is_noted(copied, png_alone):
    run = copied("local_mi")
    scores = evaluate(run)
    scores["best"]["step"] = 3
    (run.folder / "scores.json").write_text(json.dumps(scores))
    page = make_report([run.folder], run.folder / "report")
    assert "has no sound checkpoint of step 3" in page.read_text()


def test_a_report_that_is_interrupted_leaves_no_page_beside_other_files(study, tmp_path, png_alone):
    options = {"output": tmp_path / "report", "predictions": False}
    page = make_report(study[0][:2], **options)
    before = {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Illustrator, "draw_logs", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make_report(study[0], **options)
    assert before == {path: path.read_bytes() for path in page.parent.rglob("*") if path.is_file()}


def test_a_report_that_fails_does_not_fail_the_training(write, told, monkeypatch):
    def fail(*arguments, **options):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr("mijax.report.make_report", fail)
    run, asked = open_run(write("a", dsc=drawn(0, 0.5))), {}
    main._report(run)
    assert told == ["no report (ZeroDivisionError: by nothing)"]

    monkeypatch.setattr("mijax.report.make_report", lambda *_, **options: asked.update(options))
    for given, wanted in (("", None), ("/moved", "/moved")):
        run.config.data.source.dir = given
        main._report(run)
        assert asked == {"data_dir": wanted}
