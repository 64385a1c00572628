"""Volumes annotated in part: what is trained on, what is scored, and that nothing leaks."""

import json

import jax
import numpy as np
import pytest

from mijax import methods
from mijax.data import (
    UNLABELLED,
    Annotation,
    Drawn,
    Volume,
    draw_splits,
    read_splits,
    write_annotation,
    write_splits,
)
from mijax.errors import UserError
from mijax.inference import evaluate
from mijax.inference.contours import contours
from mijax.inference.score_table import table
from mijax.inference.scores import (
    METRICS,
    VOLUME,
    mean_dsc,
    partly_annotated,
    score,
    without_gaps,
)
from mijax.report.chance import resampled_means
from mijax.report.predictions import choose_cases
from mijax.runs.annotation import annotation_of, settle_annotation
from mijax.runs.folder import start_run
from mijax.runs.info import fingerprint
from mijax.runs.source import index_data, open_data, prepare_data
from mijax.training import loop, train
from mijax.training.build import build
from mijax.training.gaps import have_gaps
from mijax.training.training_set import check_classes, check_slices, load_training_set

CLASSES = ("background", "body", "core")


@pytest.fixture
def splits(tiny):
    cases = index_data(tiny("local_mi")).cases
    return draw_splits(cases, labelled=2, validation=2, test=2, seed=1)


class Redrawn:
    """A source whose labels are others wherever they do not count."""

    def __init__(self, source, annotation):
        self._source, self._annotation = source, annotation
        self.classes, self.channels, self.cases = source.classes, source.channels, source.cases
        self.undrawn = annotation.undrawn(source.classes)

    def volume(self, name):
        volume = self._source.volume(name)
        counts = self._annotation.restrict(volume, self.classes)
        label = np.where(counts.label == UNLABELLED, 2 - volume.label, volume.label)
        return self._annotation.restrict(volume._replace(label=label), self.classes)


def test_slices_without_an_annotation_are_unlabelled_ones(tiny, splits, told):
    annotation = Annotation({splits.labelled[0]: Drawn((1, 3), None)})
    config, local_mi = tiny("local_mi"), methods.build("local_mi")
    found, whole = (
        load_training_set(open_data(config, a), splits, config, local_mi)
        for a in (annotation, None)
    )
    np.testing.assert_array_equal(found.image, whole.image[[1, 3, 4, 5, 6, 7]])
    np.testing.assert_array_equal(found.label, whole.label[[1, 3, 4, 5, 6, 7]])
    images = np.concatenate([whole.unlabelled.image, whole.image[[0, 2]]])
    np.testing.assert_array_equal(found.unlabelled.image, images)
    np.testing.assert_allclose(found.unlabelled.position[-2:], [0, 2 / 3], rtol=1e-6)
    assert found.unlabelled.volume.tolist() == [0] * 4 + [1] * 4 + [2] * 2
    line = (
        "labelled cases: 6 slices have labels; 2 have none in some pixel, and join the unlabelled"
    )
    assert told[-1] == f"{line} ones"
    # Nothing is left to be masked: the program is that of whole labels.
    assert not have_gaps(found, CLASSES)
    # Pre-training looks at all slices, once.
    blind = methods.build("boundary_iic")
    assert len(load_training_set(open_data(config, annotation), splits, config, blind)[2][0]) == 16


@pytest.mark.parametrize("drawn", [Drawn((1, 3), None), Drawn((), None), Drawn((0,), ("body",))])
def test_what_does_not_count_changes_nothing(tiny, splits, drawn):
    config = tiny("local_mi", **{"hypergradient.weights": ("mi_weight",)})
    source = open_data(config)
    cases = {splits.labelled[0]: drawn._replace(classes=None), splits.validation[0]: drawn}
    annotation = Annotation(cases if drawn.classes is None else {splits.labelled[0]: Drawn((2,))})
    sets = [
        load_training_set(s, splits, config, methods.build("local_mi"))
        for s in (open_data(config, annotation), Redrawn(source, annotation))
    ]
    jax.tree.map(np.testing.assert_array_equal, *sets)


