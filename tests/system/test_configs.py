"""Every configuration with every method: it loads, it traces, every value is a flag."""

import importlib
import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags
from ml_collections import ConfigDict, config_flags

from mijax import configs, methods
from mijax.configs import common
from mijax.data.patches import slice_volume
from mijax.inference.network import evaluated, make_network
from mijax.methods import Start, Unlabelled
from mijax.runs.method import make_method
from mijax.runs.source import open_data
from mijax.training.batches import Cropping, TrainingSet
from mijax.training.build import augmentation_of, build
from mijax.training.config_checks import check_config, remarks
from mijax.training.ragged import Ragged
from mijax.training.rounds import round_starts

FOLDER = Path(configs.__file__).parent
NAMES = sorted(f.stem for f in FOLDER.glob("[a-z]*.py") if f.stem != "common")
# Background and what there is to find; image channels. Another configuration has (4, 1).
SHAPES = {
    "folder": (4, 2),
    "hippocampus": (3, 1),
    "phantom": (3, 1),
    "spleen": (2, 1),
    "spleen3d": (2, 1),
}
SHARED = Path(__file__).parents[2].parent / "shared" / "data"
# Every file with its default method, and every method once.
PAIRS = sorted({(n, "local_mi") for n in NAMES} | {("phantom", m) for m in methods.names()})


def get_config(name, *method):
    return importlib.import_module(f"mijax.configs.{name}").get_config(*method)


