"""Pre-training without labels, and runs that begin with the weights of another."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mijax.data import Case, Splits, read_splits, write_splits
from mijax.errors import Notice, UserError
from mijax.inference import Predictor, evaluate
from mijax.inference.score_table import table
from mijax.inference.scoring import make_scoring
from mijax.inference.volumes import even_slices
from mijax.models import CLASSIFIER
from mijax.runs.folder import default_folder, open_run, start_run
from mijax.runs.leak import check_leak
from mijax.runs.method import make_method
from mijax.runs.source import open_data, prepare_data, same_volumes
from mijax.runs.splits import settle_splits
from mijax.selection.candidates import find_candidates
from mijax.training import loop, train
from mijax.training.build import build
from mijax.training.pretrained import pretrained

pytestmark = pytest.mark.xdist_group("pretraining")


@pytest.fixture(scope="module")
def run(uninterrupted):
    return uninterrupted("boundary_iic")


@pytest.fixture
def finetuned(run, tiny, tmp_path):
    """``finetuned(method, **changes)``: a run that begins with the weights of ``run``."""

    def start(method, **changes):
        config = tiny(method, init_from=str(run.folder), **changes)
        return start_run(tmp_path / "finetuned", config)

    return start


def test_is_scored_by_measures_without_a_dsc(run):
    scores = evaluate(run)
    assert json.loads((run.folder / "scores.json").read_text()) == scores
    for entry in scores.values():
        assert entry.keys() == {"step", "split", "data", "measures"}
        measures = entry["measures"]
        assert 0 <= measures["mutual_information"] <= np.log(4)
        for name in ("cluster_balance", "agreement", "boundary_correlation"):
            assert 0 <= measures[name] <= 1
        for name, value in measures.items():
            assert f"{name}" in table(scores) and f"{value:.4f}" in table(scores)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    found = {x["step"]: x["validation_mutual_information"] for x in lines if len(x) == 5}
    assert len(found) == 3 and scores["best"]["step"] == max(found, key=found.get)


def test_clusters_of_pixels(run):
    predictor = Predictor(run, checkpoint="last")
    scoring = make_scoring(predictor.network, make_method(run.config).examination)
    volumes = [open_data(run.config).volume(name) for name in run_splits(run)["validation"]]
    images = even_slices(volumes, run.config.data.patches, count=8)
    clusters = np.asarray(scoring.clusters(predictor.weights, images))
    assert clusters.shape == images.shape[:3]
    assert clusters.min() >= 0 and clusters.max() < scoring.count == 4


def run_splits(run):
    return json.loads((run.folder / "splits.json").read_text())


def test_no_label_is_looked_at(run, tiny, restored, tmp_path, monkeypatch):
    class Blind:
        def __init__(self, source):
            self._source, self.classes = source, source.classes
            self.channels, self.cases = source.channels, source.cases

        def volume(self, name):
            return self._source.volume(name)._replace(label=None)

    monkeypatch.setattr(
        "mijax.training.loop.prepare_data", lambda *found: Blind(prepare_data(*found))
    )
    blind = train(start_run(tmp_path, tiny("boundary_iic")))
    _, state = restored(run)
    assert jax.tree.all(jax.tree.map(np.array_equal, state.params, blind.params))


def test_finetuning_begins_with_all_but_the_classifier(run, restored, finetuned, monkeypatch):
    other = finetuned("mean_teacher", seed=1)
    monkeypatch.setattr(loop, "_loop", lambda *arguments: arguments)
    state = jax.device_get(train(other)[3])
    _, origin = restored(run, "best")
    wanted = jax.device_get(origin.params["network"])
    network = state.params["network"]
    assert network.keys() == wanted.keys()
    for name, layer in network.items():
        same = jax.tree.all(jax.tree.map(np.array_equal, layer, wanted[name]))
        assert same == (name != CLASSIFIER), name
    teacher = state.memory["teacher"]["network"]
    assert jax.tree.all(jax.tree.map(np.allclose, teacher, network))
    info = open_run(other.folder).info()
    assert info["init_from"]["method"]["name"] == "boundary_iic"
    assert default_folder(other.config).name.endswith("-from-run")


def test_both_networks_of_cross_pseudo_begin_with_the_weights_but_classifiers_of_their_own(tiny):
    experiment = build(
        tiny("cross_pseudo"), classes=("a", "b"), channels=1, devices=jax.devices()[:1]
    )
    drawn = experiment.init(1, 8)
    given = jax.tree.map(jax.numpy.copy, (drawn.params["network"], drawn.batch_stats))
    # Where it has a classifier, one network takes that as well.
    whole = experiment.init(0, 8, given).params
    kernels = [whole[n][CLASSIFIER]["kernel"] for n in ("network", "other")]
    assert np.array_equal(kernels[0], given[0][CLASSIFIER]["kernel"])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    without = {name: layer for name, layer in given[0].items() if name != CLASSIFIER}
    drawn_anew = experiment.init(0, 8, (without, given[1]))
    first, second = (drawn_anew.params[n] for n in ("network", "other"))
    for name, layer in given[0].items():
        for network in (first, second):
            same = jax.tree.all(jax.tree.map(np.array_equal, layer, network[name]))
            assert same == (name != CLASSIFIER), name
    kernels = [network[CLASSIFIER]["kernel"] for network in (first, second)]
    assert np.abs(kernels[0] - kernels[1]).max() > 0.1
    # Buffers of their own, or they could not be donated to the train step.
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves((first, second))}
    assert len(pointers) == len(jax.tree.leaves((first, second)))
    # Without weights that are given, the two have nothing in common.
    other = drawn.params["other"]
    assert not np.allclose(other["Conv1a"]["kernel"], drawn.params["network"]["Conv1a"]["kernel"])


def test_layers_of_deep_supervision_may_be_of_one_of_the_two_alone(tiny, monkeypatch, tmp_path):
    """A pre-training has none, and what it has too many would be in no checkpoint."""
    splits = Splits(("a",), (), ("v",), ())
    write_splits(tmp_path / "splits.json", splits)
    one = SimpleNamespace(folder=tmp_path, config=tiny("supervised", init_from="there"))
    plain, deep = (
        build(
            tiny("supervised", model__widths=(4, 8, 8), model__deep_supervision=supervision),
            classes=("a", "b"),
            channels=1,
            devices=jax.devices()[:1],
        )
        for supervision in (False, True)
    )
    for first, other in ((plain, deep), (deep, plain)):
        origin, like = first.init(0, 0), other.like(0)
        weights = {"params": {"network": origin.params["network"]}}
        weights["batch_stats"] = origin.batch_stats
        monkeypatch.setattr(
            "mijax.training.pretrained.Predictor",
            lambda _, weights=weights, **__: SimpleNamespace(weights=weights),
        )
        state = other.init(1, 0, pretrained(one, one, like, classes=("a", "b")))
        assert jax.tree.structure(state) == jax.tree.structure(like)
        begun, given = state.params["network"], origin.params["network"]
        kernels = [n for n in begun.keys() & given.keys() if "kernel" in begun[n]]
        other = {n for n in kernels if not np.array_equal(begun[n]["kernel"], given[n]["kernel"])}
        assert other == {CLASSIFIER} and len(kernels) > 4


def test_running_statistics_come_along(run, restored, finetuned):
    other = finetuned("supervised")
    experiment, origin = restored(run, "best")
    like = experiment.like(0)._replace(params={"network": experiment.like(0).params["network"]})
    _, batch_stats = pretrained(run, other, like, classes=("a", "b"))
    assert jax.tree.all(jax.tree.map(np.array_equal, batch_stats, origin.batch_stats))
    assert any(np.any(x != 0) for x in jax.tree.leaves(batch_stats))


def test_the_classifier_is_of_the_same_classes(tiny, monkeypatch, tmp_path):
    found = SimpleNamespace(classes=("a", "b"), weights={"params": {"network": {}}})
    found.weights["batch_stats"] = {}
    monkeypatch.setattr("mijax.training.pretrained.Predictor", lambda *_, **__: found)
    one = SimpleNamespace(folder="there", config=tiny("supervised", init_from="there"))
    like = SimpleNamespace(params={"network": {}}, batch_stats={})
    pretrained(one, one, like, classes=("a", "c"))  # without it
    one.config.grow_from = "there"
    pretrained(one, one, like, classes=("a", "b"))
    with pytest.raises(UserError, match="there has the classes a, b, and the data a, c now"):
        pretrained(one, one, like, classes=("a", "c"))


@pytest.mark.parametrize("option", [{"follow_links": True}, {"test_images": False}])
def test_the_same_scans_are_known_however_they_are_read(tiny, tmp_path, option):
    source, other = (
        tiny("supervised", data__source__dir=str(tmp_path)).data.source for _ in range(2)
    )
    other.update(option)
    assert same_volumes(source, other)
    other.dir = str(tmp_path / "copy")
    assert not same_volumes(source, other)


def test_names_that_come_again_in_another_folder_are_told(finetuned, monkeypatch):
    monkeypatch.setattr("mijax.runs.leak.same_volumes", lambda *_: False)
    monkeypatch.setattr(loop, "build", None)  # what comes next
    with (
        pytest.warns(Notice, match="by the names of cases in another folder; .* worth nothing"),
        pytest.raises(TypeError, match="not callable"),
    ):
        train(finetuned("supervised", data__splits__seed=3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.widths": (4, 12)}, "config.init_from: the network of .* is another one .*Conv2a"),
        ({"model.widths": (4, 8, 8)}, "config.init_from: the network of .* is another one"),
        ({"model.widths": (4,)}, "config.init_from: the network of .* is another one .its levels"),
        ({"model.strides": ((1, 2),)}, "config.init_from: the network of .* is another one .its"),
        ({"model.norm": "instance"}, "config.init_from: the network of .* is another one .its"),
        ({"data.splits.seed": 3}, "config.init_from: .* of the validation and test cases"),
        ({"init_from": "nowhere"}, "nowhere is not a run"),
    ],
)
@pytest.mark.filterwarnings("ignore:config.init_from. what nowhere was trained on is not known")
def test_refusals(finetuned, changes, message):
    other = finetuned("supervised")
    other.config.update_from_flattened_dict(changes)
    with pytest.raises(UserError, match=message) as caught:
        train(other)
    assert "\n" not in str(caught.value)


def test_cases_that_an_origin_of_the_origin_was_trained_on_are_refused(tiny, tmp_path):
    """Each step of a chain has the splits of the one before, but for the first."""
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    others = Splits(("a",), ("b",), ("v",), ("t",))
    for folder, before, splits in (
        (first, "", others._replace(unlabelled=("b", "t"), test=("c",))),
        (second, first, others),
        (third, second, others),
    ):
        start_run(folder, tiny("supervised", init_from=str(before)))
        write_splits(folder / "splits.json", splits)
    cases = [Case(name, name.strip("2"), True) for name in "abcvt"] + [Case("t2", "t", True)]
    message = f"{first} was trained or validated on the patients of 1 of the validation and test"
    for its in (
        read_splits(first / "splits.json"),
        others._replace(unlabelled=("t2",), test=()),  # another scan of the same patient
        others._replace(validation=("t",), test=("v",)),  # its best checkpoint was chosen by "t"
    ):
        write_splits(first / "splits.json", its)
        with pytest.raises(UserError, match=message):
            check_leak(open_run(third), others, cases)
    shutil.rmtree(first)
    with pytest.warns(Notice, match=f"what {first} was trained on is not known .* is not a run"):
        check_leak(open_run(third), others, cases)


def test_a_relative_origin_is_found_from_another_folder(tiny, tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    splits = Splits(("a",), ("b",), ("v",), ("t",))
    for name, origin, its in (
        ("first", "", splits._replace(labelled=("t",), test=())),
        ("second", "first", splits),
    ):
        run = start_run(name, tiny("supervised", init_from=origin, grow_from=origin))
        write_splits(run.folder / "splits.json", its)
    assert run.config.init_from == open_run("second").config.init_from == str(tmp_path / "first")
    assert run.config.grow_from == run.config.init_from  # all of its weights
    saved(run)
    start_run("second", tiny("supervised", init_from="first", grow_from="first"))


def test_test_cases_that_the_origin_knows_are_refused_when_scored(copied, tmp_path):
    origin = copied("boundary_iic").folder
    run = open_run(shutil.copytree(origin, tmp_path / "finetuned"))
    run.config.init_from = str(origin)
    splits = read_splits(origin / "splits.json")
    write_splits(
        origin / "splits.json", splits._replace(labelled=splits.labelled + splits.test, test=())
    )
    with pytest.raises(UserError, match="on the patients of 2 of the validation and test cases"):
        evaluate(run)


def test_a_folder_without_any_label(tiny, tmp_path):
    """Its splits are those that ``mijax.select`` draws; of a segmentation it is refused."""
    cases = [Case(f"c{i}", f"c{i}", labelled=False) for i in range(8)]
    run = start_run(tmp_path / "run", tiny("boundary_iic"))
    splits = settle_splits(run, cases)
    assert [len(names) for names in splits] == [0, 4, 2, 2]
    assert splits == find_candidates(run.config.data, cases, count=1).splits
    assert settle_splits(run, cases) == splits  # which it goes on with
    config = tiny("boundary_iic", data__splits__file=str(run.folder / "splits.json"))
    assert settle_splits(start_run(tmp_path / "other", config), cases) == splits
    with pytest.raises(UserError, match="no case has a label"):
        settle_splits(start_run(tmp_path / "partial", tiny("supervised")), cases)
    write_splits(tmp_path / "none.json", splits._replace(validation=()))
    config.data.splits.file = str(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"none.json: splits: validation is an empty split"):
        settle_splits(start_run(tmp_path / "none", config), cases)
