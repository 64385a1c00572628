"""The exported network: the same probabilities in a process that has no mijax."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from mijax.inference import Predictor

PROGRAM = """
import importlib.abc, pathlib, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mijax", "flax"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Missing())
import jax, jax.export, numpy as np

folder = pathlib.Path(sys.argv[1])
exported = jax.export.deserialize(bytearray((folder / "network").read_bytes()))
images = np.load(folder / "images.npz")
probs = {name: jax.jit(exported.call)(images[name]) for name in images}
np.savez(folder / "probs.npz", **probs)
assert not {"mijax", "flax"} & sys.modules.keys()
print(*exported.platforms)
"""


@pytest.fixture(scope="module")
def exported(uninterrupted, run_module, tmp_path_factory):
    run, folder = uninterrupted("local_mi"), tmp_path_factory.mktemp("export")
    arguments = ["--workdir", run.folder, "--output", folder / "network"]
    code, out, (line,) = run_module("mijax.export", *arguments)
    assert (code, out) == (0, "")
    assert line.endswith("images float32[b,2*h,2*w,1] to probabilities float32[b,2*h,2*w,3]")
    return run, folder, arguments


def test_same_probabilities_without_mijax(exported):
    run, folder, _ = exported
    shapes = {"few": (8, 32, 32, 1), "many": (24, 32, 32, 1), "wide": (8, 16, 48, 1)}
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


def test_file_that_exists(exported, run_module):
    before = (exported[1] / "network").read_bytes()
    code, _, (line,) = run_module("mijax.export", *exported[2])
    assert code == 1 and line.endswith("network exists already; --overwrite replaces it")
    assert (exported[1] / "network").read_bytes() == before


def test_nothing_to_export(run_module):
    assert run_module("mijax.export") == (2, "", ["needs --workdir RUN and --output FILE"])
