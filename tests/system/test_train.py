"""The loop and the step: what they read, what they write, what they refuse."""

import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from mijax import losses, methods, parallel
from mijax.data import Annotation, Splits, Volume, draw_splits
from mijax.data.volume import Geometry
from mijax.errors import UserError
from mijax.inference.network import evaluated
from mijax.methods import Unlabelled
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import start_run
from mijax.runs.source import index_data, open_data, prepare_data
from mijax.training import loop
from mijax.training.batches import UNCROPPED, PerRole, Pick, TrainingSet, step_keys
from mijax.training.build import build
from mijax.training.config_checks import check_config
from mijax.training.loop import dispatches, train
from mijax.training.state import TrainState
from mijax.training.step import augmented, make_train_step, make_update
from mijax.training.training_set import check_classes, check_slices, load_training_set

KEY = np.zeros(2, np.uint32)


def bytes_of(tree):
    return [x.tobytes() for x in jax.tree.leaves(jax.device_get(tree))]


@pytest.fixture
def last_state(restored):
    return lambda run: restored(run)[1]


def log_of(run):
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_log_holds_the_losses_and_the_validation(uninterrupted):
    log = log_of(uninterrupted("local_mi"))
    losses = [line for line in log if "loss" in line]
    assert [line["step"] for line in losses] == [2, 4, 6, 8, 10, 12]
    names = {"supervised", "mutual_information", "label_entropy", "consistency", "loss"}
    assert all(line.keys() == {"step", "learning_rate", *names} for line in losses)
    mean, of_class = "validation_dsc_percent", "validation_dsc_percent/"
    validations = [line for line in log if mean in line]
    assert [line["step"] for line in validations] == [4, 8, 12]
    for line in validations:
        parts = [line[of_class + name] for name in ("body", "core")]
        assert line.keys() == {"step", mean, *(of_class + name for name in ("body", "core"))}
        assert all(0 <= part <= 100 for part in parts)
        np.testing.assert_allclose(line[mean], np.mean(parts))
    run = uninterrupted("local_mi")
    with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
        folder = run.checkpoints / str(checkpoints.best_step())
    score = json.loads((folder / "metrics" / "metrics").read_text())["score"]
    np.testing.assert_allclose(100 * score, max(line[mean] for line in validations))


def test_tensorboard_has_pictures_and_hyperparameters(uninterrupted, events_of):
    run = uninterrupted("local_mi")
    events = events_of(run.folder)
    splits = json.loads((run.folder / "splits.json").read_text())
    for name in splits["validation"]:
        pictures = [(e, v) for e, v in events if v.tag == f"validation/{name}"]
        assert [e.step for e, _ in pictures] == [4, 8, 12]
        assert all((v.image.height, v.image.width) == (256, 256) for _, v in pictures)
    tags = {v.tag for _, v in events}
    assert {"loss", "validation_dsc_percent", "validation_dsc_percent/core"} <= tags
    (start,) = (v for _, v in events if v.tag.endswith("session_start_info"))
    found = HParamsPluginData.FromString(start.metadata.plugin_data.content)
    values = found.session_start_info.hparams
    assert values["method.name"].string_value == "local_mi"
    assert values["method.weight"].number_value == 30.0
    assert values["data.patches.size"].string_value == "(32, 32)"


def volume_of(name, value):
    label = np.zeros((4, 4, 2), np.uint8)
    label[1, 1] = value
    return Volume(name, np.zeros((4, 4, 2, 1), np.float32), label, np.eye(4))


def test_classes_that_no_case_shows_are_told_of_at_the_start(told):
    classes = ("background", "body", "core", "lesion")
    volumes = [volume_of("a", 1), volume_of("b", 3)]
    check_classes(volumes[0].label, volumes, classes)
    assert told == [
        "no labelled case shows core: it cannot be learned",
        "no labelled case shows lesion: it cannot be learned",
        "no validation case shows core: it has no part in the validation DSC",
    ]
    with pytest.raises(UserError, match="the validation cases show no class"):
        check_classes(volumes[0].label, [volume_of("a", 0)], classes)


