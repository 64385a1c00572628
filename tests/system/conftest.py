"""A run small enough for tests, and its compiled programs kept for the whole session.

Modules beside it, as browser.py, can be imported in every import mode of pytest.
"""

import copy
import functools
import shutil
import signal
import sys
from pathlib import Path

import jax
import pytest
from tensorboardX.proto.event_pb2 import Event

from mijax.configs import phantom
from mijax.data import read_splits
from mijax.inference.network import make_network
from mijax.inference.voices import make_voices
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import Run, start_run
from mijax.training import loop, train
from mijax.training.build import build

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "data"))  # of dicom_files.py
import command_line

OF_METHOD = {
    "local_mi": {"weight": 30.0},  # else mutual information is nothing in so few steps
    "global_local_mi": {
        "features": ("bottleneck", "Up_conv2"),
        "importance": (1.0, 1.0),
        "radius": (0, 1),
        "clusters": 4,
        "subheads": 2,
        "mi_weight": 30.0,
        "temperature": 0.02,  # else whole images are all alike to the head: nothing but rounding
    },
    "boundary_iic": {"clusters": 4, "subheads": 2},
    "local_contrast": {"rounds": 2},
    "uamt": {"passes": 2, "ramp_steps": 4},
}


def build_once():
    """``build``, which makes the jitted functions of a configuration once: tracing takes long."""
    built = {}

    def get(config, *, classes, channels, devices=None):
        key = (config.to_json_best_effort(), tuple(classes), channels, devices and tuple(devices))
        if key not in built:
            experiment = build(
                copy.deepcopy(config), classes=classes, channels=channels, devices=devices
            )
            train_step = functools.cache(experiment.train_step)
            built[key] = experiment._replace(train_step=train_step)
        return built[key]

    return get


def make_network_once():
    """The same for ``make_network``."""
    made = {}

    def get(config, *, classes, devices=None):
        key = (config.to_json_best_effort(), classes, devices and tuple(devices))
        if key not in made:
            made[key] = make_network(copy.deepcopy(config), classes=classes, devices=devices)
        return made[key]

    return get


def make_voices_once():
    """And for ``make_voices``, of the networks of ``make_network_once``."""
    made = {}

    def get(network, augmentation):
        key = (id(network.predict), str(augmentation))
        if key not in made:
            made[key] = make_voices(network, augmentation)
        return made[key]

    return get


@pytest.fixture(scope="session", autouse=True)
def patience():
    """No line about a wait, which a busy machine makes long: what is told depends on none."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mijax.progress.PATIENCE", 1e6)
        yield


@pytest.fixture(scope="session", autouse=True)
def interruptible():
    """Ctrl-C interrupts, also where a shell started the tests in the background without it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Where prepared data and compiled programs go; the same program is compiled once."""
    folder = tmp_path_factory.mktemp("cache")
    settings = {
        "jax_compilation_cache_dir": str(folder / "xla"),
        "jax_persistent_cache_min_compile_time_secs": 0.2,
        "jax_disable_most_optimizations": True,  # compiles twice as fast
    }
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mijax.training.loop.build", build_once())
        once = make_network_once()
        for module in ("training.build", "inference.predictor"):
            patch.setattr(f"mijax.{module}.make_network", once)
        patch.setattr("mijax.inference.predictor.make_voices", make_voices_once())
        yield folder
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def tiny(cache):
    """``tiny(method, **changes)``: a configuration; keys of the changes have dots as flags do."""

    def make(method, **changes):
        config = phantom.get_config(method)
        config.cache = str(cache)
        config.method.update(OF_METHOD.get(method, {}))
        config.update_from_flattened_dict(
            {
                "steps": 12,
                "log_every": 2,
                "evaluate_every": 4,
                "warmup_steps": 2,
                "labelled_batch": 8,
                "unlabelled_batch": 8,
                "predict_batch": 8,
                "model.widths": (4, 8),
                "data.source.patients": 8,
                "data.source.shape": (32, 32, 4),
                "data.patches.size": (32, 32),
                "data.splits.validation": 2,
                "data.splits.test": 2,
                **{name.replace("__", "."): value for name, value in changes.items()},
            }
        )
        return config

    return make


@pytest.fixture(scope="session")
def uninterrupted(tiny, tmp_path_factory):
    """``uninterrupted(method)``: the tiny run, trained without a stop. Leave it as it is."""
    runs = {}

    def get(method):
        if method not in runs:
            runs[method] = start_run(tmp_path_factory.mktemp(method) / "run", tiny(method))
            train(runs[method])
        return runs[method]

    return get


@pytest.fixture(scope="session")
def restored(cache):
    """``restored(run, which="last")``: the experiment and the state of a tiny run."""

    def get(run, which="last", **options):
        info = run.info()
        experiment = loop.build(
            run.config, classes=info["classes"], channels=info["channels"], **options
        )
        unlabelled = read_splits(run.folder / "splits.json").unlabelled
        with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
            step = checkpoints.step_of(which)
            return experiment, checkpoints.restore(step, experiment.like(4 * len(unlabelled)))

    return get


@pytest.fixture
def saved():
    """``saved(run)``: gives it a checkpoint, as far as anything but Orbax looks at that."""

    def save(run):
        (run.checkpoints / "4").mkdir(parents=True)
        (run.checkpoints / "4" / "SHA256SUMS").touch()

    return save


@pytest.fixture
def copied(uninterrupted, tmp_path):
    """``copied(method)``: a copy of the uninterrupted run, to spoil."""

    def get(method):
        run = uninterrupted(method)
        folder = shutil.copytree(run.folder, tmp_path / "copy")
        return Run(folder, copy.deepcopy(run.config))

    return get


@pytest.fixture(scope="session")
def predicting(uninterrupted, tmp_path_factory):
    """``predicting()``: a folder with all that prediction needs of a run."""

    def make():
        whole, folder = uninterrupted("local_mi").folder, tmp_path_factory.mktemp("model")
        shutil.copytree(whole / "checkpoints", folder / "checkpoints")
        for name in ("config.json", "info.json"):
            shutil.copy(whole / name, folder)
        return folder

    return make


@pytest.fixture
def png_alone(monkeypatch):
    """Figures are PNG alone, in tests of something else: half the time of a report is PDF."""
    monkeypatch.setattr("mijax.report.illustrator._KINDS", ("png",))


@pytest.fixture
def events_of():
    """``events_of(run folder)``: (event, value) of all that TensorBoard would read."""

    def read(folder):
        (file,) = (folder / "events").iterdir()
        content, found = file.read_bytes(), []
        while content:  # each record: its length, a checksum, itself, a checksum
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [(event, value) for value in event.summary.value]
            content = content[16 + length :]
        return found

    return read


@pytest.fixture(scope="session")
def run_module(cache):
    """``run_module(module, *arguments)``: exit code, stdout, our lines of another process."""
    return command_line.run_module


@pytest.fixture(scope="session")
def run_here(cache):
    """The same in this process, which has all imported and compiled: one start is test enough."""
    return command_line.run_here