def test_pixels_without_a_label_are_of_no_class(tiny, splits):
    """Half a slice to ignore, and a case of which the core was not drawn."""
    config = tiny("local_mi", **{"data.patches.size": (64, 32)})
    name = splits.labelled[0]

    class Source(Redrawn):
        def volume(self, name):
            volume = self._source.volume(name)
            volume.label[:16, :, 0] = UNLABELLED
            if name == splits.labelled[1]:
                volume.label[volume.label == 2] = 0
            return self._annotation.restrict(volume, self.classes)

    annotation = Annotation({splits.labelled[1]: Drawn(None, ("body",))})
    source = Source(open_data(config), annotation)
    found = load_training_set(source, splits, config, methods.build("local_mi"))
    assert found.label.shape == (8, 64, 32) and have_gaps(found, CLASSES)
    padding = np.r_[:16, 48:64]
    assert (found.label[:, padding] == 0).all()
    assert (found.label[[0, 4], 16:32] == UNLABELLED).all()
    second = found.label[4:, 16:48]
    assert set(np.unique(second)) == {1, 3, UNLABELLED}  # 3: background or core
    # Whole slices of the first case stay out of the unlabelled ones.
    assert found.unlabelled.volume.tolist() == [0] * 4 + [1] * 4 + [2] + [3] * 4
    assert name == splits.labelled[0]


def test_the_step_takes_them(tiny, splits):
    """Traced alone; what label_loss makes of them is in tests/methods/test_gaps.py."""
    config = tiny("supervised")
    experiment = build(config, classes=CLASSES, channels=1)
    state = experiment.like(0)
    source = open_data(config)
    training_set = load_training_set(source, splits, config, experiment.method)
    after, logs = jax.eval_shape(
        experiment.train_step(1, gaps=True, undrawn=((1, 2), (2,))), state, training_set
    )
    assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    assert set(logs) == {"loss", "supervised"}


def test_a_run_learns_from_what_was_drawn(tiny, splits, tmp_path, monkeypatch):
    """As far as its loop, with nothing compiled but the first state."""
    annotation = Annotation(
        {
            splits.labelled[0]: Drawn(None, ("body",)),
            splits.labelled[1]: Drawn((1, 3)),
            splits.validation[0]: Drawn((2,)),
        }
    )
    write_annotation(tmp_path / "drawn.json", annotation.cases)
    write_splits(tmp_path / "splits.json", splits)

    class Source(Redrawn):
        def volume(self, name):
            volume = self._source.volume(name)
            if name == splits.labelled[0]:
                volume.label[volume.label == 2] = 0
            return self._annotation.restrict(volume, self.classes)

    def prepared(config, found, annotation):
        return Source(prepare_data(config, found), annotation)

    monkeypatch.setattr(loop, "prepare_data", prepared)
    monkeypatch.setattr(loop, "_loop", lambda *arguments: arguments)
    config = tiny("supervised", data__annotation__file=str(tmp_path / "drawn.json"))
    config.data.splits.file = str(tmp_path / "splits.json")
    _, experiment, _, _, training_set, validation = train(start_run(tmp_path / "run", config))
    assert experiment.train_step.keywords == {"gaps": True, "undrawn": ((2,),)}
    assert len(training_set.label) == 4 + 2
    assert set(np.unique(training_set.label[:4])) == {1, 3}  # 3: background or core
    assert (validation[0].label[..., [0, 1, 3]] == UNLABELLED).all()


def test_a_run_is_scored_by_what_was_drawn(copied):
    run = copied("local_mi")
    test = read_splits(run.folder / "splits.json").test
    write_annotation(run.folder / "annotation.json", {test[0]: Drawn((1,))})
    cases, source = evaluate(run)["last"]["cases"], open_data(run.config)
    for name, slices in zip(test, ([1], [0, 1, 2, 3]), strict=True):
        volume = source.volume(name)
        drawn = (volume.label[..., slices] == 1).sum() * np.prod(volume.spacing) / 1000
        assert cases[name]["body"]["volume"] == pytest.approx(drawn)


def test_labelled_cases_alone_have_unlabelled_slices(tiny, splits):
    config, local_mi = tiny("local_mi"), methods.build("local_mi")
    alone = splits._replace(unlabelled=())
    found, annotation = index_data(config), Annotation({splits.labelled[0]: Drawn((0,), None)})
    with pytest.raises(UserError, match="learns from unlabelled cases and there are none"):
        check_slices(alone, found, config, local_mi, Annotation({}))
    check_slices(alone, found, config, local_mi, annotation)
    assert len(load_training_set(open_data(config, annotation), alone, config, local_mi)[2][0]) == 3
    # Another case's annotation leaves none over, which only the voxels tell.
    other = open_data(config, Annotation({splits.test[0]: Drawn((0,), None)}))
    with pytest.raises(UserError, match="learns from unlabelled cases and there are none"):
        load_training_set(other, alone, config, local_mi)
    nothing = Annotation({name: Drawn(()) for name in splits.labelled})
    with pytest.raises(UserError, match="no slice of 2 cases has an annotated pixel, phantom_"):
        load_training_set(open_data(config, nothing), splits, config, local_mi)


