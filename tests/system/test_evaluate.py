"""scores.json and its table: complete, valid JSON, and right by another computation."""

import json
import shutil
import time

import numpy as np
import pytest

from mijax.data import Volume
from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.inference import Predictor, evaluate
from mijax.inference.score_table import table
from mijax.inference.scores import METRICS, OPTIONS, VOLUME, mean_dsc, score
from mijax.inference.tolerance import in_words, read_tolerances, tolerances
from mijax.runs.folder import start_run
from mijax.runs.source import open_data

CLASSES = ("background", "body", "core")


def no_constant(name):
    pytest.fail(f"{name} is not JSON")


@pytest.fixture(scope="module")
def scored(uninterrupted):
    run = uninterrupted("local_mi")
    returned = evaluate(run)
    written = json.loads((run.folder / "scores.json").read_text(), parse_constant=no_constant)
    assert written == returned
    return run, written


def test_an_unfinished_run_is_told(copied, told):
    run = copied("local_mi")
    shutil.rmtree(run.checkpoints / "12")
    assert evaluate(run)["last"]["step"] == 8
    assert "scored at step 8 of 12: not finished" in told


def test_form_of_scores(scored):
    run, scores = scored
    test = json.loads((run.folder / "splits.json").read_text())["test"]
    log = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    key = "validation_dsc_percent"
    validations = {x["step"]: x[key] for x in log if key in x}
    best = max(validations, key=lambda step: (validations[step], step))
    assert scores.keys() == {"last", "best"}
    assert (scores["last"]["step"], scores["best"]["step"]) == (12, best)
    for entry in scores.values():
        assert entry.keys() == {
            "step", "split", "data", "patients", *OPTIONS, "mean_dsc", "nsd_tolerance", "classes",
            "cases", "calibration",
        }  # fmt: skip
        assert entry["patients"] == {case: case for case in test}  # one volume each
        assert not any(entry[name] for name in OPTIONS)
        assert entry["split"] == "test"
        assert 0 <= entry["mean_dsc"] <= 1
        assert list(entry["cases"]) == test
        assert list(entry["classes"]) == ["body", "core"]
        for case in entry["cases"].values():
            assert list(case) == ["body", "core"]
            assert all(set(values) == {*METRICS, VOLUME} for values in case.values())


def assert_means_follow_from_cases(entry):
    for name, metrics in entry["classes"].items():
        for metric in METRICS:
            values = np.array([c[name][metric] for c in entry["cases"].values()], float)
            defined = values[~np.isnan(values)]  # None became NaN
            assert metrics[metric]["undefined"] == len(values) - len(defined)
            if len(defined):
                np.testing.assert_allclose(metrics[metric]["mean"], defined.sum() / len(defined))
            else:
                assert metrics[metric]["mean"] is None
            if len(defined) > 1:
                variance = ((defined - defined.mean()) ** 2).sum() / (len(defined) - 1)
                np.testing.assert_allclose(metrics[metric]["std"], variance**0.5, atol=1e-12)
            else:
                assert metrics[metric]["std"] is None
    dsc = [values["dsc"] for case in entry["cases"].values() for values in case.values()]
    np.testing.assert_allclose(entry["mean_dsc"], sum(dsc) / len(dsc))


def test_means_follow_from_cases(scored):
    for entry in scored[1].values():
        assert_means_follow_from_cases(entry)


def test_scores_are_those_of_the_label_maps(scored):
    """The last checkpoint again, DSC counted voxel by voxel."""
    run, scores = scored
    source, predictor = open_data(run.config), Predictor(run, checkpoint=12)
    volumes = [source.volume(name) for name in scores["last"]["cases"]]
    predictions = [labels for labels, _ in predictor.segment(volumes)]
    for prediction, volume in zip(predictions, volumes, strict=True):
        assert prediction.shape == volume.label.shape and prediction.dtype == np.uint8
        for value, name in enumerate(CLASSES[1:], start=1):
            p, t = prediction == value, volume.label == value
            expected = 2 * (p & t).sum() / (p.sum() + t.sum())
            np.testing.assert_allclose(scores["last"]["cases"][volume.name][name]["dsc"], expected)
    mean, by_class = mean_dsc(predictions, volumes, CLASSES)
    np.testing.assert_allclose(mean, scores["last"]["mean_dsc"], rtol=1e-6)
    for name, value in by_class.items():
        np.testing.assert_allclose(value, scores["last"]["classes"][name]["dsc"]["mean"])


