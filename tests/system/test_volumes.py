"""A run of 3-D images from end to end, and what is refused of one."""

import json

import jax
import numpy as np
import pytest

from mijax.data import read_splits
from mijax.errors import UserError
from mijax.inference import Predictor, evaluate
from mijax.report import make_report
from mijax.runs.folder import open_run, start_run
from mijax.runs.source import open_data
from mijax.training import train
from mijax.training.batches import Cropping, PerRole, TrainingSet, pick
from mijax.training.config_checks import check_config
from mijax.training.training_set import foreground_places

SOLID = {
    "data__patches__dims": 3,
    "data__patches__size": (4, 32, 32),
    "augmentation__crop": (4, 8, 12),
    "augmentation__foreground": 0.5,
    "model__strides": ((1, 2, 2),),
    "model__kernels": ((1, 3, 3), (3, 3, 3)),
}


DRAWN = {
    **SOLID,
    "data__patches__size": (4, 8, 12),
    "data__patches__fit": "whole",
    "augmentation__crop": (),
    "steps": 4,
    "evaluate_every": 2,
    "data__splits__validation": 3,
}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """The tiny run, of patches of volumes."""
    config = tiny("local_mi", **DRAWN)
    run = start_run(tmp_path_factory.mktemp("volumes") / "run", config)
    train(run)
    evaluate(run)
    return run


def test_a_run_of_volumes_is_scored_predicts_and_is_trusted(run):
    source, splits = open_data(run.config), read_splits(run.folder / "splits.json")
    scores = json.loads((run.folder / "scores.json").read_text())
    assert set(scores["last"]["cases"]) == set(splits.test)
    predictor = Predictor(open_run(run.folder))
    assert predictor.network.patch == (4, 8, 12) and predictor.network.stride == (1, 2, 2)
    volume = source.volume(splits.test[0])
    labels = predictor(volume.image[..., 0], volume.affine)
    assert labels.shape == volume.label.shape and labels.max() < len(source.classes)
    # A larger scan than any of training, by the same program.
    compiled = predictor.network.predict._cache_size()
    large = np.pad(volume.image[..., 0], ((8, 9), (3, 0), (5, 2)))
    assert predictor(large, volume.affine).shape == large.shape
    assert predictor.network.predict._cache_size() == compiled
    found = predictor.trust(volume.image[..., 0], volume.affine)
    assert 0 <= found.mean.low <= found.mean.high <= 1
    (one,) = predictor.look([volume], disagreement=True)
    np.testing.assert_array_equal(one.labels, labels)
    assert one.disagreement.shape == labels.shape


def test_a_report_of_volumes_beside_slices(run, copied, tmp_path, told, png_alone):
    flat = copied("local_mi")
    if not (flat.folder / "scores.json").exists():
        evaluate(flat)
    page = make_report([run.folder, flat.folder], tmp_path / "report", names=["3-D", "2-D"])
    text = page.read_text(encoding="utf-8")
    assert "Joint distributions" in text and "No contours" not in text
    assert "2-D is missing among the joint distributions: its images are others" in text


def test_a_run_of_volumes_goes_on_where_it_stopped(run, tiny, tmp_path):
    config = tiny("local_mi", **DRAWN)
    part = start_run(tmp_path / "run", config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mijax.training.metrics_log.MetricsLog.progress", stop_after(2))
        with pytest.raises(KeyboardInterrupt):
            train(part)
    state, lines = jax.device_get(train(part)), "metrics.jsonl"
    assert int(state.step) == 4
    assert (part.folder / lines).read_text() == (run.folder / lines).read_text()


@pytest.mark.slow  # which patches stream: tests/system/test_stream.py
def test_a_run_of_volumes_streams(run, tiny, tmp_path):
    streamed = start_run(tmp_path / "run", tiny("local_mi", **DRAWN, stream=True))
    train(streamed)
    logs = [(r.folder / "metrics.jsonl").read_text().splitlines() for r in (streamed, run)]
    for lines in zip(*logs, strict=True):
        found, wanted = map(json.loads, lines)
        assert found == pytest.approx(wanted, rel=1e-4)


def stop_after(step):
    def progress(self, number):
        if number > step:
            raise KeyboardInterrupt

    return progress


def test_places_of_structures_are_of_all_classes_alike():
    label = np.zeros((2, 5, 6, 7), np.uint8)
    label[0, 1, 2, 3], label[0, 4] = 1, 2
    places = foreground_places(label, 3, seed=0)
    assert places.shape == (2, 60, 3) and places.dtype == np.int32
    values = label[0][tuple(places[0].T)]
    assert np.bincount(values).tolist() == [0, 30, 30]
    assert len(np.unique(places[1], axis=0)) > 20  # anywhere, where there is none
    slices = TrainingSet(label[..., None], label, None, None, places)
    step, batches = (np.array([0, 1], np.uint32), 0), PerRole(200, None, None)
    draw = jax.jit(lambda: pick(*step, slices, batches, Cropping(foreground=0.3)))
    index, centres = map(np.asarray, draw().labelled)
    chosen = ~np.isnan(centres[:, 0])
    assert 0.2 < chosen.mean() < 0.4
    for i, centre in zip(index[chosen], centres[chosen], strict=True):
        assert tuple(centre) in set(map(tuple, places[i]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data__patches__size": (32, 32)}, "data.patches.size.*three whole numbers"),
        ({"data__patches__size": (4, 32, 33)}, "three numbers, depth, height and width.*1 and 2"),
        ({"augmentation__crop": (8, 12)}, "augmentation.crop .*must be three numbers"),
        ({"augmentation__crop": (8, 8, 12)}, "exceeds config.data.patches.size"),
        ({"augmentation__foreground": 2.0}, "foreground is a part of the crops, not 2.0"),
        ({"augmentation__tilt": -1.0}, "config.augmentation: rotation"),
        ({"model__strides": ((2, 2),)}, "config.model.strides"),
        ({"model__kernels": ()}, None),
        (
            {"data__patches__fit": "whole"},
            "fit=whole the patches are of .*crop is empty, not .4, 8, 12",
        ),
    ],
)
def test_values_that_do_not_fit_volumes(tiny, changes, message):
    config = tiny("local_mi", **{**SOLID, **changes})
    if message is None:
        check_config(config)
        return
    with pytest.raises(UserError, match=message):
        check_config(config)


def test_what_is_for_volumes_or_for_slices_alone(tiny):
    with pytest.raises(UserError, match="tilt is for"):
        check_config(tiny("local_mi", augmentation__tilt=5.0))
    with pytest.raises(UserError, match="fit=whole is for data.patches.dims=3"):
        check_config(tiny("local_mi", data__patches__fit="whole"))
    with pytest.raises(UserError, match="position_contrast compares slices"):
        check_config(tiny("position_contrast", **SOLID))
    with pytest.raises(UserError, match="local_contrast keeps pseudo-labels of images of one size"):
        check_config(tiny("local_contrast", **DRAWN))
