"""The examples run, and the mutual information that they print rises."""

import re
import runpy
from pathlib import Path

import jax
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def printed(example, capsys):
    """What an example prints in the first half of its 41 steps."""
    # In this process, which has imported most of what they do. Its settings are stricter than
    # theirs need be.
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        shorter = {"range": lambda n: range(min(n, 21))}
        runpy.run_path(str(EXAMPLES / example), shorter, "__main__")
    return capsys.readouterr().out


def information(text):
    return [float(x) for x in re.findall(r"mutual.information ([\d.]+)", text)]


def test_plain_loop_and_shard_map_on_all_devices(capsys):
    plain = information(printed("plain_loop.py", capsys))
    assert len(plain) == 3 and plain[0] < 0.1 and plain[-1] > 0.3
    text = printed("shard_map_loop.py", capsys)
    assert text.startswith("8 devices\n")
    assert information(text) == pytest.approx(plain, abs=0.02)


def test_nnx_loop(capsys):
    values = information(printed("nnx_loop.py", capsys))
    assert len(values) == 3 and values[0] < 0.1 and values[-1] > 0.2


def test_a_method_in_a_loop_and_with_a_network_of_ones_own(capsys):
    text = printed("method_loop.py", capsys)
    supervised = [float(x) for x in re.findall(r"supervised ([\d.]+)", text)]
    assert supervised[-1] < 0.6 * supervised[0]
    mutual = information(text)
    assert mutual[-1] > 2 * mutual[0]  # without its loss, 1.25