def test_the_annotation_of_a_run_is_settled_once(tiny, tmp_path, told, saved, monkeypatch):
    given, config = tmp_path / "given.json", tiny("supervised")
    config.data.annotation.file = str(given)
    run, found = start_run(tmp_path / "run", config), index_data(config)
    write_annotation(given, {"phantom_0009": Drawn((1,), None)})
    with pytest.raises(UserError, match=r"given\.json: annotation: case phantom_0009 is not in"):
        settle_annotation(run, found)
    write_annotation(given, {"phantom_0001": Drawn((4,), None)})
    with pytest.raises(UserError, match=r"case phantom_0001 has no slice 4; its 4 slices are 0 to"):
        settle_annotation(run, found)
    assert not (run.folder / "annotation.json").exists()
    drawn = {"phantom_0001": Drawn((1, 2), ("body", "core"))}
    write_annotation(given, drawn)
    with monkeypatch.context() as patch:
        patch.setattr("mijax.parallel.is_first", lambda: False)
        assert settle_annotation(run, found) == Annotation(drawn)
        assert not (run.folder / "annotation.json").exists()
    settled = settle_annotation(run, found)
    assert settled == annotation_of(run) == Annotation(drawn)
    drawn = {"phantom_0001": Drawn((1, 2), ("core", "body"))}
    write_annotation(given, drawn)  # before there is a checkpoint
    settled = settle_annotation(run, found)
    assert settled == annotation_of(run) == Annotation(drawn)
    saved(run)
    write_annotation(given, {})
    assert settle_annotation(run, found) == settled
    assert told == [f"{run.folder} goes on with its own annotation.json: {given} differs"]
    given.unlink()  # the run has its own
    assert settle_annotation(run, found) == settled
    source = prepare_data(config, found, settled)
    assert (source.volume("phantom_0001").label[..., [0, 3]] == UNLABELLED).all()
    config.data.annotation.empty_is_unlabelled = True
    assert annotation_of(run).empty_is_unlabelled


# Scores --------------------------------------------------------------------------------


def volume_of(name, label, undrawn=()):
    return Volume(name, np.zeros((*label.shape, 1), np.float32), label, np.eye(4), undrawn)


def cube(value, at):
    label = np.zeros((8, 8, 8), np.uint8)
    label[at : at + 2, 2:4, 2:4] = value
    return label


def scored(maps, volumes):
    entry = {"step": 4, "split": "test", **score([(m, None) for m in maps], volumes, CLASSES)}
    json.dumps(entry, allow_nan=False)
    mean, by_class = mean_dsc(maps, volumes, CLASSES)
    assert mean == entry["mean_dsc"]
    assert by_class == {n: entry["classes"][n]["dsc"]["mean"] for n in by_class}
    return entry


@pytest.mark.parametrize("under", [0, 1, 2])
def test_voxels_without_a_label_are_not_scored(under):
    """Whatever is found there."""
    truth, found = cube(1, 1) + cube(2, 5), cube(1, 2) + cube(2, 5)
    plain = scored([found], [volume_of("a", truth)])
    gap = np.zeros(truth.shape, bool)
    gap[:, :, 6:] = True
    hidden = [volume_of("a", np.where(gap, np.uint8(UNLABELLED), truth))]
    of_gaps = scored([np.where(gap, np.uint8(under), found)], hidden)["cases"]["a"]
    for name, values in plain["cases"]["a"].items():  # surfaces may be those of the gap
        assert of_gaps[name] == values | dict.fromkeys(("nsd", "hd95", "assd"))
    # A part of what was found lies where nobody looked.
    half = np.where(np.arange(8)[:, None, None] == 3, np.uint8(UNLABELLED), truth)
    entry = scored([found], [volume_of("a", half)])
    assert entry["cases"]["a"]["body"]["dsc"] == pytest.approx(2 * 4 / (8 + 4))
    assert entry["cases"]["a"]["core"]["dsc"] == 1