def test_loss_is_the_sum_of_its_terms(uninterrupted):
    run = uninterrupted("local_mi")
    weight = run.config.method.weight
    for line in log_of(run):
        if "loss" in line:
            regulariser = line["consistency"] - line["mutual_information"]
            np.testing.assert_allclose(
                line["loss"], line["supervised"] + weight * regulariser, rtol=1e-5
            )


def test_compiling_is_told_and_left_out_of_the_time_left(monkeypatch, told):
    left_out = []
    monkeypatch.setattr("mijax.progress.PATIENCE", 0.0)
    with loop._compiling(SimpleNamespace(leave_out=left_out.append)):
        time.sleep(0.2)
    assert told[0] == "compiling the training step …"
    assert told[1].startswith("compiling the training step took ") and len(told) == 2
    assert left_out[0] >= 0.2


def test_seed_decides(tiny, tmp_path, monkeypatch):
    # That the same seed gives the same is in test_resume.py.
    monkeypatch.setattr(loop, "_loop", lambda *arguments: arguments)
    states = [
        train(start_run(tmp_path / str(seed), tiny("supervised", seed=seed)))[3] for seed in (0, 1)
    ]
    assert bytes_of(states[0].params) != bytes_of(states[1].params)
    assert bytes_of(states[0].key) != bytes_of(states[1].key)


class Poisoned:
    """A source in which the labels of some cases are wrong."""

    def __init__(self, source, names):
        self._source, self._names = source, names
        self.classes, self.channels, self.cases = source.classes, source.channels, source.cases

    def volume(self, name):
        volume = self._source.volume(name)
        if name in self._names:
            volume = volume._replace(label=2 - volume.label)
        return volume


def test_labels_of_unlabelled_cases_do_not_matter(
    uninterrupted, tiny, tmp_path, monkeypatch, last_state
):
    config, run = tiny("local_mi"), uninterrupted("local_mi")
    splits = json.loads((run.folder / "splits.json").read_text())
    assert len(splits["unlabelled"]) == 2

    monkeypatch.setattr(
        loop, "prepare_data", lambda *found: Poisoned(prepare_data(*found), splits["unlabelled"])
    )
    assert bytes_of(train(start_run(tmp_path, config))) == bytes_of(last_state(run))
    # And poison can be tasted at all.
    name, source = splits["labelled"][0], open_data(config)
    labels = [s.volume(name).label for s in (source, Poisoned(source, [name]))]
    assert np.mean(labels[0] != labels[1]) > 0.5


