"""Reports with pre-training: its measures, its clusters, and the rows that began with it."""

import csv
import json

import numpy as np
import pytest

from mijax.configs import phantom
from mijax.errors import UserError
from mijax.inference import Predictor, evaluate, export
from mijax.inference.scores import METRICS, VOLUME
from mijax.inference.scoring import make_scoring
from mijax.inference.volumes import even_slices
from mijax.report import make_report
from mijax.report.clusters import find_clusters
from mijax.report.predictions import scored_predictor, source_of
from mijax.report.runs import read_rows
from mijax.report.statistics import make_table
from mijax.runs.method import make_method

MEASURES = ("mutual_information", "cluster_balance", "agreement", "boundary_correlation")
CASES = [f"case_{i}" for i in range(5)]


@pytest.fixture
def write(tmp_path):
    """``write(folder, method, entry, origin=None, **changes)``: a scored run, made by hand.

    ``origin`` is the folder of the run that it began with.
    """

    def make(name, method, entry, *, origin=None, **changes):
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True)
        config = phantom.get_config(method)
        config.update_from_flattened_dict({k.replace("__", "."): v for k, v in changes.items()})
        config.init_from = str(origin or "")
        (folder / "config.json").write_text(config.to_json_best_effort())
        unlabelled = ["b"] if config.data.splits.labelled else []
        splits = {"labelled": ["a"], "unlabelled": unlabelled, "validation": ["c"], "test": CASES}
        (folder / "splits.json").write_text(json.dumps(splits))
        info = {"init_from": origin and json.loads((origin / "config.json").read_text())}
        (folder / "info.json").write_text(json.dumps(info))
        entry = {"step": config.steps, "split": "test", **entry}
        (folder / "scores.json").write_text(json.dumps({"best": entry, "last": entry}))
        return folder

    return make


def measured(seed):
    return {"measures": dict(zip(MEASURES, np.random.default_rng(seed).random(4), strict=True))}


def segmented(seed, mean=0.7):
    dsc = np.random.default_rng(seed).normal(mean, 0.02, len(CASES)).clip(0, 1)
    cases = {
        case: {"core": {**dict.fromkeys((*METRICS, VOLUME), 1.0), "dsc": float(d)}}
        for case, d in zip(CASES, dsc, strict=True)
    }
    mean = float(dsc.mean())
    return {"mean_dsc": mean, "classes": {"core": {"dsc": {"mean": mean}}}, "cases": cases,
            "patients": {case: case for case in CASES}, "nsd_tolerance": {"core": 2}}  # fmt: skip


def rows_of(folders):
    return read_rows(folders, checkpoint="best")[0]


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


# Measures ----------------------------------------------------------------------------------


def test_a_report_of_pretraining_alone(write, tmp_path, png_alone):
    folders = [write(f"pre{seed}", "boundary_iic", measured(seed), seed=seed) for seed in (0, 1)]
    page = make_report(folders, tmp_path / "report", predictions=False)
    files = {path.name for path in page.parent.iterdir()}
    assert files == {"index.html", "table.md", "table.csv", "figures"}
    lines = {line["measure"]: line for line in read(page.parent / "table.csv")}
    assert tuple(lines) == MEASURES
    for name, line in lines.items():
        values = [measured(seed)["measures"][name] for seed in (0, 1)]
        assert float(line["mean"]) == pytest.approx(sum(values) / 2)
        assert float(line["std"]) == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
        assert line["method"] == "Boundary-aware IIC" and line["seeds"] == "2"
    for text in (page.read_text(), (page.parent / "table.md").read_text()):
        assert "between 0 and ln K for K = 40 clusters." in text
        assert "DSC" not in text and "t-test" not in text


def test_beside_runs_that_segment(write, tmp_path, png_alone):
    segmenting = [
        write("partial", "supervised", segmented(0)),
        write("ours", "local_mi", segmented(1)),
    ]
    alone = make_report(segmenting, tmp_path / "alone", predictions=False)
    both = [*segmenting, write("pre", "boundary_iic", measured(0), data__splits__seed=1)]
    page = make_report(both, tmp_path / "both", predictions=False)
    for name in ("table.csv", "table.tex", "cases.csv"):
        assert (page.parent / name).read_text() == (alone.parent / name).read_text()
    text = (page.parent / "table.md").read_text()
    assert text.startswith((alone.parent / "table.md").read_text())
    assert "**Pre-training**" in text
    assert len(read(page.parent / "measures.csv")) == len(MEASURES)
    assert "<h2>Pre-training</h2>" in page.read_text()
    assert "<h2>Pre-training</h2>" not in alone.read_text()


@pytest.mark.parametrize("measures", [{}, {"agreement": None}, []])
def test_damaged_measures_are_refused(write, measures):
    folder = write("pre", "boundary_iic", {"measures": measures})
    with pytest.raises(UserError, match=r"scores.json is damaged .* python -m mijax.evaluate"):
        rows_of([folder])