def test_segment_never_sees_a_label(scored):
    run, _ = scored
    source, predictor = open_data(run.config), Predictor(run)
    volumes = [source.volume(case.name) for case in source.cases[:3]]
    hidden = [v._replace(label=None) for v in volumes]
    pairs = zip(predictor.segment(volumes), predictor.segment(hidden), strict=True)
    assert all(np.array_equal(a, b) for (a, _), (b, _) in pairs)
    assert slice_volume(hidden[0], run.config.data.patches).label is None


# By hand ---------------------------------------------------------------------------------


def volume_of(name, label):
    return Volume(name, np.zeros((*label.shape, 1), np.float32), label, np.diag([1, 1, 2, 1.0]))


def cube(value, start, shape=(8, 8, 4)):
    label = np.zeros(shape, np.uint8)
    label[start : start + 2, 2:4, 1:3] = value
    return label


def scored_by_hand(maps, volumes, **options):
    return score([(labels, None) for labels in maps], volumes, CLASSES, **options)


@pytest.fixture
def by_hand():
    """Case a: body right, core nowhere. Case b: body a voxel off, core missed."""
    truth = [volume_of("a", cube(1, 2)), volume_of("b", cube(1, 2) + cube(2, 5))]
    return {"last": {"step": 4, "split": "test", **scored_by_hand([cube(1, 2), cube(1, 3)], truth)}}


def test_distances_are_in_mm_along_the_axes_of_the_file():
    """The first axis of the file has 5 mm, and it is the third of the patient."""
    affine = np.diag([1, 1, 5.0, 1])[:, [2, 0, 1, 3]]
    label = np.zeros((8, 8, 6), np.uint8)
    label[2:4, 2:4, 1:3] = 1
    volume = Volume("a", np.zeros((*label.shape, 1), np.float32), label, affine)
    found = score([(np.roll(label, 1, 0), None)], [volume], CLASSES[:2])["cases"]["a"]["body"]
    assert (found["hd95"], found["assd"]) == (5.0, 2.5)
    assert found["nsd"] == pytest.approx(0.768, abs=1e-3)  # at 2 mm; of all of it at 5


def test_undefined_distances_are_null(by_hand):
    entry = by_hand["last"]
    json.dumps(entry, allow_nan=False)
    perfect = {"dsc": 1.0, "nsd": 1.0, "hd95": 0.0, "assd": 0.0, "volume_error": 0.0}
    assert entry["cases"]["a"] == {
        "body": perfect | {"volume": 0.016},  # 8 voxels of 2 mm³
        "core": perfect | {"volume": 0.0},  # nowhere in both
    }
    assert entry["cases"]["b"]["body"]["dsc"] == 0.5
    assert entry["cases"]["b"]["body"]["hd95"] == 1.0  # mm
    assert entry["cases"]["b"]["body"]["volume_error"] == 0
    assert entry["cases"]["b"]["core"] == {
        "dsc": 0.0, "nsd": 0.0, "hd95": None, "assd": None, "volume_error": -0.016, "volume": 0.016,
    }  # fmt: skip
    assert entry["mean_dsc"] == (1 + 1 + 0.5 + 0) / 4
    assert entry["classes"]["core"]["hd95"] == {"mean": 0.0, "std": None, "undefined": 1}
    assert_means_follow_from_cases(entry)


def test_table(by_hand):
    assert table(by_hand).splitlines() == [
        "2 test cases, mean (standard deviation), NSD at 2 mm",
        "checkpoint     class  DSC %          NSD %          HD95 mm             "
        "ASSD mm             Volume error ml",
        "last (step 4)  body   75.00 (35.36)  100.00 (0.00)  0.50 (0.71)         "
        "0.25 (0.35)         0.00 (0.00)",
        "last (step 4)  core   50.00 (70.71)  50.00 (70.71)  0.00 [1 undefined]  "
        "0.00 [1 undefined]  -0.01 (0.01)",
        "last (step 4)  mean   62.50",
    ]


