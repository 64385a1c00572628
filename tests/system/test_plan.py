"""A folder without a word about it: planned, trained, gone on with; and what a step costs."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from mijax.configs import folder
from mijax.data import Drawn, Splits, write_annotation, write_splits
from mijax.data.formats.imagefile import read_image
from mijax.errors import UserError
from mijax.planning import make_plan, settle_plan, try_plan, write_plan
from mijax.planning.cost import Cost, step_cost
from mijax.runs.folder import open_run
from mijax.runs.source import index_data
from mijax.runs.splits import choose_splits
from mijax.training.build import build

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from folders import write_msd, write_nifti


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_msd(tmp_path_factory.mktemp("plan") / "set", labelled=3)


def config_of(root, cache, method="mean_teacher"):
    config = folder.get_config(method)
    config.data.source.dir, config.cache = str(root), str(cache)
    config.model.widths = (2, 3)
    return config


def test_a_folder_trains_without_a_size(root, cache, run_here, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").write_text("from mijax.configs.folder import get_config\n")
    command = ["mijax.main", "--config=~/mine.py:supervised", "--noreport"]
    command += [f"--config.data.source.dir={root}", f"--config.cache={cache}", "--config.steps=2"]
    command += ["--config.model.widths", "(2, 3)", f"--workdir={tmp_path / 'run'}"]
    code, out, lines = run_here(*command)
    assert code == 0 and "mean" in out, lines
    assert any("what was left open is as" in line and "plan.json" in line for line in lines)
    config = open_run(tmp_path / "run").config
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    values = {choice["key"]: choice["value"] for choice in plan["choices"]}
    assert tuple(config.data.patches.size) == tuple(values["data.patches.size"]) == (16, 16)
    assert config.steps == 2 and tuple(config.model.widths) == (2, 3)  # what was given
    assert not {"steps", "model.widths"} & values.keys()
    code, again, _ = run_here(*command)  # goes on, and has nothing to do
    assert (code, again) == (0, out)
    moved = shutil.copytree(root, tmp_path / "moved")
    of_run = ["mijax.main", "--workdir", tmp_path / "run", "--noreport"]
    code, again, _ = run_here(*of_run, "--data_dir", moved)
    assert (code, again) == (0, out)
    grown = ["mijax.main", "--grow", tmp_path / "run", "--workdir", tmp_path / "more"]
    code, _, lines = run_here(*grown, "--data_dir", tmp_path / "nowhere")
    assert code == 1 and "nowhere: no such folder" in lines[-1]
    code, _, (line,) = run_here(*command, "--data_dir", moved)
    assert code == 2 and line.endswith("here it is --config.data.source.dir")


def test_what_a_step_costs(root, cache):
    config = config_of(root, cache, "entropy")
    plan = make_plan(config, given=["config.model.widths"])
    spent = try_plan(config, plan, cost_of)["cost"]
    assert spent["bytes"] > 10**5 and spent["seconds"] > 0 and spent["compile_seconds"] > 0
    assert spent["steps"] == 2000


DATA = {"classes": ("background", "a", "b"), "channels": 1}


def cost_of(config, most):
    return step_cost(config, **DATA, most=most)


def test_a_step_that_does_not_fit_is_not_run(root, cache, monkeypatch):
    """Which on a GPU would end in an error before anything is compared."""

    class Step:  # cannot be called
        lower = compile = lambda self, *_: self

        def memory_analysis(self):
            return SimpleNamespace(temp_size_in_bytes=1000)

    config = config_of(root, cache)
    config.data.patches.size = (16, 16)
    made = build(config, **DATA)._replace(
        init=lambda seed, count: np.zeros(6, np.float32), train_step=lambda length: Step()
    )
    monkeypatch.setattr("mijax.planning.cost.build", lambda *_, **__: made)
    spent = step_cost(config, **DATA, most=1023)
    assert (spent.bytes, spent.seconds) == (1024, None)
    with pytest.raises(TypeError, match="not callable"):
        step_cost(config, **DATA, most=1024)


@pytest.mark.parametrize("runs", [False, True])
def test_batches_shrink_to_the_memory(root, cache, runs):
    """By what the compiler says, or by what the device says when the step is run."""
    tried = []

    def cost(config, most):
        assert most == 16_000
        tried.append((config.labelled_batch, config.unlabelled_batch))
        spent = 1000 * sum(tried[-1])
        if runs and spent > most:
            raise RuntimeError(f"RESOURCE_EXHAUSTED: Out of memory allocating {spent} bytes.")
        return Cost(spent, 1.0, 1.0, 2)

    config = config_of(root, cache)
    plan = try_plan(config, make_plan(config), cost, memory=20_000)
    assert tried == [(16, 16), (8, 16), (8, 8)]  # which divide over eight devices
    values = {choice["key"]: choice for choice in plan["choices"]}
    assert values["labelled_batch"]["value"] == 8
    assert values["labelled_batch"]["reason"] == "halved, so that a step fits into the memory"
    with pytest.raises(UserError, match="a step takes 3.7 GiB and there are 0.9: give a smaller"):
        try_plan(config, plan, lambda c, most: Cost(4 * 10**9, 1.0, 1.0, 2), memory=10**9)


def test_what_a_try_raises(root, cache):
    config = config_of(root, cache)

    def cost(config, most):
        raise RuntimeError(line)

    line = "RESOURCE_EXHAUSTED: Out of memory"
    with pytest.raises(UserError, match="a step takes more memory than there is: give a smaller"):
        try_plan(config, make_plan(config), cost)
    line = "INTERNAL: no kernel"
    with pytest.raises(RuntimeError, match=line):
        try_plan(config, make_plan(config), cost)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"dims": 4}, "data.patches.dims=4: must be 2"),
        ({"plane": "axal"}, "data.patches.plane='axal'"),
        ({"fit": "whole"}, "fit=whole is for data.patches.dims=3"),
        ({"spacing": -2.0}, "spacing=-2.0: must be millimetres above 0"),
        ({"size": (0, 16)}, r"size=\(0, 16\): must be one or two whole numbers above 0"),
        ({"size": (16, 16), "dims": 3}, "must be one or three whole numbers above 0"),
        ({"size": (17, 16)}, "positive multiples of"),
        ({"size": (64,)}, r"size \(64,\): must be two numbers, height and width, or three, depth"),
        ({"size": ()}, r"size \(\): must be two numbers"),
        ({"size": (64,), "dims": 3}, r"size \(64,\): must be two numbers"),
    ],
)
def test_a_wrong_value_is_one_line(root, cache, given, message):
    config = config_of(root, cache)
    config.data.patches.update(given)
    with pytest.raises(UserError, match=message):
        make_plan(config, given=[f"config.data.patches.{key}" for key in given])


def test_splits_that_cannot_be_drawn_are_refused(root, cache, run_here):
    """After the plan: a run of it would stop in the same line."""
    command = ["mijax.plan", "--config", "configs/folder.py", "--notry", f"--config.cache={cache}"]
    command += [f"--config.data.source.dir={root}"]
    code, out, lines = run_here(*command, "--config.data.splits.test=2")
    assert code == 1 and "--config.data.patches.size=" in out
    assert lines[-1].endswith("but there are 3; lower --config.data.splits.test, or annotate more")
    code, _, lines = run_here(*command, "--config.data.splits.labelled=-2")
    assert code == 1 and lines[-1].endswith("data.splits.labelled=-2: must not be negative")


def test_an_output_that_cannot_be_written_is_one_line(root, cache, run_here, tmp_path):
    (tmp_path / "file").touch()
    command = ["mijax.plan", "--config", "configs/folder.py", "--notry", f"--config.cache={cache}"]
    command += [f"--config.data.source.dir={root}", f"--output={tmp_path}/file/plan.json"]
    code, out, lines = run_here(*command)
    assert (code, out) == (1, "") and lines[-1].startswith(f"cannot write to {command[-1][9:]}: ")


def test_the_plan_of_a_run_holds_from_its_first_checkpoint_on(root, cache, tmp_path):
    """Before it, a flag that was wrong leaves nothing behind."""
    config = config_of(root, cache)
    config.data.patches.dims = 3
    write_plan(tmp_path, settle_plan(config, tmp_path, given=["config.data.patches.dims"]))
    assert config.data.patches.fit == "whole"
    config = config_of(root, cache)
    write_plan(tmp_path, settle_plan(config, tmp_path))
    assert config.data.patches.fit == "pad" and config.steps == 2000
    (tmp_path / "checkpoints" / "4").mkdir(parents=True)
    (tmp_path / "checkpoints" / "4" / "SHA256SUMS").touch()
    plan = json.loads((tmp_path / "plan.json").read_text())
    for choice in plan["choices"]:
        if choice["key"] == "steps":
            choice["value"] = 77
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    config = config_of(root, cache)
    settle_plan(config, tmp_path)
    assert config.steps == 77


def test_patients_of_a_splits_file_are_counted(root, cache, tmp_path):
    """Not scans, of which one patient may have several: the augmentation depends on it."""
    config = config_of(root, cache)
    config.data.source.patient_pattern = r"case_0(?=[01])|case_\d+|test_\d+"
    write_splits(tmp_path / "mine.json", Splits(("case_00", "case_01"), (), ("case_02",), ()))
    config.data.splits.file = str(tmp_path / "mine.json")
    plan = {choice["key"]: choice["reason"] for choice in make_plan(config)["choices"]}
    assert plan["augmentation.rotation"].startswith("few labelled patients (1)")


def test_labels_that_a_run_does_not_learn_from_do_not_change_its_plan(cache, tmp_path):
    root = write_msd(tmp_path / "set", labelled=7)
    description = json.loads((root / "dataset.json").read_text())
    (root / "dataset.json").write_text(json.dumps(description | {"modality": {"0": "CT"}}))
    config = config_of(root, cache)
    config.data.splits.update({"labelled": 2, "test": 2})

    def bright(names):
        for name in names:
            image = nib.load(root / "imagesTr" / f"{name}.nii.gz").get_fdata()
            write_nifti(root / "labelsTr" / f"{name}.nii.gz", (image > 130).astype(np.uint8))
        return {choice["key"]: choice["value"] for choice in make_plan(config)["choices"]}

    before = bright([])
    config.data.splits.validation = before["data.splits.validation"]
    splits = choose_splits(config.data, index_data(config).cases)
    assert len(splits.unlabelled) == 4 and before["data.patches.window"]
    assert bright({*splits.validation, *splits.test, *splits.unlabelled[:2]}) == before
    after = bright(splits.labelled)
    assert after["data.patches.window"][0] > before["data.patches.window"][0]


def test_a_plan_is_of_what_was_annotated(root, cache, tmp_path):
    """Its slices are across the plane that the file was written for."""
    config = config_of(root, cache)
    config.data.splits.update({"labelled": 0, "validation": 1})
    file = tmp_path / "annotation.json"
    config.data.annotation.file, config.data.patches.plane = str(file), "coronal"

    def plan_of(drawn, **more):
        write_annotation(file, drawn)
        plan = make_plan(config, **more)
        choices = {choice["key"]: choice for choice in plan["choices"]}
        return plan["fingerprint"]["share"]["background"], choices.get("data.patches.plane")

    names = [case.name for case in index_data(config).cases if case.labelled]
    whole, plane = plan_of({names[0]: Drawn(classes=("a", "b"))})
    assert plane["value"] == "axial" and whole == pytest.approx(1 / 3, abs=0.1)
    share, plane = plan_of({name: Drawn(slices=(1,)) for name in names})
    assert plane["value"] == "coronal" and plane["reason"] == f"the slices of {file} are across it"
    labels = [read_image(root / "labelsTr" / f"{name}.nii.gz")[0][:, 1] for name in names]
    splits = choose_splits(config.data, index_data(config).cases)
    learned = [x for name, x in zip(names, labels, strict=True) if name in splits.labelled]
    assert share == pytest.approx(np.mean(np.stack(learned) == 0)) and share != whole
    given = plan_of({names[0]: Drawn(slices=(1,))}, given=["config.data.patches.plane"])
    assert given[1] is None


def test_a_configuration_that_is_not_to_be_planned(root, cache, tmp_path):
    config = config_of(root, cache)
    config.plan = False
    before = config.to_dict()
    assert settle_plan(config, tmp_path) is None and config.to_dict() == before


def test_rows_of_a_table_have_one_plan(root, cache, run_here, tmp_path):
    command = ["mijax.table1", "--config", "configs/folder.py", "--rows=full,partial", "--seeds=1"]
    command += [f"--config.data.source.dir={root}", f"--config.cache={cache}", "--list"]
    command += ["--config.data.splits.labelled=1", "--config.data.splits.validation=1"]
    code, out, lines = run_here(*command, f"--output={tmp_path / 'table'}", "--config.steps=7")
    assert code == 0, lines
    assert not (tmp_path / "table").exists()
    for line in out.splitlines():
        assert "--config.plan=False" in line
        for key in ("data.patches.size", "steps", "learning_rate", "data.splits.validation"):
            assert line.count(f"--config.{key}=") == 1
        assert " --config.steps=7 " in line
