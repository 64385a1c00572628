"""Without the extra: what runs on JAX, NumPy and SciPy alone, and what is said by the rest."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import mijax

ROOT = Path(mijax.__file__).parents[1]
# JAX brings the last three.
CORE = ("mijax", "jax", "numpy", "scipy", "jaxlib", "ml_dtypes", "opt_einsum")
COMMANDS = (
    "main", "evaluate", "export", "inspect", "predict", "report", "select", "serve", "table1"
)  # fmt: skip


@pytest.fixture
def bare(tmp_path):
    """``bare(*arguments)``: a finished Python that has these packages and no others."""
    for name in CORE:
        folder = Path(importlib.util.find_spec(name).submodule_search_locations[0])
        for found in (folder, folder.with_name(f"{name}.libs")):
            if found.exists():
                (tmp_path / found.name).symlink_to(found)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-S", *map(str, arguments)],  # without site-packages
            env={**os.environ, "PYTHONPATH": str(tmp_path)},
            capture_output=True,
            text=True,
        )

    return run


def test_losses_transformations_and_scores_need_no_extra(bare):
    program = """
import jax, numpy as np
from mijax import losses, metrics, transforms
probs = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 8, 8, 3)))
assert np.isfinite(losses.local_mutual_information(probs, probs))
labels = np.ones((4, 4, 4), np.uint8)
assert (metrics.largest_components(labels) == labels).all()
assert metrics.dice(labels, labels, classes=2) == 1
"""
    done = bare("-c", program)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_its_extra_says_what_to_install(bare, command):
    done = bare("-m", f"mijax.{command}", "--help")
    assert (done.returncode, done.stdout) == (1, "")
    line = "needs absl, which is not installed: in the clone of mijax, pip install -e '.[train]'"
    assert done.stderr == f"mijax: {line}\n"


SCRIPT = "import sys\nfrom mijax.main import cli\nsys.exit(cli())\n"  # as pip writes it


def test_the_script_without_its_extra(bare, tmp_path):
    script = tmp_path / "bin" / "mijax"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    done = bare(script)
    assert done.stderr.startswith("mijax: needs absl") and len(done.stderr.splitlines()) == 1


def test_the_library_without_its_extra_raises_as_ever(bare):
    assert bare("-c", "import mijax.models").stderr.endswith("No module named 'flax'\n")


def test_the_script_is_the_command(tmp_path):
    (tmp_path / "mijax").write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    script, command = (
        subprocess.run(
            [sys.executable, *start, "--help"], env=environment, capture_output=True, text=True
        )
        for start in ([tmp_path / "mijax"], ["-m", "mijax.main"])
    )
    assert (script.returncode, script.stderr) == (0, "")
    file = str(ROOT / "mijax" / "main.py")  # which absl names where the command names the module
    assert script.stdout == command.stdout.replace(f"{file}:", "mijax.main:")
