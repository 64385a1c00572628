"""What a report says of chance, volumes and probabilities, by other computations."""

import csv
import io
import itertools
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
from scipy.special import stdtr

from mijax.data import Splits
from mijax.inference.calibration import Estimate
from mijax.report.calibration import reliability_diagram
from mijax.report.chance import false_claim, resampled_means, wilcoxon_p
from mijax.report.evidence import EVIDENCE
from mijax.report.figures import STYLE
from mijax.report.finding import finding
from mijax.report.formats import cases_to_csv, to_csv, to_latex, to_markdown
from mijax.report.ranking import blob_plot, find_ranking
from mijax.report.runs import Row, Scored
from mijax.report.statistics import make_table
from mijax.report.table import parts
from mijax.report.trust import risk_coverage, risks, scatter
from mijax.report.volumes import bland_altman

CLASSES = ("body", "core")
CASES = [f"case_{i}" for i in range(8)]


@pytest.fixture(autouse=True)
def style():
    with matplotlib.rc_context(STYLE):
        yield


def row(label, dsc, *, cases=CASES, best=None):
    """A row of (seeds, cases, classes) DSC; NSD is a tenth more, volumes are 100 · (1 + DSC) ml."""
    runs = []
    for seed, scores in enumerate(np.asarray(dsc)):
        found = {}
        for case, by_class in zip(cases, scores.tolist(), strict=False):
            found[case] = {}
            for name, d in zip(CLASSES, by_class, strict=True):
                found[case][name] = {
                    "dsc": d, "nsd": d + 0.1, "hd95": 10 * (1 - d), "assd": 5 * (1 - d),
                    "volume_error": 100 * (d - 0.5), "volume": 100.0,
                }  # fmt: skip
        mean = float(scores.mean())
        entry = {"step": 4, "split": "test", "mean_dsc": mean, "cases": found,
                 "patients": {case: case for case in cases},
                 "classes": {name: {"dsc": {"mean": 0.5}} for name in CLASSES},
                 "nsd_tolerance": dict.fromkeys(CLASSES, 2.0)}  # fmt: skip
        entry["calibration"] = {
            region: {
                "ece": 0.1,
                "cases": {case: by * float(s.mean()) for case, s in zip(found, scores)},  # noqa: B905
                "voxels": [0] * 13 + [1000, 3000],
                "probability": [None] * 13 + [0.9, 0.95],
                "accuracy": [None] * 13 + [0.5, 0.9],
            }
            for region, by in (("all", 0.1), ("foreground", 0.5))
        }
        checkpoints = {"best": (4, best or mean), "last": (6, mean)}
        run = SimpleNamespace(folder=Path(f"{label}{seed}"))
        splits = Splits(labelled=("l",), unlabelled=(), validation=("v",), test=tuple(cases))
        runs.append(Scored(run, seed, entry, splits, None, checkpoints))
    return Row(label, label, label, tuple(runs))


def drawn(seed, mean, seeds=2):
    return np.random.default_rng(seed).normal(mean, 0.05, (seeds, len(CASES), 2)).clip(0.01, 0.89)


@pytest.fixture(scope="module")
def values():
    return {"A": drawn(0, 0.6), "B": drawn(1, 0.66), "C": drawn(2, 0.7, seeds=1)}


@pytest.fixture(scope="module")
def table(values):
    return make_table([row(label, dsc) for label, dsc in values.items()], against="C")


# Tests -------------------------------------------------------------------------------------


def test_wilcoxon_by_all_signs():
    """p is the part of all signs of the differences that give as much to the positive ranks."""
    rng = np.random.default_rng(0)
    worse = rng.random(7)
    differences = rng.normal(0.5, 1, 7)
    ranks = np.abs(differences).argsort().argsort() + 1
    found = ranks[differences > 0].sum()
    sums = [ranks[np.array(signs)].sum() for signs in itertools.product([False, True], repeat=7)]
    expected = np.mean(np.array(sums) >= found)
    assert wilcoxon_p(worse + differences, worse, higher=True) == pytest.approx(expected)
    assert wilcoxon_p(worse - differences, worse, higher=False) == pytest.approx(expected)
    assert wilcoxon_p(worse[:5] + differences[:5], worse[:5], higher=True) is None
    assert wilcoxon_p(worse, worse, higher=True) is None
    some = differences.copy()
    some[:2] = 0  # patients without a difference say nothing, and raise nothing
    assert 0 < wilcoxon_p(worse + some, worse, higher=True) < 1


