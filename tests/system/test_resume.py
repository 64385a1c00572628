"""A run that was stopped goes on and ends bit for bit like one that was not."""

import os
import re
import signal
import subprocess
import sys

import jax
import pytest

from mijax import parallel
from mijax.errors import Preempted, UserError
from mijax.inference import evaluate
from mijax.runs.checkpoints import Checkpoints
from mijax.runs.folder import exclusive, start_run
from mijax.training import loop, train


@pytest.fixture
def assert_same_end(restored):
    """``assert_same_end(run, other)``: bit for bit."""

    def arrays(run):
        """Path and bytes of every array of the last state, and of every network."""
        experiment, state = restored(run)
        assert state.step == run.config.steps
        trees, sharding = {"state": state}, parallel.replicated(experiment.mesh)
        with Checkpoints(run.checkpoints, read_only=True) as checkpoints:
            for folder in run.checkpoints.iterdir():
                trees[folder.name] = checkpoints.restore_network(int(folder.name), sharding)
        found = jax.tree.leaves_with_path(jax.device_get(trees))
        return {jax.tree_util.keystr(k): x.tobytes() for k, x in found}

    return lambda run, other: _assert_same_end(run, other, *map(arrays, (run, other)))


def _assert_same_end(run, other, first, second):
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    lines, others = ((r.folder / "metrics.jsonl").read_text().splitlines() for r in (run, other))
    assert lines == others and len(lines) == 6 + 3  # every 2 steps, and every 4 a validation
    kept = [sorted(f.name for f in r.checkpoints.iterdir()) for r in (run, other)]
    assert kept[0] == kept[1]


class Stop(Exception):
    pass


def stop_at(monkeypatch, step):
    class Stopping(loop.MetricsLog):
        def progress(self, reached):
            if reached == step:
                raise Stop
            super().progress(reached)

    monkeypatch.setattr(loop, "MetricsLog", Stopping)


@pytest.mark.parametrize(
    ("method", "stops"),
    # Rounds of local_contrast begin at steps 4 and 8.
    [("local_mi", [9]), ("local_contrast", [3, 7])],
)
def test_stopped_between_saves(
    uninterrupted, tiny, tmp_path, monkeypatch, method, stops, told, assert_same_end
):
    whole, run = uninterrupted(method), start_run(tmp_path, tiny(method))
    told.clear()
    for step in stops:
        with monkeypatch.context() as patch, pytest.raises(Stop):
            stop_at(patch, step)
            train(run)
    train(run)
    # Steps are saved at 4 and 8.
    assert told == [f"going on from step {stop // 4 * 4} of 12" for stop in stops if stop > 4]
    assert_same_end(run, whole)


@pytest.mark.parametrize(
    ("number", "kind", "name"),
    [(signal.SIGTERM, Preempted, "SIGTERM"), (signal.SIGINT, KeyboardInterrupt, "Ctrl-C")],
)
def test_a_signal_saves_and_leaves(
    uninterrupted, tiny, tmp_path, monkeypatch, number, kind, name, told, assert_same_end
):
    class Signalled(loop.MetricsLog):
        def progress(self, reached):
            if reached == 5 and self._start < 5:  # between two lines of the log
                os.kill(os.getpid(), number)
            super().progress(reached)

    class Saving(loop.Checkpoints):
        def save(self, state, *args, **options):
            super().save(state, *args, **options)  # a kill behind it must find both
            assert (tmp_path / "unlogged.json").exists() == (state.step >= 5)

    whole, before = uninterrupted("local_mi"), signal.getsignal(number)
    told.clear()
    monkeypatch.setattr(loop, "MetricsLog", Signalled)
    monkeypatch.setattr(loop, "Checkpoints", Saving)
    run = start_run(tmp_path, tiny("local_mi"))
    with pytest.raises(kind, match=f"{name} after step 5 of 12 and saved; .* --workdir {tmp_path}"):
        train(run)
    assert signal.getsignal(number) is before
    assert sorted(f.name for f in run.checkpoints.iterdir()) == ["4", "5"]
    if number == signal.SIGINT:  # all that follows is the same
        return
    train(run)
    assert told == ["going on from step 5 of 12"]
    assert_same_end(run, whole)


def test_a_second_ctrl_c_does_not_wait_for_the_step(tiny, tmp_path, monkeypatch):
    class Interrupted(loop.MetricsLog):
        def progress(self, reached):
            for _ in range(2):
                os.kill(os.getpid(), signal.SIGINT)
            pytest.fail("it went on")

    monkeypatch.setattr(loop, "MetricsLog", Interrupted)
    run = start_run(tmp_path / "run", tiny("local_mi"))
    with pytest.raises(KeyboardInterrupt):
        train(run)
    assert not run.folder.exists()  # nothing was logged or saved


def test_a_folder_in_use_is_refused(tiny, tmp_path):
    run = start_run(tmp_path, tiny("local_mi"))
    with (
        exclusive(run),
        pytest.raises(UserError, match="another process is training in"),
    ):
        train(run)


def test_killed(uninterrupted, tiny, tmp_path, told, assert_same_end):
    """Another process, SIGKILL behind its first checkpoint; this one goes on."""
    run = start_run(tmp_path / "run", tiny("local_mi"))
    command = [sys.executable, "-m", "mijax.main", "--workdir", str(run.folder), "--noreport"]
    # The same program in this process and in that one: bits depend on the compiler's options.
    environment = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, text=True) as process:
        for line in process.stderr:
            if line.startswith("step 6/12"):
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    whole = uninterrupted("local_mi")
    told.clear()
    train(run)
    assert len(told) == 1 and re.fullmatch("going on from step (4|8) of 12", told[0])
    assert_same_end(run, whole)


def test_finished_run_is_only_scored_again(uninterrupted, copied, told, assert_same_end):
    whole, run = uninterrupted("local_mi"), copied("local_mi")
    evaluate(whole)
    (run.folder / "scores.json").unlink(missing_ok=True)
    told.clear()
    train(run)
    assert told == ["going on from step 12 of 12"]
    evaluate(run)
    texts = [(one.folder / "scores.json").read_text() for one in (run, whole)]
    assert texts[0] == texts[1]
    assert_same_end(run, whole)


def flip_a_byte(folder):
    file = max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def remove_checksums(folder):
    (folder / "SHA256SUMS").unlink()


def test_damaged_checkpoint_is_passed_over(uninterrupted, copied, told, assert_same_end):
    run = copied("local_mi")
    flip_a_byte(run.checkpoints / "12")
    train(run)
    assert len(told) == 2 and f"{run.checkpoints / '12'} is damaged" in told[0]
    assert told[1] == "going on from step 8 of 12"
    assert_same_end(run, uninterrupted("local_mi"))


def test_all_checkpoints_damaged_starts_again(uninterrupted, copied, told, assert_same_end):
    run = copied("local_mi")
    damaged = sorted(run.checkpoints.iterdir())
    for folder in damaged[:-1]:
        flip_a_byte(folder)
    remove_checksums(damaged[-1])
    train(run)
    assert "no sound checkpoint left" in told[-1]
    assert len(told) == len(damaged) + 1
    assert_same_end(run, uninterrupted("local_mi"))


def test_other_devices_than_at_the_beginning_are_told_of(copied, told):
    run = copied("supervised")
    assert run.info()["devices"] == "8 × cpu"
    told.clear()
    train(run)
    assert told == ["going on from step 12 of 12"]
    train(run, devices=jax.devices()[:1])
    assert told[-1] == "begun on 8 × cpu: from here on, 1 × cpu, it is the same to rounding only"
