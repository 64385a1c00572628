"""Thirty times SIGKILL at random moments, saves included: python -m pytest -m slow -s FILE"""

import os
import random
import signal
import subprocess
import sys
import time

import jax
import pytest

from mijax.runs.folder import start_run

pytestmark = pytest.mark.slow

KILLS = 30
CHANGES = {"steps": 40, "log_every": 1, "evaluate_every": 2}  # a save every other step


@pytest.fixture
def start(cache):
    """``start(run)``: the process that trains it, or goes on with it."""
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}

    def popen(run):
        command = [sys.executable, "-m", "mijax.main", "--noreport", "--workdir", str(run.folder)]
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True)

    return popen


def end_of(run, restored):
    """Bytes of every array of the last checkpoint, and the scores and the log as they are."""
    state = jax.device_get(restored(run, run.config.steps)[1])
    texts = [(run.folder / name).read_text() for name in ("metrics.jsonl", "scores.json")]
    return [x.tobytes() for x in jax.tree.leaves(state)], texts


def test_killed_at_random_moments(tiny, tmp_path, start, restored):
    draw = random.Random(0)
    whole = start_run(tmp_path / "whole", tiny("local_mi", **CHANGES))
    with start(whole) as process:
        process.communicate()
    assert process.returncode == 0
    kills = runs = in_save = 0
    while kills < KILLS:
        run = start_run(tmp_path / str(runs), tiny("local_mi", **CHANGES))
        while True:
            # Half of them where a save begins, which is behind the line of a validation.
            lines, saving = draw.randrange(30), draw.random() < 0.5
            pause = draw.random() * (0.15 if saving else 0.5)
            with start(run) as process:
                for count, line in enumerate(process.stderr):
                    assert "Traceback" not in line
                    if count >= lines and (not saving or "validation" in line):
                        time.sleep(pause)
                        process.send_signal(signal.SIGKILL)
                        break
            if process.returncode == 0:
                break
            assert process.returncode == -signal.SIGKILL
            kills += 1
            saves = run.checkpoints.glob("*")
            in_save += any(not (folder / "SHA256SUMS").exists() for folder in saves)
        assert end_of(run, restored) == end_of(whole, restored)
        runs += 1
    print(f"{kills} kills in {runs} runs, {in_save} of them in a save")
    assert in_save