def test_probability_of_a_false_claim_is_that_of_the_source():
    rng = np.random.default_rng(0)
    a, b = rng.multivariate_normal([0.8, 0.78], [[0.01, 0.006], [0.006, 0.01]], 20).T
    spread = a.var(ddof=1) + b.var(ddof=1)
    spread -= 2 * np.corrcoef(a, b)[0, 1] * a.std(ddof=1) * b.std(ddof=1)
    expected = stdtr(19, 20**0.5 * (b.mean() - a.mean()) / spread**0.5)
    assert false_claim(a, b, higher=True) == pytest.approx(expected)
    # By drawing from the posterior: σ² from its scaled inverse χ², μ from the normal given it.
    d = a - b
    variance = 19 * d.var(ddof=1) / rng.chisquare(19, 400_000)
    means = d.mean() + rng.normal(size=400_000) * (variance / 20) ** 0.5
    assert np.mean(means <= 0) == pytest.approx(expected, abs=0.003)


def test_the_tested_row_is_compared_by_patient(table, values):
    means = {label: dsc.mean((0, 2)) for label, dsc in values.items()}
    assert list(table.comparisons) == [0, 1]
    p = []
    for i, label in enumerate("AB"):
        one = table.comparisons[i]
        difference = means["C"] - means[label]
        assert one.patients == 8
        assert one.difference == pytest.approx(difference.mean())
        assert one.interval[0] < one.difference < one.interval[1]
        t = 8**0.5 * difference.mean() / difference.std(ddof=1)
        assert one.false_claim == pytest.approx(stdtr(7, -t))
        assert one.t == table.cells["dsc"]["mean"][i].p
        p.append(wilcoxon_p(means["C"], means[label], higher=True))
    assert table.comparisons[0].wilcoxon == pytest.approx(min(2 * p[0], max(2 * p[0], p[1])))
    _, header, body = next(part for part in parts(table) if part[0].startswith("Is C better?"))
    assert header == [
        "Against", "Patients", "Difference", "95 % interval", "p, t-test", "p, Wilcoxon",
        "False claim",
    ]  # fmt: skip
    assert [line[0][0] for line in body] == ["A", "B"] and body[0][1][0] == "8"


def test_a_row_of_one_seed_is_resampled_by_patient_alone():
    rng = np.random.default_rng(0)
    values = rng.random(10)
    found = resampled_means(values, [*CASES, "x", "y"])
    assert found.std() == pytest.approx(values.std() / 10**0.5, rel=0.05)
    # Patients are the same in two rows: what these differ by in all patients is certain.
    other = resampled_means(values + 0.1, [*CASES, "x", "y"], row=3)
    np.testing.assert_allclose(other - found, 0.1)


# Ranks -------------------------------------------------------------------------------------


def test_ranking(table):
    ranking = find_ranking(table)
    assert ranking.places == [2, 1, 0]
    np.testing.assert_allclose(ranking.shares.sum(0), 1)
    np.testing.assert_allclose(ranking.shares.sum(1), 1)
    c, b = table.samples[2], table.samples[1]
    assert ranking.shares[0, 0] == pytest.approx(np.mean((c > b) & (c > table.samples[0])))
    assert ranking.median.tolist() == [1, 2, 3]
    (ax,) = blob_plot(table, ranking).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["C", "B", "A"]


def test_rows_of_the_same_scores_share_a_rank():
    dsc = drawn(0, 0.6, seeds=1)
    rows = [row("A", dsc - 0.005), row("B", dsc), row("C", dsc[..., ::-1])]
    ranking = find_ranking(make_table(rows, against="B"))
    assert ranking.shares.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]


def test_no_ranking_of_few_patients_nor_of_the_bound():
    few = [row(label, drawn(i, 0.6)[:, :3], cases=CASES[:3]) for i, label in enumerate("AB")]
    assert find_ranking(make_table(few, against="A")) is None
    text = to_markdown(make_table(few, against="A"), checkpoint="best")
    assert "n = 3 cases" in text and "take 6 patients, and there are 3" in text
    assert r"\*" not in text and "95 % interval" not in text
    bound = row("Full supervision", drawn(0, 0.8))._replace(base="the bound")
    assert find_ranking(make_table([bound, row("A", drawn(1, 0.6))], against="A")) is None


# Volumes and probabilities -----------------------------------------------------------------


