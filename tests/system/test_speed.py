"""The cases that are timed: each runs, and gives a number."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks.ours import make_case
from benchmarks.speed import ASKED, CASES
from benchmarks.worker import Case, Settings, serve


def cases():
    """All, of the train steps one that has what the others have."""
    for name in (*CASES, *ASKED):
        quick = "step" not in name or name == "step, supervised"
        yield pytest.param(name, marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("name", list(cases()))
def test_ours(name):
    count = jax.device_count()
    settings = Settings(size=14, labelled=count, unlabelled=count, widths=(4, 8))
    options = SimpleNamespace(precision="float32", steps_per_dispatch=2)
    case = make_case(settings, options, name)
    value = case.run()
    assert case.units == {"step, three seeds": 6}.get(name, 2 if "step" in name else 1)
    random = name == "augmentation" or name.startswith("volumes")
    assert value is None if random else np.isfinite(value)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="a peak is of the process")
def test_the_peak_of_the_host_is_of_a_case(monkeypatch, capsys):
    def make_case(name):
        held = np.ones(2**25 if name == "large" else 1)  # 256 MiB
        return Case(run=lambda: held[0])

    orders = [{"case": "large"}, {"runs": 1}, {"case": "small"}, {"runs": 1}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, orders))))
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    serve(make_case, device_memory=lambda: None)
    _, large, _, small = map(json.loads, capsys.readouterr().out.splitlines())
    assert large["peak_bytes"] - small["peak_bytes"] > 2**27


def test_a_case_that_fails_is_told_and_the_next_one_is_timed(monkeypatch, capsys):
    def make_case(name):
        if name == "too large":
            raise RuntimeError("RESOURCE_EXHAUSTED: 80 GiB\nand more about it")
        return Case(run=lambda: 3.0)

    orders = [{"case": "too large"}, {"case": "small"}, {"runs": 2}]
    monkeypatch.setattr(sys, "stdin", io.StringIO("\n".join(map(json.dumps, orders))))
    monkeypatch.setattr(sys.stdout, "reconfigure", lambda **_: None, raising=False)
    serve(make_case, device_memory=lambda: 7)
    failed, small, timed = map(json.loads, capsys.readouterr().out.splitlines())
    assert failed == {"error": "RESOURCE_EXHAUSTED: 80 GiB"}
    assert small["value"] == 3.0 and len(timed["seconds"]) == 2 and timed["peak_bytes"] == 7
