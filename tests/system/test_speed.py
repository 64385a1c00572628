"""The cases that are timed: each runs, and gives a number."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks.ours import make_case
from benchmarks.speed import ASKED, CASES
from benchmarks.worker import Settings


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