def test_bland_altman(table, values):
    axes = np.array(bland_altman(table).axes).reshape(3, 2)
    error = 100 * (values["B"][..., 1] - 0.5).ravel()  # all seeds
    (dots,) = axes[1, 1].collections
    np.testing.assert_allclose(dots.get_offsets()[:, 1], error)
    np.testing.assert_allclose(dots.get_offsets()[:, 0], 100 + error / 2)
    heights = sorted(line.get_ydata()[0] for line in axes[1, 1].lines)
    limits = error.mean() + 1.96 * error.std(ddof=1) * np.array([-1, 0, 1])
    np.testing.assert_allclose(heights, sorted([0, *limits]))


def test_rows_without_a_calibration_have_no_diagram():
    alone = row("A", drawn(0, 0.6))
    alone.runs[0].entry["calibration"] = None
    assert reliability_diagram([alone]) is None and make_table([alone]).errors == [{}]


def test_volumes_of_few_patients_or_of_many_ml():
    few = make_table([row("A", drawn(0, 0.6)[:, :5], cases=CASES[:5])])
    assert len(bland_altman(few).axes[0].lines) == 2  # 0 and the mean: no limits of 5 patients
    caption, _ = EVIDENCE["volumes"](few)
    assert "dashed" not in caption and "the mean error, in ml; limits take 6 patients" in caption
    dsc = drawn(0, 0.6)
    for large, numbers in ((1.8, "+130 ± 0"), (-2.5, "−300 ± 0"), (0.62, "+12 ± 0")):
        table = make_table([row("A", np.full_like(dsc, large))])
        assert bland_altman(table).axes[0].get_title("right") == numbers
    dsc[:, 3:, 1] = np.nan  # a class that nobody drew in the others
    body, core = bland_altman(make_table([row("A", dsc)])).axes
    assert (len(body.lines), len(core.lines)) == (4, 2)


def test_calibration_is_in_the_tables(table, values):
    title, _, body = next(part for part in parts(table) if part[0].startswith("Calibration"))
    assert title == "Calibration error, ECE (%), n = 8 cases"
    by_seed = 10 * values["A"].mean((1, 2))
    assert body[0][1][0] == f"{by_seed.mean():.2f} ({by_seed.std(ddof=1):.2f})"
    assert body[2][3][0] == f"{50 * values['C'].mean():.2f}"
    ax, _ = reliability_diagram(table.rows).axes
    np.testing.assert_allclose(ax.lines[1].get_xydata(), [[90, 50], [95, 90]])


def test_an_estimate_is_held_against_the_seed_that_it_is_of(table, values):
    estimates = {"A": {case: Estimate(0.5, 0.4, 0.6) for case in CASES}}
    first = 100 * values["A"][0].mean(1)
    (points,) = scatter(table.rows, estimates).axes[0].containers  # points, and bars
    np.testing.assert_allclose(np.array(points[0].get_ydata(), float), first)
    by_estimate, best = risk_coverage(table.rows, estimates).axes[0].lines
    np.testing.assert_allclose(by_estimate.get_ydata()[-1], 100 - first.mean())
    np.testing.assert_allclose(best.get_ydata()[0], 100 - first.max())


def test_risk_of_what_is_trusted():
    risk, trusted = np.array([0.1, 0.5, 0.3]), np.array([0.8, 0.9, 0.2])
    np.testing.assert_allclose(risks(risk, trusted), [0.5, 0.3, 0.3])
    np.testing.assert_allclose(risks(risk, -risk), [0.1, 0.2, 0.3])


# Files -------------------------------------------------------------------------------------


def test_all_of_it_is_in_the_files(table, values):
    cases = list(csv.DictReader(io.StringIO(cases_to_csv(table))))
    assert len(cases) == 5 * len(CASES) * 2
    line = cases[1]
    d = values["A"][0, 0, 1]
    assert (line["method"], line["case"], line["class"], line["step"]) == (
        "A",
        "case_0",
        "core",
        "4",
    )
    for name, expected in {
        "dsc": d, "nsd": d + 0.1, "volume_error": 100 * (d - 0.5), "volume": 100,
        "ece": 0.1 * values["A"][0, 0].mean(), "ece_foreground": 0.5 * values["A"][0, 0].mean(),
    }.items():  # fmt: skip
        assert float(line[name]) == pytest.approx(expected)
    lines = {
        (x["method"], x["class"], x["metric"]): x
        for x in csv.DictReader(io.StringIO(to_csv(table)))
    }
    one = lines["B", "mean", "dsc"]
    assert (one["cases"], one["patients"]) == ("8", "8")
    assert float(one["difference"]) == pytest.approx(100 * table.comparisons[1].difference)
    assert float(one["false_claim"]) == table.comparisons[1].false_claim
    assert lines["B", "core", "volume_error"]["unit"] == "ml"
    assert ("B", "mean", "volume_error") not in lines  # errors of classes cancel
    assert float(lines["C", "foreground", "ece"]["mean"]) == pytest.approx(50 * values["C"].mean())
    latex, text = to_latex(table, checkpoint="best"), to_markdown(table, checkpoint="best")
    for title, _, _ in parts(table):
        assert f"**{title}**" in text
    assert latex.count(r"\toprule") == len(parts(table)) == 9
    assert all(draw(table) for draw in EVIDENCE.values())


