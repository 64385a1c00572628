"""What a user meets at the command line: help, results, and one line about each mistake."""

import importlib
import io
import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from mijax import commands, configs, main
from mijax.errors import Preempted, UserError
from mijax.runs.folder import start_run


def run_process(*arguments, module="mijax.main"):
    """Another process: exit code, stdout, stderr."""
    # The same program as in this process, so that it is found compiled.
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def complaint(result):
    """The one line in which a command says why it failed."""
    code, out, err = result
    assert code not in (0, None)
    assert out == "" and "Traceback" not in err
    ours = [line.removeprefix("mijax: ") for line in err.splitlines() if line.startswith("mijax: ")]
    news = ("devices: ", "run folder: ", "going on from step", "preparing ")
    (line,) = (x for x in ours if not x.startswith(news))
    return line


# In another process ----------------------------------------------------------------------


def test_a_notice_is_one_line_once_and_other_warnings_are_left_as_they_are():
    code = """
import warnings
from mijax import commands, errors
def main(argv):
    for line in ("a.nii: odd", "a.nii: odd", "b.nii: odd"):
        warnings.warn(line, errors.Notice, stacklevel=1)
    warnings.warn("another", stacklevel=1)
commands.run(main)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.splitlines()[:2] == ["mijax: a.nii: odd", "mijax: b.nii: odd"]
    assert "UserWarning: another" in done.stderr.splitlines()[2]


@pytest.mark.parametrize(
    ("module", "names"),
    [("mijax.main", ["--config", "--workdir"]), ("mijax.evaluate", ["--data_dir", "--workdir"])],
)
def test_help(module, names):
    code, out, err = run_process("--help", module=module)
    assert (code, err) == (0, "")
    assert f"python -m {module}" in out
    assert all(f"\n  {name}: " in out for name in names)
    assert len(out.splitlines()) < 34


def test_help_with_a_configuration_lists_its_flags():
    code, out, err = run_process("--config=configs/phantom.py:uamt", "--help")
    assert (code, err) == (0, "")
    assert "\n  --workdir: " in out and "\n  --config.steps=400\n" in out
    assert "\n  --config.method.passes=" in out


def test_no_arguments(run_here):
    code, out, (line,) = run_here("mijax.main")
    assert (code, out) == (2, "")
    assert "needs --config FILE for a new run or --workdir FOLDER" in line


def test_evaluate_a_run_again(copied, run_here):
    run = copied("local_mi")
    code, out, err = run_here("mijax.evaluate", "--workdir", run.folder, "--data_dir=moved")
    assert code == 0, err
    assert out.startswith("2 test cases")
    assert re.search(r"^last (and best )?\(step 12\)", out, re.MULTILINE)
    scores = json.loads((run.folder / "scores.json").read_text())
    assert scores["last"]["step"] == 12
    # Where the data lies now is said each time, not remembered.
    assert json.loads((run.folder / "config.json").read_text())["data"]["source"]["dir"] == ""


def test_every_flag_of_evaluate_and_predict_is_taken(run_here, uninterrupted, monkeypatch):
    asked = {}
    keep = lambda *_, **options: asked.update(options) or ([], [])  # noqa: E731
    workdir = f"--workdir={uninterrupted('local_mi').folder}"
    module = importlib.import_module("mijax.inference.evaluate")  # not the function of that name
    monkeypatch.setattr(module, "evaluate", keep)
    monkeypatch.setattr("mijax.inference.score_table.table", str)
    run_here("mijax.evaluate", workdir, "--largest_component", "--mirror", "--nsd_tolerance=body=1")
    assert asked == {"largest_component": True, "mirror": True, "nsd_tolerance": {"body": 1.0}}
    asked.clear()
    monkeypatch.setattr("mijax.inference.scans.predict_files", keep)
    bare = ("probabilities", "overwrite", "largest_component", "mirror", "disagreement")
    given = {
        "checkpoint": "last", "trust": False, "below": 0.7, "series": ["1.2"], "dicom_seg": True,
        "codes": "codes.json", **dict.fromkeys(bare, True),
    }  # fmt: skip
    flags = [f"--{name}" for name in bare]
    run_here(
        "mijax.predict", workdir, "--input=in", "--output=out", "--checkpoint=last", "--notrust",
        "--look_below=0.7", "--series=1.2", "--dicom_seg", "--codes=codes.json", *flags,
    )  # fmt: skip
    assert asked == given


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [([], 2, "--workdir FOLDER"), (["--workdir=nowhere"], 1, "is not a run")],
)
def test_evaluate_nothing(run_here, arguments, code, message):
    found, out, (line,) = run_here("mijax.evaluate", *arguments)
    assert (found, out) == (code, "") and message in line


def test_a_device_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    found = run_process("--config=configs/phantom.py", f"--workdir={tmp_path / 'run'}")
    assert "JAX has no device for JAX_PLATFORMS=cuda" in complaint(found)
    assert list(tmp_path.iterdir()) == []


# The flags, in this process --------------------------------------------------------------


@pytest.fixture
def parse(monkeypatch, capsys):
    """``parse(*arguments)``: the flags of a command that must not begin."""

    def run(*arguments):
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values)
        flags.DEFINE_string("workdir", None, "folder", flag_values=values)
        monkeypatch.setattr(flags, "FLAGS", values)
        monkeypatch.setattr(sys, "argv", ["mijax", *arguments])
        with pytest.raises(SystemExit) as caught:
            commands.run(pytest.fail)
        return caught.value.code, *capsys.readouterr()

    return run


PHANTOM = f"--config={Path(configs.__file__).parent / 'phantom.py'}"


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # in ml_collections
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--wrkdir=x"], "'wrkdir'. Did you mean: workdir"),
        ([PHANTOM, "--config.stepz=3"], "the configuration has no stepz; did you mean steps?"),
        ([PHANTOM, "--config.method.wieght=3"], "has no wieght; did you mean weight?"),
        ([PHANTOM, "--config.qqqqq=3"], "the configuration has no qqqqq"),
        ([PHANTOM, "--config.steps=many"], "flag --config.steps=many: "),
        ([PHANTOM, "--config.steps=2.5"], "flag --config.steps=2.5: "),
        ([PHANTOM, "--config.learning_rate=fast"], "flag --config.learning_rate=fast: "),
        (
            [PHANTOM, "--config.data.patches.spacing=wide"],
            "flag --config.data.patches.spacing=wide: ",
        ),
        ([PHANTOM, "--config.augmentation.flip=True"], "flag --config.augmentation.flip=True: "),
        (["--workdir=x", "--config.seed=3"], "--config.seed needs --config FILE before it"),
        (["--workdir=x", "--config.steps=9"], "its learning rate has fallen to 0 at config.steps"),
        ([PHANTOM, "--config.method=supervised"], "named with the file, --config FILE:METHOD"),
        ([PHANTOM, "--config.data=3"], "--config.data has values of its own, --config.data.KEY"),
        ([PHANTOM, "extra"], "does not know what to do with extra"),
        ([f"{PHANTOM}:ours_kl"], "; ours_kl is one of the --rows of mijax.table1"),
        (
            [f"{PHANTOM}:magic"],
            "no method 'magic': the methods are alternate_teachers, boundary_iic",
        ),
        (
            ["--config=nowhere.py", "--config.steps=3"],
            "--config nowhere.py: no such file; those that come with mijax are acdc",
        ),
    ],
)
def test_wrong_flags(parse, arguments, message):
    result = parse(*arguments)
    assert message in complaint(result) and result[0] == 2


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("def get_config()\n", "line 1", "SyntaxError"),
        ("\nimport nowhere\n", "line 2", "No module named 'nowhere'"),
        ("def get_config():\n    return {}['seed']\n", "line 2", "KeyError: 'seed'"),
        ("def get_config():\n    return int('x')\n", "line 2", "ValueError: invalid literal"),
    ],
)
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # in ml_collections
def test_mistake_in_a_configuration_file(parse, tmp_path, text, where, what):
    path = tmp_path / "mine.py"
    path.write_text(text)
    line = complaint(parse(f"--config={path}"))
    assert f"{path}, {where}: " in line and what in line


# The run, in this process ----------------------------------------------------------------


class Flags(SimpleNamespace):
    """Values of flags, none of which was at the command line."""

    def __getitem__(self, name):
        return SimpleNamespace(present=0)


@pytest.fixture
def command(monkeypatch, capsys):
    """``command(config, workdir)``: ``python -m mijax.main`` with these as its flags."""

    def run(config, workdir, *, report=False):
        monkeypatch.setattr(sys, "argv", ["mijax"])
        values = Flags(
            config=config, workdir=str(workdir), data_dir=None, grow=None, report=report,
            mlflow=False, wandb=False,
        )  # fmt: skip
        monkeypatch.setattr(main, "flags", SimpleNamespace(FLAGS=values))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            commands.run(main.main)
        return caught.value.code, *capsys.readouterr()

    return run


def test_new_run_then_workdir_alone(command, tiny, tmp_path, png_alone):
    code, out, err = command(tiny("supervised"), tmp_path, report=True)
    assert not code, err
    assert err.startswith(f"mijax: devices: 8 × cpu\nmijax: run folder: {tmp_path}\n")
    assert "step 12/12  validation_dsc" in err
    assert out.startswith("2 test cases, mean (standard deviation), NSD at 2 mm\n")
    again = command(None, tmp_path)
    assert not again[0] and again[1] == out
    assert "mijax: going on from step 12 of 12\n" in again[2]


def test_another_process_than_the_first_makes_no_folder(command, tiny, tmp_path, monkeypatch):
    """The first may have failed meanwhile, and taken it back."""
    monkeypatch.setattr("mijax.parallel.is_first", lambda: False)
    line = complaint(command(tiny("local_mi", steps=0), tmp_path / "run"))
    assert "config.steps" in line and not (tmp_path / "run").exists()


@pytest.mark.parametrize("source", ["folder", "msd", "nnunet", "spleen"])
def test_no_data(command, tiny, tmp_path, source):
    config = tiny(
        "supervised", **{"data.source.name": source, "data.source.dir": str(tmp_path / "nowhere")}
    )
    for key in ("patients", "seed", "shape"):  # options of the phantom
        del config.data.source[key]
    line = complaint(command(config, tmp_path / "run"))
    assert f"{tmp_path / 'nowhere'}: no such folder" in line
    (tmp_path / "nowhere").mkdir()
    line = complaint(command(config, tmp_path / "run"))
    assert "dataset.json" in line and str(tmp_path / "nowhere") in line


def test_bad_volume(command, tiny, tmp_path):
    config = tiny("supervised", **{"data.source.name": "msd", "data.source.dir": str(tmp_path)})
    for key in ("patients", "seed", "shape"):
        del config.data.source[key]
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / part).mkdir()
        values = np.full((8, 8, 2), np.nan if part == "imagesTr" else 0, np.float32)
        for name in "abcdef":  # as many as the splits ask for
            nib.save(nib.Nifti1Image(values, np.eye(4)), tmp_path / part / f"{name}.nii.gz")
    (tmp_path / "dataset.json").write_text(
        json.dumps({"modality": {"0": "CT"}, "labels": {"0": "background", "1": "x"}})
    )
    done = command(config, tmp_path / "run")
    assert done[0] == 1
    assert done[2].splitlines()[-1].startswith("mijax: 6 of 6 cases cannot be used")
    for name in "abcdef":  # all of them at once
        assert f"imagesTr/{name}.nii.gz: NaN or infinite, as float32, in 128 voxels" in done[2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.splits.labelled": 0}, "method local_mi learns from unlabelled cases"),
        ({"data.splits.labelled": 7}, "there are 8; lower --config.data.splits.labelled"),
        ({"data.splits.validation": 0}, "data.splits.validation=0 is an empty split"),
        ({"labelled_batch": 3}, "19 images a forward pass do not divide over 8 devices"),
        ({"data.patches.size": (33, 32)}, "multiples of 2"),
        ({"method.weight": float("inf")}, "config.method.weight is inf"),
        ({"method.name": "mean_teacher"}, "with the file, --config FILE:mean_teacher"),
    ],
)
def test_values_that_do_not_do(command, tiny, tmp_path, changes, message):
    assert message in complaint(command(tiny("local_mi", **changes), tmp_path / "run"))


def test_loss_that_is_not_finite(command, tiny, tmp_path):
    config = tiny("supervised", learning_rate=1e30, warmup_steps=0)
    lines = [complaint(command(config, tmp_path)) for _ in range(2)]
    assert lines[0] == lines[1]
    assert "the loss is not finite at step " in lines[0]
    start_run(tmp_path, tiny("supervised"))  # nothing was saved: a better value may take the folder


def test_folder_of_another_run(command, uninterrupted, tiny):
    run = uninterrupted("local_mi")
    before = (run.folder / "config.json").read_bytes()
    line = complaint(command(tiny("local_mi", learning_rate=1e-2), run.folder))
    assert "config.learning_rate is 0.001 there and 0.01 here" in line
    assert (run.folder / "config.json").read_bytes() == before


def test_folder_that_cannot_be_written(command, tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for folder in ("file", "file/run"):
        line = complaint(command(tiny("supervised"), tmp_path / folder))
        assert f"cannot write to {tmp_path / folder}" in line

    def refuse(*_, **__):
        raise OSError(28, "No space left on device", str(tmp_path / "run" / "splits.json"))

    monkeypatch.setattr("mijax.runs.splits.write_splits", refuse)
    line = complaint(command(tiny("supervised"), tmp_path / "run"))
    assert "No space left on device" in line and "splits.json" in line


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("the file is bad"), 1, "the file is bad"),
        (OSError(28, "No space left on device", "x"), 1, "[Errno 28] No space left on device: 'x'"),
        (KeyboardInterrupt(), 130, "interrupted; the same command goes on with what is not done"),
        (KeyboardInterrupt("stopped, and saved"), 130, "stopped, and saved"),
        (Preempted("stopped by SIGTERM"), 75, "stopped by SIGTERM"),
        (MemoryError("Unable to allocate 3.1 GiB"), 1, "out of memory of this machine (3.1 GiB as"),
        (
            jax.errors.JaxRuntimeError(
                "RESOURCE_EXHAUSTED: Out of memory\nallocating 2147483648 bytes"
            ),
            1,
            "out of memory of the device (2.00 GiB asked for); lower config.labelled_batch",
        ),
    ],
)
def test_errors_become_lines(monkeypatch, capsys, error, code, message):
    def fail(argv):
        raise error

    monkeypatch.setattr(sys, "argv", ["mijax"])
    with pytest.raises(SystemExit) as caught:
        commands.run(fail)
    assert caught.value.code == code
    assert complaint((code, *capsys.readouterr())).startswith(message)


def test_what_the_standard_output_cannot_show_is_replaced(monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    monkeypatch.setattr(sys, "argv", ["mijax"])
    with pytest.raises(SystemExit) as caught:
        commands.run(lambda argv: print("Großhirn", flush=True))
    assert not caught.value.code and written.getvalue() == b"Gro?hirn\n"


def test_what_jax_warns_of_is_a_line(monkeypatch, capsys):
    def warn(argv):
        logging.getLogger("jax._src.xla_bridge").warning("An NVIDIA GPU may be %s", "present")

    monkeypatch.setattr(sys, "argv", ["mijax"])
    with pytest.raises(SystemExit):
        commands.run(warn)
    assert capsys.readouterr().err == "mijax: An NVIDIA GPU may be present\n"


TWICE = """
import os, signal, sys, time
from mijax import commands

def busy(argv):
    signal.signal(signal.SIGINT, lambda *_: None)  # as in a call that looks at no signals
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
    print("went on")

commands.run(busy)
"""


def test_a_second_ctrl_c_ends_at_once():
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (130, "")
    first, second = done.stderr.splitlines()
    assert "a second Ctrl-C ends at once" in first and second == "mijax: ended at once"


def test_mistakes_of_ours_keep_their_traceback(monkeypatch):
    def fail(argv):
        raise RuntimeError("a bug")

    monkeypatch.setattr(sys, "argv", ["mijax"])
    with pytest.raises(RuntimeError, match="a bug"):
        commands.run(fail)
