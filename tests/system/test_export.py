"""The export of a run: the same probabilities and label maps in a process that has no mijax."""

import json
import os
import subprocess
import sys

import jax
import nibabel as nib
import numpy as np
import pytest

from mijax.data import read_splits
from mijax.inference import Predictor, evaluate, export
from mijax.inference.bundle import describe
from mijax.inference.model_card import model_card

PROGRAM = """
import importlib.abc, pathlib, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mijax", "flax"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import jax, jax.export, numpy as np

folder = pathlib.Path(sys.argv[1])
exported = jax.export.deserialize(bytearray((folder / "bundle/network.stablehlo").read_bytes()))
images = np.load(folder / "images.npz")
probs = {name: jax.jit(exported.call)(images[name]) for name in images}
np.savez(folder / "probs.npz", **probs)
assert not {"mijax", "flax"} & sys.modules.keys()
print(*exported.platforms)
"""


@pytest.fixture(scope="module")
def exported(uninterrupted, run_here, tmp_path_factory):
    run, folder = uninterrupted("local_mi"), tmp_path_factory.mktemp("export")
    arguments = ["--workdir", run.folder, "--output", folder / "bundle"]
    code, out, (line,) = run_here("mijax.export", *arguments)
    assert (code, out) == (0, "")
    assert line == f"{folder}/bundle: python {folder}/bundle/predict.py predicts with it"
    return run, folder, arguments


def test_same_probabilities_without_mijax(exported):
    run, folder, _ = exported
    shapes = {"few": (8, 32, 32, 1), "many, wide": (24, 16, 48, 1)}
    images = {
        name: np.random.default_rng(0).random(shape, np.float32) for name, shape in shapes.items()
    }
    np.savez(folder / "images.npz", **images)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder],
        env={**os.environ, "XLA_FLAGS": ""},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["cpu", "cuda", "tpu"]
    predictor = Predictor(run, devices=jax.devices()[:1])
    with np.load(folder / "probs.npz") as probs:
        for name, image in images.items():
            expected = predictor.network.predict(predictor.weights, image)
            assert probs[name].shape == (*image.shape[:3], 3)
            np.testing.assert_allclose(probs[name], expected, atol=1e-6)


def test_a_run_of_bfloat16_is_exported_in_float32(predicting):
    folder = predicting()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"precision": "bfloat16"}))
    predictor = Predictor(folder, devices=jax.devices()[:1])
    assert predictor.network.model.dtype == jax.numpy.bfloat16
    assert "bf16" not in export(predictor).mlir_module()


def test_same_label_maps_without_mijax(exported, run_here, tmp_path):
    """By ``predict.py``, of a scan of the phantom whose slices are larger than any of the run."""
    run, folder, _ = exported
    draw = np.random.default_rng(0)
    image = np.kron(draw.random((11, 7, 3)), np.ones((5, 5, 2))) + 0.1 * draw.random((55, 35, 6))
    nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), tmp_path / "scan.nii.gz")
    scan = ["--input", str(tmp_path / "scan.nii.gz"), "--output"]
    command = ["--workdir", run.folder, "--notrust", *scan, tmp_path / "here"]
    code, _, lines = run_here("mijax.predict", *command)
    assert code == 0, lines
    command = [sys.executable, folder / "bundle" / "predict.py", *scan, tmp_path / "there"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    here, there = (
        np.asarray(nib.load(tmp_path / name / "scan.nii.gz").dataobj) for name in ("here", "there")
    )
    assert here.shape == image.shape and len(np.unique(here)) > 1
    assert np.mean(here != there) < 1e-3  # ties


def test_model_card(exported, copied):
    _, folder, _ = exported
    run = copied("local_mi")
    card = (folder / "bundle" / "README.md").read_text()
    splits = read_splits(run.folder / "splits.json")
    for role in ("labelled", "unlabelled"):
        assert f"| {role} cases | {len(getattr(splits, role))} |" in card
    for name in (*splits.labelled, *splits.test):
        assert name not in card
    best = evaluate(run)["best"]
    card = model_card(Predictor(run), describe(Predictor(run)))
    assert f"{100 * best['mean_dsc']:.2f}" in card and "0 background, 1 " in card
    assert "method `local_mi`, seed 0" in card


def test_bundle_that_exists(exported, run_here):
    before = (exported[1] / "bundle" / "bundle.json").read_bytes()
    code, _, (line,) = run_here("mijax.export", *exported[2])
    assert code == 1 and line.endswith("bundle exists already; --overwrite replaces it")
    assert (exported[1] / "bundle" / "bundle.json").read_bytes() == before


def test_nothing_to_export(run_here):
    assert run_here("mijax.export") == (2, "", ["needs --workdir RUN and --output BUNDLE"])