def test_best_and_last_checkpoint():
    rows = [row("A", drawn(0, 0.6), best=0.75), row("B", drawn(1, 0.6))]
    title, _, body = next(p for p in parts(make_table(rows, against="A")) if "checkpoint" in p[0])
    last = 100 * drawn(0, 0.6).mean((1, 2))
    assert title == "Best and last checkpoint, mean DSC (%), n = 8 cases"
    assert [text for text, *_ in body[0]] == [
        "A", "75.00 (0.00)", f"{last.mean():.2f} ({last.std(ddof=1):.2f})",
        f"{last.mean() - 75:+.2f}".replace("-", "−"), "4, 4", "6, 6",
    ]  # fmt: skip


def test_an_interval_is_of_the_mean_that_stands_beside_it():
    """A class without a score in some cases, where the other class is better."""
    dsc = drawn(0, 0.5, seeds=1)
    dsc[:, :, 0] += np.where(np.arange(8) < 6, 0, 0.4)
    dsc[:, 6:, 1] = np.nan
    table = make_table([row("A", dsc), row("B", dsc - 0.1 * dsc**2)], against="A")
    for metric in ("dsc", "hd95"):
        cell = table.cells[metric]["mean"][0]
        low, high = cell.interval
        assert low < cell.mean < high
    samples = [
        resampled_means(dsc[..., 0], CASES), resampled_means(dsc[..., 1], CASES)
    ]  # fmt: skip
    np.testing.assert_allclose(table.samples[0], np.mean(samples, 0))
    # The paired difference is over the patients that have all classes, and so is its interval.
    one, differences = table.comparisons[1], 0.1 * np.mean(dsc[0, :6] ** 2, 1)
    assert one.patients == 6 and one.difference == pytest.approx(differences.mean())
    patients = resampled_means(np.append(differences, [np.nan, np.nan]), CASES)
    assert one.interval == pytest.approx(tuple(np.percentile(patients, (2.5, 97.5))))


def test_the_interval_of_a_difference_is_over_patients_as_it_is():
    """Of a patient with five scans, all better, and six with one, all worse."""
    cases = [f"case_{i:02}" for i in range(11)]
    dsc = np.full((1, 11, 2), 0.5)
    better = dsc + np.where(np.arange(11) < 5, 0.3, -0.05)[None, :, None]
    rows = [row(name, d, cases=cases) for name, d in (("A", better), ("B", dsc))]
    for one in rows:
        one.runs[0].entry["patients"] |= dict.fromkeys(cases[:5], "p")
    found = make_table(rows, against="A").comparisons[1]
    differences = np.array([0.3, *[-0.05] * 6])
    assert found.difference == pytest.approx(differences.mean()) and found.patients == 7
    samples = resampled_means(differences, ["p", *cases[5:]])
    assert found.interval == pytest.approx(tuple(np.percentile(samples, (2.5, 97.5))))


def test_patients_without_a_score_tell_no_difference():
    dsc = drawn(0, 0.5, seeds=1)
    dsc[0, 5:, 1] = np.nan
    table = make_table([row("A", dsc), row("B", dsc - 0.1 * dsc**2)], against="A")
    assert table.comparisons[1].t is None
    assert finding(table).endswith("differences are more than chance, 5 patients cannot tell.")


def test_cases_that_show_no_class():
    rows = [row("A", drawn(0, 0.5)), row("B", drawn(1, 0.5))]
    for one in (*rows[0].runs, *rows[1].runs):
        one.entry.update({"classes": {n: {"dsc": {"mean": None}} for n in CLASSES}})
    table = make_table(rows, against="A")
    assert table.unseen == CLASSES and bland_altman(table) is None
    text = to_markdown(table, checkpoint="best")
    assert "No case shows body, core" in text