def test_slices_that_were_annotated_have_no_surfaces():
    """Each pixel of one would lie on a surface, from which a wrong one is never far."""
    truth, annotation = cube(1, 1) + cube(2, 5), Annotation({"a": Drawn((2,))})
    volume = annotation.restrict(volume_of("a", truth), CLASSES)
    entry = scored([cube(1, 2) + cube(2, 6)], [volume])
    for name in CLASSES[1:]:
        assert entry["cases"]["a"][name] == {
            "dsc": 0.5, "nsd": None, "hd95": None, "assd": None, "volume_error": 0.0,
            "volume": pytest.approx(0.004),
        }  # fmt: skip
        assert entry["classes"][name]["hd95"] == {"mean": None, "std": None, "undefined": 1}
    assert "undefined" in table({"last": entry})


def test_classes_that_were_not_drawn_have_no_score():
    volumes = [volume_of("a", cube(1, 2), (2,)), volume_of("b", cube(1, 2) + cube(2, 5))]
    maps = [cube(1, 3) + cube(2, 6), cube(1, 2) + cube(2, 5)]
    entry = scored(maps, volumes)
    assert entry["cases"]["a"]["core"] == dict.fromkeys([*METRICS, VOLUME])
    assert entry["cases"]["a"]["body"]["dsc"] == 0.5
    assert entry["classes"]["core"]["dsc"] == {"mean": 1.0, "std": None, "undefined": 1}
    assert entry["mean_dsc"] == (0.75 + 1) / 2  # of the classes' means
    assert "[1 undefined]" in table({"last": entry})


def test_a_case_without_any_annotation_has_no_score(told):
    nothing = volume_of("a", np.full((8, 8, 8), UNLABELLED, np.uint8))
    volumes = [nothing, volume_of("b", cube(1, 2) + cube(2, 5))]
    entry = scored([0 * cube(1, 2), cube(1, 2)], volumes)
    assert {value["dsc"] for value in entry["cases"]["a"].values()} == {None}
    assert entry["mean_dsc"] == 0.5
    line = (
        "1 of 2 are scored by what was annotated alone, which leaves out a (100.0% of its voxels)"
    )
    assert partly_annotated(volumes, CLASSES) == line
    check_classes(cube(1, 2) + cube(2, 5), volumes, CLASSES)
    assert told == [f"validation cases: {line}"]
    assert partly_annotated(volumes[1:], CLASSES) == ""
    partly = [volume_of(str(i), cube(1, 2), (2,)) for i in range(12)]
    named = ", ".join(f"{i} (core)" for i in range(9))
    assert partly_annotated(partly, CLASSES).endswith(f"which leaves out {named}, 3 more")


def test_gaps_are_background_to_the_eye():
    label = cube(1, 1)
    label[:, :, 6:] = UNLABELLED
    volume = volume_of("a", label)
    np.testing.assert_array_equal(without_gaps(volume).label, cube(1, 1))
    plain = volume_of("a", cube(1, 1))
    pictures = [contours(v, cube(1, 2), plane="axial") for v in (volume, plain)]
    np.testing.assert_array_equal(*pictures)


def test_other_gaps_are_other_data():
    drawn, undrawn = volume_of("a", cube(1, 1)), volume_of("a", cube(1, 1), (2,))
    assert fingerprint([drawn]) != fingerprint([undrawn])


def test_a_report_leaves_out_what_has_no_score(monkeypatch):
    values, patients = np.arange(8.0), list("abcdefgh")
    gappy = np.concatenate([values, [np.nan]])
    found, plain = resampled_means(gappy, [*patients, "i"]), resampled_means(values, patients)
    np.testing.assert_allclose(found.mean(), plain.mean(), atol=0.05)
    assert values.min() <= found.min() and found.max() <= values.max()
    assert resampled_means(np.full(8, np.nan), patients) is None
    assert resampled_means(np.stack([values, np.full(8, np.nan)]), patients) is None
    means = {"a": 0.5, "b": np.nan, "c": 0.9, "d": 0.1}
    monkeypatch.setattr("mijax.report.predictions.case_means", lambda row: row)
    assert list(choose_cases([means]).values()) == ["c", "a", "d"]
    assert choose_cases([{"b": np.nan}]) == {"Best case": "b"}