def test_training_set_has_only_what_the_splits_say(tiny):
    config = tiny("local_mi")
    source = open_data(config)
    splits = draw_splits(source.cases, labelled=1, validation=2, test=2, seed=1)
    experiment = build(config, classes=source.classes, channels=1)
    training_set = load_training_set(source, splits, config, experiment.method)
    assert training_set.image.shape == (4, 32, 32, 1) and training_set.label.shape == (4, 32, 32)
    unlabelled = training_set.unlabelled
    assert unlabelled.image.shape == (3 * 4, 32, 32, 1)
    assert unlabelled.volume.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    np.testing.assert_allclose(unlabelled.position, 3 * [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    supervised = methods.build("supervised")
    assert load_training_set(source, splits, config, supervised).unlabelled is None
    blind = methods.build("boundary_iic")
    training_set = load_training_set(source, splits, config, blind)
    assert training_set.image is None and training_set.label is None
    assert training_set.unlabelled.image.shape == (4 * 4, 32, 32, 1)  # the labelled case as well


@pytest.mark.parametrize("per_dispatch", [0, 1, 3, 100])
def test_dispatches_cover_every_step_and_end_at_the_log(per_dispatch, tiny):
    config = tiny("supervised", steps=21, log_every=5, steps_per_dispatch=per_dispatch)
    for start in (0, 10, 21):
        calls = list(dispatches(start, config))
        covered = [s for step, length in calls for s in range(step, step + length)]
        assert covered == list(range(start, 21))
        ends = {step + length for step, length in calls}
        assert ends >= {s for s in (5, 10, 15, 20, 21) if s > start}
        assert all(length <= max(per_dispatch, 1) for _, length in calls)


@pytest.fixture
def parts(tiny):
    """Experiment, state and training set of random slices, for a method."""

    def make(method, **changes):
        config = tiny(method, **changes)
        experiment = build(config, classes=("background", "body", "core"), channels=1)
        key = np.random.default_rng(0)
        training_set = TrainingSet(
            key.random((6, 32, 32, 1), np.float32),
            key.integers(0, 3, (6, 32, 32)).astype(np.uint8),
            Unlabelled(key.random((8, 32, 32, 1), np.float32), np.zeros(8), np.zeros(8, int))
            if experiment.method.unlabelled
            else None,
        )
        return (
            config,
            experiment,
            jax.device_put(training_set, parallel.replicated(experiment.mesh)),
        )

    return make


def test_state_is_donated(parts):
    config, experiment, training_set = parts("supervised")
    state = experiment.init(config.seed, 8)
    experiment.train_step(1)(state, training_set)
    assert all(x.is_deleted() for x in jax.tree.leaves(state))
    assert not any(x.is_deleted() for x in jax.tree.leaves(training_set))


@pytest.mark.parametrize(
    ("method", "passes"),
    [
        ("supervised", [8]),
        ("entropy", [8 + 8]),
        ("local_mi", [8 + 8 + 8]),
        ("mean_teacher", [8, 8, 8]),  # labelled, student, teacher
    ],
)
def test_forward_passes_of_a_step(parts, method, passes):
    _, experiment, training_set = parts(method)
    seen = []

    class Counting:
        def apply(self, variables, images, *, train, **options):
            seen.append(len(images))
            assert train
            features = images.mean() * sum(x.sum() for x in jax.tree.leaves(variables["params"]))
            logits = images * features * jax.numpy.arange(3.0)[None, None, None]
            return (logits, {}), {"batch_stats": variables["batch_stats"]}

    step = make_train_step(
        Counting(),
        experiment.method,
        SimpleNamespace(update=lambda grads, state, params: (grads, state)),
        mesh=experiment.mesh,
        label_loss=losses.cross_entropy,
        batches=experiment.batches,
        augmentation={},
        length=1,
    )
    jax.eval_shape(step, experiment.like(8), training_set)
    assert seen == passes


def test_a_foreground_that_grows_is_told_of_once(tiny, uninterrupted, tmp_path, told, monkeypatch):
    doubt = methods.build("local_mi").doubt
    assert not doubt({"mutual_information": 0.45, "label_entropy": 0.43})
    assert not doubt({"mutual_information": 1e-4, "label_entropy": 0.0})
    line = doubt({"mutual_information": 0.71, "label_entropy": 0.43})
    assert line.startswith("mutual_information (0.71) is more than right predictions have")
    assert methods.build("strong_mi").doubt({"mutual_information": 1.0, "label_entropy": 0.4})
    built = loop.build

    def with_doubt(*arguments, **options):
        experiment = built(*arguments, **options)
        return experiment._replace(method=experiment.method._replace(doubt=lambda means: line))

    monkeypatch.setattr(loop, "build", with_doubt)
    train(start_run(tmp_path, tiny("local_mi")))
    assert told.count(f"step 2: {line}") == 1 and not any("step 4: mutual" in x for x in told)


def test_the_memory_of_a_method_follows_the_network_and_is_evaluated():
    method = SimpleNamespace(
        loss=lambda params, memory, batch, **_: ((params["network"] ** 2), methods.Aux(batch, {})),
        update=lambda memory, params, batch_stats, step: (*memory, params["network"], step),
        predictor=lambda params, batch_stats, memory: (memory, batch_stats),
        examination=None,
    )
    update = make_update(
        None, method, optax.sgd(0.5), mesh=None, label_loss=None, hypergradient=None
    )
    params = {"network": jax.numpy.float32(3.0)}
    state = TrainState(4, params, 0.0, (), optax.sgd(0.5).init(params), None)
    state, _ = update(state, 7.0, None, None)
    assert state.step == 5 and state.batch_stats == 7.0
    assert state.memory == (0.0, 4) and state.params["network"] == 0.0
    assert evaluated(method, state) == {"params": {"network": (0.0, 4)}, "batch_stats": 7.0}


def test_a_round_begins_with_the_best_network(tiny, tmp_path, monkeypatch):
    """Both of them with that of the first checkpoint, where the score falls."""
    asked, build_plain = [], loop.build

    class Asked(loop.Checkpoints):
        def restore_network(self, step, sharding):
            asked.append(step)
            return super().restore_network(step, sharding)

    def with_falling_score(*arguments, **options):
        experiment, scores = build_plain(*arguments, **options), iter((0.9, 0.8, 0.7))
        scoring = experiment.scoring._replace(validate=lambda *_: (next(scores), {}, {}))
        return experiment._replace(scoring=scoring)

    monkeypatch.setattr(loop, "Checkpoints", Asked)
    monkeypatch.setattr(loop, "build", with_falling_score)
    train(start_run(tmp_path, tiny("local_contrast")))
    assert asked == [4, 4]


def test_a_pseudo_label_is_that_of_its_slice():
    labels = (np.arange(6)[:, None, None] + np.zeros((1, 4, 4))).astype(np.uint8)
    index = np.array([4, 1, 4])
    slices = Unlabelled(labels[index][..., None].astype(np.float32), np.zeros(3), index)
    picks = PerRole(None, Pick(index, None), None)
    batch = augmented(
        TrainingSet(None, None, slices), picks, labels, step_keys(KEY, 0), {}, UNCROPPED
    )
    np.testing.assert_array_equal(batch.pseudo_label, batch.unlabelled[..., 0])


def test_scan_in_the_loop_gives_the_same_log(uninterrupted, tiny, tmp_path, last_state):
    # On a CPU one step a dispatch unless two are asked for.
    runs = (
        uninterrupted("supervised"),
        start_run(tmp_path, tiny("supervised", steps_per_dispatch=2)),
    )
    single, scanned = last_state(runs[0]), jax.device_get(train(runs[1]))
    for a, b in zip(jax.tree.leaves(single), jax.tree.leaves(scanned), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    for a, b in zip(log_of(runs[0]), log_of(runs[1]), strict=True):
        assert a.keys() == b.keys()
        np.testing.assert_allclose(list(a.values()), list(b.values()), atol=1e-4)


def test_nan_stops_the_run_and_keeps_the_checkpoints_before(tiny, tmp_path, monkeypatch):
    """A weight becomes NaN in step 6: its loss is the first that is not finite."""
    real = loop.build

    def spoiled(config, **shape):
        experiment = real(config, **shape)

        def train_step(length, streamed):
            step = experiment.train_step(length, streamed)

            def spoil(state, training_set):
                at = int(state.step)
                state, logs = step(state, training_set)
                if at == 5:
                    state = state._replace(params=jax.tree.map(lambda x: x * np.nan, state.params))
                return state, logs

            return spoil

        return experiment._replace(train_step=train_step)

    run = start_run(tmp_path, tiny("supervised"))
    monkeypatch.setattr(loop, "build", spoiled)
    for _ in range(2):  # and again: a rerun meets the same, and trips over nothing else
        with pytest.raises(UserError, match=r"^the loss is not finite at step 6 .*learning_rate"):
            train(run)
        assert [f.name for f in run.checkpoints.iterdir()] == ["4"]
        assert [line["step"] for line in log_of(run)] == [2, 4, 4, 6]


def test_weights_that_are_not_finite_are_never_saved(tiny, tmp_path):
    """The loss of the last step before a save is finite, the update it makes is not."""
    config = tiny("supervised", steps=1, learning_rate=1e38, warmup_steps=0)
    config.weight_decay = 1e3
    run = start_run(tmp_path, config)
    with pytest.raises(UserError, match="weights are not finite after step 1;"):
        train(run)
    assert list(run.checkpoints.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.splits.labelled": 0}, "learns from unlabelled cases and there are none"),
        ({"data.splits.labelled": 5}, "but there are 8"),
        ({"data.splits.validation": 0}, "empty split"),
        ({"data.patches.size": (32, 31)}, "config.data.patches.size .*multiples of 2"),
        ({"data.patches.size": (32,)}, "config.data.patches.size .*multiples of 2"),
        ({"data.patches.size": ("abc",)}, "data.patches.size=.*one or two whole numbers"),
        (
            {"data.patches.size": (32, 16)},
            "slices of 4 of 4 training cases exceed data.patches.size 32×16: up to "
            "32×32, phantom_000. the first",
        ),
        ({"augmentation.crop": (33, 33)}, "config.augmentation.crop"),
        ({"augmentation.crop": (64, 64)}, "config.augmentation.crop .*exceeds"),
        ({"augmentation.crop": (16,)}, "config.augmentation.crop"),
        ({"augmentation.scale": ("a", "b")}, "config.augmentation"),
        ({"augmentation.scale": (1.0,)}, "config.augmentation"),
        ({"augmentation.scale": (0.0, 1.0)}, "config.augmentation"),
        ({"model.widths": ()}, "config.model.widths"),
        ({"model.widths": ("a",)}, "config.model.widths"),
        ({"model.dropout": 1.5}, "config.model.dropout"),
        ({"model.encoder_dropout": (0.1,)}, "config.model.encoder_dropout .*each of the 2 levels"),
        ({"model.encoder_dropout": (0.1, 1.0)}, "config.model.encoder_dropout"),
        (
            {"model.norm": "instance", "augmentation.crop": (2, 2)},
            "config.augmentation.crop .2, 2. leaves one pixel at the deepest level",
        ),
        ({"model.norm": "layer"}, "config.model.norm is batch or instance, not 'layer'"),
        ({"model.strides": ((1, 2, 2),)}, "config.model.strides .*1 times 2 numbers, .*1 or 2"),
        ({"model.kernels": ((1, 3),)}, "config.model.kernels .*2 times 2 numbers, .*1 or 3"),
        ({"optimizer": "lion"}, "config.optimizer is adam or sgd, not 'lion'"),
        ({"schedule": "step"}, "config.schedule is cosine or polynomial, not 'step'"),
        ({"momentum": 1.0}, "config.momentum is at least 0 and below 1, not 1.0"),
        ({"augmentation.flip": 1.5}, "config.augmentation: flip is a probability, not 1.5"),
        ({"augmentation.blur": -1.0}, "config.augmentation: blur is at least 0, not -1.0"),
        ({"labelled_batch": 9}, "25 images .*do not divide over 8 devices.*labelled_batch"),
        ({"labelled_batch": 0}, "config.labelled_batch"),
        ({"label_loss": "focal"}, "config.label_loss is one of cross_entropy, dice"),
        ({"precision": "float23"}, "config.precision is float32 or bfloat16"),
        ({"log_every": 0}, "config.log_every"),
        ({"evaluate_every": 3}, "config.evaluate_every .*multiple of config.log_every"),
        ({"steps": 0}, "config.steps"),
        ({"steps_per_dispatch": -1}, "config.steps_per_dispatch"),
        ({"warmup_steps": -1}, "config.warmup_steps"),
        ({"seed": -1}, "config.seed"),
        ({"seed": 2**40}, "config.seed"),
        ({"method.consistency": "l1"}, "method local_mi: consistency"),
        ({"data.source.name": "cloud"}, "data source 'cloud'"),
        ({"data.patches.plane": "oblique"}, "data.patches.plane"),
        ({"data.patches.fit": "stretch"}, "data.patches.fit"),
        ({"data.patches.intensity": "log"}, "intensity"),
        ({"data.splits.file": "nowhere.json"}, "nowhere.json"),
    ],
)
def test_refusals(tiny, tmp_path, changes, message):
    config = tiny("local_mi")
    config.update_from_flattened_dict(changes)
    run = start_run(tmp_path, config)
    with pytest.raises(UserError, match=message) as caught:
        train(run)
    assert "\n" not in str(caught.value)
    # The corrected configuration may go into the same folder.
    start_run(tmp_path, tiny("local_mi"))


@pytest.mark.parametrize(
    "key", ["label_loss", "method.consistency", "data.patches.fit", "augmentation.scale"]
)
def test_values_are_refused_before_the_data_are_read(tiny, tmp_path, key, monkeypatch):
    monkeypatch.setattr(loop, "prepare_data", lambda *_: pytest.fail("the data were read"))
    config = tiny("local_mi")
    config.update_from_flattened_dict({key: (0.0, 0.0) if key.endswith("scale") else "none"})
    with pytest.raises(UserError, match=key.rpartition(".")[2]):
        train(start_run(tmp_path, config))


def test_sizes_are_refused_before_a_voxel_is_read(tiny, tmp_path, monkeypatch):
    config = tiny("local_mi", **{"data.patches.size": (16, 16)})
    config.cache = str(tmp_path / "cache")
    monkeypatch.setattr("mijax.data.store.prepare", lambda *_: pytest.fail("prepared"))
    with pytest.raises(UserError, match="exceed data.patches.size"):
        train(start_run(tmp_path, config))


def test_pixels_that_are_not_square_are_told_of(tiny, told):
    config, method = tiny("supervised"), methods.build("supervised")
    found, flat = index_data(config), Geometry((32, 32, 4), 1, np.diag([1.0, 1.05, 5.0, 1.0]))
    found = found._replace(geometry=lambda name: flat)
    splits = Splits((found.cases[0].name,), (), (), ())
    for plane, fit, line in (
        ("axial", "pad", ""),
        ("coronal", "resize", ""),  # whatever they were
        ("coronal", "spaced", ""),
        ("coronal", "pad", "slices of 1 of 1 training cases have pixels that are not square, of "),
    ):
        config.data.patches.spacing = 5.0 if fit == "spaced" else None
        config.data.patches.plane = plane
        config.data.patches.fit = fit.replace("spaced", "pad")
        check_slices(splits, found, config, method, Annotation({}))
        assert len(told) == bool(line) and "".join(told).startswith(line)
    assert f"{found.cases[0].name} (1×5 mm) the first: what rotates" in told[0]


MIXED = ["ict", "unimatch", "strong_mi", "alternate_teachers", "mixed_mi"]


@pytest.mark.parametrize("name", [*MIXED, "global_local_mi", "position_contrast"])
def test_a_single_unlabelled_image_is_refused_where_it_teaches_nothing(tiny, name):
    with pytest.raises(UserError, match=f"method {name} .*unlabelled_batch is at least 2, not 1"):
        check_config(tiny(name, unlabelled_batch=1))


def test_batches_and_rounds_that_do_not_do_are_refused_before_data_are_read(tiny):
    with pytest.raises(UserError, match="labelled_batch 3 and config.unlabelled_batch 4 do not do"):
        check_config(tiny("copy_paste", labelled_batch=3, unlabelled_batch=4))
    with pytest.raises(UserError, match="labelled_batch 4 and config.unlabelled_batch 2 do not do"):
        check_config(tiny("copy_paste", labelled_batch=4, unlabelled_batch=2))
    with pytest.raises(UserError, match=r"config.method.rounds \(9\) do not fit into config.steps"):
        check_config(tiny("local_contrast", method__rounds=9))
    with pytest.raises(UserError, match="config.predict_batch is at least 2"):
        check_config(tiny("position_contrast", predict_batch=1))


def test_a_single_unlabelled_image_is_enough_for_others(tiny):
    local = {"features": ("Up_conv2",), "importance": (1.0,), "radius": (1,)}
    local = {f"method.{key}": value for key, value in local.items()}
    check_config(tiny("global_local_mi", unlabelled_batch=1, **local))
    check_config(tiny("ict", unlabelled_batch=1, method__weight=0.0))
    check_config(tiny("mean_teacher", unlabelled_batch=1))


@pytest.mark.parametrize("intensity", ["percentile", "minmax", "zscore", "window"])
def test_good_values_are_not_refused(tiny, intensity):
    config = tiny("local_mi")
    config.data.patches.update({"intensity": intensity, "spacing": 1e-3, "bias_correction": True})
    check_config(config)


def test_on_the_processor_no_step_is_launched_before_the_last_one_is_done(
    tiny, tmp_path, monkeypatch
):
    """Or steps of several devices may wait for each other, until XLA ends the process."""
    waited, wait = [], jax.block_until_ready

    def spy(outputs):
        state, _ = wait(outputs)
        waited.append(int(state.step))

    monkeypatch.setattr(jax, "block_until_ready", spy)
    train(start_run(tmp_path / "run", tiny("supervised")))
    assert waited == [*range(1, 13)]