def test_names():
    assert {"folder", "hippocampus", "phantom", "spleen"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_says_by_which_command_it_runs(name):
    command = f"python -m mijax.main --config configs/{name}.py"
    assert command in importlib.import_module(f"mijax.configs.{name}").__doc__


@pytest.mark.parametrize("name", NAMES)
def test_method_is_the_only_difference_between_methods(name):
    ours = get_config(name)
    assert ours.method.name == ("mixed_mi" if name == "folder" else "local_mi")
    assert ours.name == ("" if name == "folder" else name)  # then that of the folder
    for method in methods.names():
        config = get_config(name, method)
        changed = getattr(importlib.import_module(f"mijax.configs.{name}"), "OF_METHOD", {}).get(
            method, {}
        )
        expected = {"name": method, **methods.defaults(method), **changed}
        phase, part = common.PHASES.get(method, ("", 1))
        if phase and phase not in changed:
            expected[phase] = config.steps // part
        assert config.method.to_dict() == expected
        config.method = ours.method
        if methods.build(method).examination is None:  # pre-training is another thing
            assert config.to_dict() == ours.to_dict()


@pytest.mark.parametrize("name", NAMES)
def test_every_phase_of_every_method_ends_with_the_training_or_before(name):
    for method in methods.names():
        config = get_config(name, method)
        assert not [*remarks(config)]
        round_starts(make_method(config).rounds, config)
        phase, part = common.PHASES.get(method, ("", 1))
        if phase and phase not in getattr(
            importlib.import_module(f"mijax.configs.{name}"), "OF_METHOD", {}
        ).get(method, {}):
            config.steps = 40
            assert config.method[phase] == 40 // part


def test_a_phase_that_training_does_not_reach_the_end_of_is_named():
    config = get_config("phantom", "mean_teacher")
    config.steps, config.method.ramp_steps = 15, 16
    config.teacher.ramp_steps = 17  # of a teacher that is not asked for
    assert [*remarks(config)] == [
        "config.warmup_steps (20) is not over when training ends (15 steps)",
        "config.method.ramp_steps (16) is not over when training ends (15 steps)",
    ]
    config.teacher.decay = 0.99
    assert [*remarks(config)][-1].startswith("config.teacher.ramp_steps (17) is not over")


def test_values_without_effect_are_named():
    config = get_config("phantom")
    config.log_every, config.steps_per_dispatch = 10, 20
    config.augmentation.foreground = 0.5
    assert [*remarks(config)] == [
        "config.steps_per_dispatch is 10 at most, as config.log_every is",
        "config.augmentation.foreground does nothing without config.augmentation.crop",
    ]
    config.steps_per_dispatch, config.augmentation.crop = 10, (32, 32)
    assert not [*remarks(config)]


def test_options_of_the_network_reach_it_from_a_file():
    config = get_config("phantom")
    options = {
        "widths": (2, 3),
        "strides": ((1, 2),),
        "kernels": ((1, 3), (3, 3)),
        "norm": "instance",
        "dropout": 0.1,
        "encoder_dropout": (0.1, 0.2),
        "remat": True,
        "deep_supervision": True,
    }
    assert set(config.model.keys()) == options.keys()
    config.model.update(options)
    network = make_network(ConfigDict(json.loads(config.to_json_best_effort())), classes=3)
    assert {name: getattr(network.model, name) for name in options} == options
    assert network.stride == (1, 2)
    assert hash(network.model)  # nothing in it is a list


def test_a_teacher_and_deep_supervision_reach_the_method():
    config = get_config("phantom", "supervised")
    start = Start({"w": np.ones(2)}, {}, {}, (4, 8, 8), None)
    assert "teacher" not in make_method(config).init(jax.random.key(0), start)[1]
    plain = make_method(config).loss
    config.teacher.decay = 0.9
    assert "teacher" in make_method(config).init(jax.random.key(0), start)[1]
    config.teacher.decay, config.model.deep_supervision = 0.0, True
    assert make_method(config).loss.__qualname__ != plain.__qualname__


def test_augmentation_loss_and_optimizer_reach_the_step(monkeypatch):
    config = get_config("phantom", "supervised")
    config.augmentation.update({"flip": 0.25, "noise": 0.1, "crop": (32, 32), "foreground": 0.5})
    options, cropping = augmentation_of(config)
    left = config.augmentation.to_dict()
    assert left.pop("tilt") == 0.0 and left.pop("foreground") == 0.5
    assert options == left and cropping == Cropping(foreground=0.5)
    solid = get_config("spleen3d", "supervised")
    solid.augmentation.update({"rotation": 20.0, "tilt": 3.0})
    options, _ = augmentation_of(solid)
    assert options["rotation"] == (20.0, 3.0, 3.0)
    patches = solid.data.patches
    assert options["spacing"] == (patches.depth_spacing, patches.spacing, patches.spacing)

    asked, made = {}, lambda *_: None

    def keeping(name):
        def make(kind, *arguments, **options):
            asked[name] = kind, options
            return made

        return make

    for name in ("make_optimizer", "make_label_loss", "make_train_step"):
        monkeypatch.setattr(f"mijax.training.build.{name}", keeping(name))
    config.update({"optimizer": "sgd", "label_loss": "dice", "weight_decay": 0.01})
    build(config, classes=("a", "b"), channels=1, devices=jax.devices()[:1]).train_step(1)
    assert asked["make_optimizer"] == ("sgd", {"weight_decay": 0.01, "momentum": config.momentum})
    assert asked["make_label_loss"][0] == "dice"
    step = asked["make_train_step"][1]
    assert step["augmentation"] == augmentation_of(config)[0] and step["label_loss"] is made


@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_traces(name, method):
    config = get_config(name, method)
    config.data.patches.size = config.data.patches.size or (256, 256)  # a folder's is its user's
    check_config(config)
    if "features" not in config.method:  # tracing a level takes as long as a method does
        levels = 2 if name == "phantom" else 3
        config.model.widths = config.model.widths[:levels]
        config.model.strides = config.model.strides[: levels - 1]
        config.model.kernels = config.model.kernels[:levels]
    classes, channels = SHAPES.get(name, (4, 1))
    experiment = build(
        config,
        classes=[f"class {n}" for n in range(classes)],
        channels=channels,
        devices=jax.devices()[:1],
    )

    def slices(n, *channels, dtype=np.float32):
        return jax.ShapeDtypeStruct((n, *config.data.patches.size, *channels), dtype)

    def images(n, *channels, dtype=np.float32):
        if config.data.patches.fit != "whole":
            return slices(n, *channels, dtype=dtype)
        shapes = ((10**4, 512, *channels), dtype), ((n,), np.int32), ((n, 3), np.int32)
        return Ragged(*(jax.ShapeDtypeStruct(*shape) for shape in shapes))

    numbers = jax.ShapeDtypeStruct((50,), np.float32)
    unlabelled = Unlabelled(images(50, channels), numbers, numbers)
    training_set = TrainingSet(images(30, channels), images(30, dtype=np.uint8), unlabelled)
    state = experiment.like(50)
    after, logs = jax.eval_shape(experiment.train_step(1), state, training_set)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert "loss" in logs and len(logs) > 1
    assert all(x.shape == (1,) for x in logs.values())
    weights = jax.eval_shape(lambda state: evaluated(experiment.method, state), state)
    taken = slices(config.predict_batch, channels)
    probs = jax.eval_shape(experiment.network.predict, weights, taken)
    assert probs.shape == (config.predict_batch, *config.data.patches.size, classes)


def another(value):
    """A value of the same type, and how it is written on the command line."""
    if isinstance(value, bool):
        return not value, str(not value)
    if isinstance(value, tuple):
        new = tuple(another(v)[0] for v in value) or (16, 16)
        return new, repr(new)
    new = value + 1 if isinstance(value, int | float) else f"{value}x"
    return new, str(new)


def leaves(tree, prefix=""):
    """Yields (key, value); of a value that is not set yet, the zero of its type."""
    for key, value in tree.items():
        if isinstance(value, ConfigDict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", tree.get_type(key)() if value is None else value


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # in ml_collections
@pytest.mark.parametrize(("name", "method"), PAIRS)
def test_every_value_is_a_flag(name, method, monkeypatch):
    wanted = {key: another(value) for key, value in leaves(get_config(name, method))}
    arguments = [f"--config.{key}={text}" for key, (_, text) in wanted.items()]
    monkeypatch.setattr(sys, "argv", ["test", f"--config={FOLDER / name}.py:{method}", *arguments])
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values(sys.argv)
    assert dict(leaves(values.config)) == {key: value for key, (value, _) in wanted.items()}


# Real volumes ----------------------------------------------------------------------------


def needs(folder):
    return pytest.mark.skipif(not (SHARED / folder).is_dir(), reason=f"no shared/data/{folder}")


@needs("Task09_Spleen_crop")
def test_spleen_takes_a_real_volume(cache):
    config = get_config("spleen")
    config.cache, config.data.source.dir = str(cache), str(SHARED / "Task09_Spleen_crop")
    source = open_data(config)
    assert source.classes == ("background", "spleen") and source.channels == 1
    volume = source.volume(source.cases[0].name)
    slices = slice_volume(volume, config.data.patches)
    assert slices.image.shape == (volume.image.shape[2], 512, 512, 1)
    assert slices.label.shape == slices.image.shape[:3]
    np.testing.assert_allclose((slices.image.min(), slices.image.max()), (0, 1), atol=0.02)
    assert slices.image.min() >= 0 and slices.image.max() <= 1
    assert set(np.unique(slices.label)) == {0, 1}


@needs("Task09_Spleen_crop")
def test_spleen3d_takes_a_real_volume(cache):
    config = get_config("spleen3d")
    config.cache, config.data.source.dir = str(cache), str(SHARED / "Task09_Spleen_crop")
    source = open_data(config)
    volume = source.volume(source.cases[0].name)
    (image,), (label,), _ = slice_volume(volume, config.data.patches)
    wanted = np.linalg.norm(volume.affine[:3, :3], axis=0) * volume.image.shape[:3]
    wanted = np.round(wanted[[2, 0, 1]] / (1.6, 0.8, 0.8))
    assert image.shape == (*np.maximum(wanted, (64, 192, 160)), 1)  # whole, or padded to a patch
    assert label.shape == image.shape[:3] and set(np.unique(label)) == {0, 1}


@needs("Task04_Hippocampus")
def test_hippocampus_takes_real_volumes(cache):
    config = get_config("hippocampus")
    config.cache, config.data.source.dir = str(cache), str(SHARED / "Task04_Hippocampus")
    source = open_data(config)
    assert source.classes[0] == "background" and len(source.classes) == 3
    labelled = [case for case in source.cases if case.labelled]
    asked = config.data.splits.validation + config.data.splits.test + config.data.splits.labelled
    assert len(labelled) > asked
    for case in labelled[:3]:
        slices = slice_volume(source.volume(case.name), config.data.patches)
        assert slices.image.shape[1:] == (48, 64, 1)
        assert set(np.unique(slices.label)) <= {0, 1, 2}