def test_tolerance_of_the_nsd(by_hand):
    """The body of case b is a voxel, a millimetre, off: its far sides are within no 0.9 mm."""
    truth = [volume_of("a", cube(1, 2)), volume_of("b", cube(1, 2) + cube(2, 5))]
    strict = scored_by_hand([cube(1, 2), cube(1, 3)], truth, nsd_tolerance={"body": 0.9})
    assert strict["nsd_tolerance"] == {"body": 0.9, "core": 2.0}
    assert by_hand["last"]["nsd_tolerance"] == {"body": 2.0, "core": 2.0}
    assert strict["cases"]["b"]["body"]["nsd"] < by_hand["last"]["cases"]["b"]["body"]["nsd"] == 1
    first = table({"last": {"step": 4, "split": "test", **strict}}).splitlines()[0]
    assert first.endswith("NSD at body 0.9 mm, core 2 mm")
    assert tolerances(3, CLASSES) == {"body": 3.0, "core": 3.0}
    assert read_tolerances([]) is None and read_tolerances(["1.5"]) == 1.5
    assert read_tolerances(["a=b=1.5", "core=3"]) == {"a=b": 1.5, "core": 3.0}
    assert read_tolerances(["a\u0308=3"]) == {"\u00e4": 3.0}
    assert in_words({"body": 1.5}) == "1.5 mm"
    for texts in (["wide"], ["1", "2"], ["body=1", "2"], ["body="]):
        with pytest.raises(UserError, match=f"--nsd_tolerance={','.join(texts)} is neither"):
            read_tolerances(texts)
    with pytest.raises(UserError, match="'liver' is none of the classes body, core"):
        tolerances({"liver": 1.0}, CLASSES)
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match="is no number of millimetres"):
            tolerances(wrong, CLASSES)


def test_checkpoints_of_one_step_are_in_the_table_once(by_hand):
    both = {**by_hand, "best": by_hand["last"]}
    assert table(both) == table(by_hand).replace("last (step 4)", "last and best (step 4)").replace(
        "checkpoint     ", "checkpoint              "
    )
    earlier = {**by_hand, "best": {**by_hand["last"], "step": 2}}
    assert table(earlier).count("last (step 4)") == table(earlier).count("best (step 2)") == 3
    measured = {"step": 4, "split": "test", "measures": {"agreement": 0.5}}
    assert table({"last": measured, "best": measured}).count("agreement") == 1


def test_never_defined(by_hand):
    truth = [volume_of("b", cube(1, 2) + cube(2, 5))]
    entry = {"step": 1, "split": "validation", **scored_by_hand([0 * cube(1, 2)], truth)}
    assert entry["classes"]["core"]["assd"] == {"mean": None, "std": None, "undefined": 1}
    row = table({"last": entry}).splitlines()[2]
    assert row.split() == [
        "last",
        "(step",
        "1)",
        "body",
        "0.00",
        "0.00",
        *["undefined"] * 2,
        "-0.02",
    ]


@pytest.mark.parametrize("predicted", [0, 1])
def test_a_class_that_no_case_shows_is_undefined_and_out_of_the_mean(predicted):
    """Found nowhere it would be perfect, and lift the mean of the others."""
    truth = [volume_of("a", cube(1, 2)), volume_of("b", cube(1, 2))]
    maps = [cube(1, 2), cube(1, 5) + predicted * cube(2, 0)]
    entry = {"step": 4, "split": "test", **scored_by_hand(maps, truth)}
    json.dumps(entry, allow_nan=False)
    undefined = {"mean": None, "std": None, "undefined": 2}
    assert entry["classes"]["core"] == {metric: undefined for metric in METRICS}
    assert entry["classes"]["body"]["dsc"]["mean"] == entry["mean_dsc"] == 0.5
    # Each case by itself keeps its rule.
    assert [entry["cases"][case]["core"]["dsc"] for case in "ab"] == [1, 1 - predicted]
    assert mean_dsc(maps, truth, CLASSES) == (0.5, {"body": 0.5})
    lines = table({"last": entry}).splitlines()
    assert lines[3].split() == ["last", "(step", "4)", "core", *["undefined"] * 5]
    assert lines[4].split() == ["last", "(step", "4)", "mean", "50.00"]
    assert lines[5] == "core: no case shows it; undefined, and left out of the mean" + (
        "; last (step 4) predicts it in 1 cases" * predicted
    )


def test_no_case_shows_any_class():
    empty = volume_of("a", 0 * cube(1, 2))
    entry = {"step": 4, "split": "test", **scored_by_hand([empty.label], [empty])}
    json.dumps(entry, allow_nan=False)
    assert entry["mean_dsc"] is None
    assert table({"last": entry}).splitlines()[4].split()[-2:] == ["mean", "undefined"]
    mean, by_class = mean_dsc([empty.label], [empty], CLASSES)
    assert np.isnan(mean) and by_class == {}


