"""The examples run as they are, and the mutual information that they print rises."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def printed(example, devices):
    flags = f"--xla_force_host_platform_device_count={devices}"
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / example],
        env={**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def information(text):
    return [float(x) for x in re.findall(r"mutual.information ([\d.]+)", text)]


@pytest.fixture(scope="module")
def plain():
    return information(printed("plain_loop.py", 1))


def test_plain_loop(plain):
    assert plain[0] < 0.1 and plain[-1] > 0.4


def test_nnx_loop():
    values = information(printed("nnx_loop.py", 1))
    assert len(values) == 5 and values[0] < 0.1 and values[-1] > 0.3


def test_shard_map_on_two_devices_is_the_plain_loop(plain):
    text = printed("shard_map_loop.py", 2)
    assert text.startswith("2 devices\n")
    assert information(text) == pytest.approx(plain, abs=0.02)


def test_a_method_in_a_loop_and_with_a_network_of_ones_own():
    text = printed("method_loop.py", 1)
    supervised = [float(x) for x in re.findall(r"supervised ([\d.]+)", text)]
    assert supervised[-1] < 0.6 * supervised[0]
    mutual = information(text)
    assert mutual[-1] > 5 * mutual[0]