# Rows that began with it -------------------------------------------------------------------


def test_seeds_of_a_pretrained_row_have_each_its_own_pretraining(write):
    pre = [write(f"pre{seed}", "boundary_iic", measured(seed), seed=seed) for seed in (0, 1)]
    tuned = [
        write(f"tuned{seed}", "mean_teacher", segmented(seed), origin=pre[seed], seed=seed)
        for seed in (0, 1)
    ]
    plain, row = rows_of([*tuned, write("plain", "mean_teacher", segmented(2))])
    assert plain.label == "Mean Teacher"
    assert row.label == "Mean Teacher, pre-trained (Boundary-aware IIC)"
    assert [one.seed for one in row.runs] == [0, 1]
    assert row.settings["init_from.method.clusters"] == 40
    absent = {"init_from", "init_from.seed", "init_from.init_from", "init_from.data.patches.size"}
    assert not absent & row.settings.keys()


def test_two_pretrainings_are_told_apart(write):
    few = write("few", "boundary_iic", measured(0), method__clusters=20)
    many = write("many", "boundary_iic", measured(1))
    rows = rows_of(
        [
            write("a", "supervised", segmented(0), origin=few, teacher__decay=0.9),
            write("b", "supervised", segmented(1), origin=many, teacher__decay=0.9),
        ]
    )
    assert [row.label for row in rows] == [
        "Partial supervision + MT, pre-trained (Boundary-aware IIC), clusters=20",
        "Partial supervision + MT, pre-trained (Boundary-aware IIC), clusters=40",
    ]


def test_weights_of_runs_with_other_numbers_of_labels_are_two_rows(write):
    origins = [write(f"o{n}", "supervised", segmented(n), data__splits__labelled=n) for n in (2, 4)]
    rows = rows_of(
        write(f"tuned{seed}", "supervised", segmented(seed), origin=origin, seed=seed)
        for seed, origin in enumerate(origins)
    )
    assert [row.settings["init_from.data.splits.labelled"] for row in rows] == [2, 4]


def test_the_gap_is_between_the_baselines_that_are_not_pretrained(write):
    pre = write("pre", "boundary_iic", measured(0))
    full, partial, tuned = (segmented(i, m) for i, m in enumerate((0.9, 0.5, 0.6)))
    rows = rows_of(
        [
            write("full", "supervised", full, data__splits__labelled=0),
            write("best", "supervised", full, data__splits__labelled=0, origin=pre),
            write("partial", "supervised", partial),
            write("tuned", "supervised", tuned, origin=pre),
        ]
    )
    full, partial, tuned = (entry["mean_dsc"] for entry in (full, partial, tuned))
    gaps = make_table(rows).gaps["mean"]
    assert gaps[:3] == [None] * 3
    assert gaps[3] == pytest.approx((tuned - partial) / (full - partial))


def test_an_origin_that_is_not_told_is_refused(write):
    folder = write("tuned", "supervised", segmented(0), origin=write("pre", "boundary_iic", {}))
    (folder / "info.json").write_text("{}")
    with pytest.raises(UserError, match=r"info.json does not say what .*pre was"):
        rows_of([folder])


# With a network ----------------------------------------------------------------------------


@pytest.mark.xdist_group("pretraining")  # with the tests that train the same
def test_clusters_of_a_run(copied, png_alone):
    """The page of one real run, its cluster maps, and that it segments nothing."""
    run = copied("boundary_iic")
    scores = evaluate(run)
    page = make_report([run.folder], run.folder / "report")
    names = {path.stem for path in (page.parent / "figures").iterdir()}
    assert names == {"pretraining_curves", "clusters"}
    assert page.read_text().count("<img") == len(names)

    rows = rows_of([run.folder])
    assert rows[0].runs[0].entry == scores["best"]
    (found,), notes = find_clusters(rows, data_dir=None)
    assert notes == [] and found.count == run.config.method.clusters
    assert found.images.shape == found.maps.shape == (4, 32, 32)
    predictor = scored_predictor(rows[0].runs[0])
    scoring = make_scoring(predictor.network, make_method(run.config).examination)
    source = source_of(run, None)
    volumes = [source.volume(name) for name in json.loads(
        (run.folder / "splits.json").read_text())["validation"]]  # fmt: skip
    images = even_slices(volumes, run.config.data.patches, count=8)  # all that there are
    maps = np.asarray(scoring.clusters(predictor.weights, images))
    for image, clusters in zip(found.images, found.maps, strict=True):
        (i,) = np.flatnonzero((images[..., 0] == image).all((1, 2)))
        np.testing.assert_array_equal(clusters, maps[i])

    message = "learned without labels and segments nothing; fine-tune it with --config.init_from="
    with pytest.raises(UserError, match=message):
        Predictor(run)(np.zeros((8, 8, 2)), np.eye(4))
    with pytest.raises(UserError, match=message):
        export(Predictor(run))