def test_options_are_noted(copied, told):
    """And scans of no label may have been taken out of the folder, which says nothing of these."""
    run = copied("local_mi")
    for name in ("splits", "info"):
        path = run.folder / f"{name}.json"
        found = json.loads(path.read_text())
        found.get("splits", found)["unlabelled"].append("taken_out")
        path.write_text(json.dumps(found))
    plain = evaluate(run)
    assert "1 unlabelled case(s)" in told[0] and "are gone (taken_out, …)" in told[0]
    scores = evaluate(run, largest_component=True, mirror=True)
    assert json.loads((run.folder / "scores.json").read_text()) == scores
    assert all(entry[name] for entry in scores.values() for name in OPTIONS)
    assert scores["last"]["cases"] != plain["last"]["cases"]
    assert table(scores).splitlines()[0] == (
        "2 test cases, mean (standard deviation), --largest_component, --mirror, NSD at 2 mm"
    )


def test_a_long_wait_is_told_of(monkeypatch, told):
    monkeypatch.setattr("mijax.progress.PATIENCE", 0.01)
    truth = [volume_of(name, cube(1, 2)) for name in "ab"]

    def predictions():
        for volume in truth:
            wait_for = len(told) + 1
            while len(told) < wait_for:
                time.sleep(0.005)
            yield volume.label, None

    score(predictions(), truth, CLASSES)
    assert told[:2] == ["predicting 0/2", "predicting 1/2"]


def test_no_checkpoint(tiny, uninterrupted, tmp_path):
    run = start_run(tmp_path, tiny("supervised"))
    splits = uninterrupted("local_mi").folder / "splits.json"
    (tmp_path / "splits.json").write_bytes(splits.read_bytes())
    with pytest.raises(UserError, match="no sound checkpoint"):
        evaluate(run)
    assert not (tmp_path / "scores.json").exists()


def test_not_yet_trained(tiny, tmp_path):
    with pytest.raises(UserError, match=r"splits\.json"):
        evaluate(start_run(tmp_path, tiny("supervised")))


# Calibration -------------------------------------------------------------------------------


def test_calibration_error_by_hand():
    """Two bins, of 0.6 and of 0.95: their accuracies are 0.5 and 1."""
    label = np.zeros((4, 4, 4), np.uint8)
    label[0] = 1
    found, confidence = label.copy(), np.full(label.shape, 0.95, np.float32)
    found[:2, 2:] = 1 - found[:2, 2:]  # wrong in half of two slices
    confidence[:2] = 0.6
    volume = volume_of("a", label)
    pair = (found, confidence)
    calibration = score([pair], [volume], CLASSES)["calibration"]
    json.dumps(calibration, allow_nan=False)
    assert calibration["all"]["cases"]["a"] == pytest.approx((0.1 + 0.05) / 2, rel=1e-5)
    # Found or annotated are a slice and a half; in half a slice of those it is right.
    foreground = calibration["foreground"]
    assert foreground["ece"] == pytest.approx(0.6 - 1 / 3, rel=1e-5)
    assert foreground["voxels"] == [*[0] * 9, 24, *[0] * 5]
    assert foreground["accuracy"][9] == pytest.approx(1 / 3)
    assert foreground["probability"][9] == pytest.approx(0.6)
    assert foreground["probability"][0] is None
    # Nobody knows what is right where nobody annotated, nor what a class that was not drawn hides.
    gap = volume._replace(label=np.where(np.arange(4)[:, None, None] < 2, np.uint8(255), label))
    one = score([pair], [gap], CLASSES)["calibration"]
    assert one["all"]["ece"] == pytest.approx(0.05, rel=1e-5)
    assert one["foreground"]["ece"] is None
    assert score([pair], [volume._replace(undrawn=(2,))], CLASSES)["calibration"] is None
    assert score([(found, None)], [volume], CLASSES)["calibration"] is None
    assert "expected calibration error, last (step 1): 7.50 % of all voxels, 26.67 % of those" in (
        table({"last": {"step": 1, "split": "test", **score([pair], [volume], CLASSES)}})
    )


def test_calibration_is_of_the_probabilities_of_the_run(scored):
    run, scores = scored
    source, predictor = open_data(run.config), Predictor(run, checkpoint=12)
    for name, error in scores["last"]["calibration"]["all"]["cases"].items():
        volume = source.volume(name)
        ((labels, probs),) = predictor.segment([volume], probabilities=True)
        highest, right = probs.max(-1).ravel(), (labels == volume.label).ravel()
        bins = np.digitize(highest, np.linspace(0, 1, 16)[1:-1])
        parts = [(bins == b) for b in range(15) if (bins == b).any()]
        expected = sum(abs(right[b].mean() - highest[b].mean()) * b.mean() for b in parts)
        assert error == pytest.approx(expected, rel=1e-4)
