"""What is kept, what is best, and what happens to damaged checkpoints."""

import errno
import functools
import hashlib
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mijax import parallel
from mijax.errors import UserError
from mijax.runs.checkpoints import Checkpoints
from mijax.training.state import TrainState


def state_of(step):
    key = jax.random.key(step)
    weights = {"network": {"kernel": jax.random.normal(key, (7, 5))}}
    return TrainState(
        jnp.int32(step),
        weights,
        {"mean": jnp.ones(3)},
        {},
        (jnp.zeros(2),),
        jax.random.key_data(key),
    )


def network_of(step):
    return {"params": {"network": state_of(step).params["network"]}, "batch_stats": {}}


def save(folder, scores):
    with Checkpoints(folder) as checkpoints:
        for step, dsc in scores.items():
            checkpoints.save(state_of(step), network_of(step), score=dsc)


def steps_in(folder):
    return sorted(int(path.name) for path in folder.iterdir())


@pytest.fixture
def look(listening):
    """``look(folder)``: last step, best step, and what was told."""

    return functools.partial(_look, listening)


def _look(listening, folder, *, read_only=False, restore=True):
    with listening() as told, Checkpoints(folder, read_only=read_only) as checkpoints:
        last = checkpoints.last_step()
        if last is not None and restore:
            restored = checkpoints.restore(last, jax.eval_shape(lambda: state_of(last)))
            jax.tree.map(np.testing.assert_array_equal, restored, state_of(last))
            network = checkpoints.restore_network(last, parallel.replicated(parallel.make_mesh()))
            jax.tree.map(np.testing.assert_array_equal, network, network_of(last))
        return last, checkpoints.best_step(), told


@pytest.mark.parametrize(
    ("scores", "kept", "best"),
    [
        ({1: 0.5}, [1], 1),
        ({1: 0.9, 2: 0.5, 3: 0.6, 4: 0.7}, [1, 3, 4], 1),
        ({1: 0.1, 2: 0.9, 3: 0.6, 4: 0.7, 5: 0.2}, [2, 4, 5], 2),
        ({1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}, [3, 4], 4),
        ({1: 0.1, 2: 0.2, 3: 0.2}, [2, 3], 3),  # of equals the latest
        ({1: 0.5, 2: 0.5, 3: 0.4, 4: 0.3}, [2, 3, 4], 2),
        ({1: 0.0, 2: 0.0, 3: 0.0, 4: 0.0}, [3, 4], 4),
    ],
)
def test_keeps_the_best_and_the_two_newest(tmp_path, scores, kept, best, look):
    save(tmp_path, scores)
    assert steps_in(tmp_path) == kept
    assert look(tmp_path) == (max(scores), best, [])


@pytest.mark.parametrize("read_only", [True, False])
def test_nothing_there(tmp_path, read_only, look):
    assert look(tmp_path / "new", read_only=read_only) == (None, None, [])
    assert (tmp_path / "new").exists() is not read_only


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(file):
    file.write_bytes(b"")


def remove(file):
    file.unlink()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save(folder, {4: 0.2, 8: 0.3, 12: 0.4})
    return folder


@pytest.mark.parametrize("damage", [flip, truncate, empty, remove])
def test_damage_to_any_file_is_seen_and_the_one_before_taken(saved, tmp_path, damage, look):
    files = [f.relative_to(saved) for f in (saved / "12").rglob("*") if f.is_file()]
    assert len(files) > 5
    for file in files:
        folder = shutil.copytree(saved, tmp_path / "copy")
        damage(folder / file)
        for read_only in (True, False):
            last, best, told = look(folder, read_only=read_only, restore=file == files[0])
            assert (last, best) == (8, 8), file
            assert len(told) == 1 and str(folder / "12") in told[0] and "damaged" in told[0], file
        assert steps_in(folder) == [8]  # gone once it was told
        shutil.rmtree(folder)


def test_what_file_managers_leave_is_no_damage(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    for left in ("4/.DS_Store", "8/state/._manifest.ocdbt", "12/.nfs0001"):
        if (folder / left).parent.is_dir():
            (folder / left).write_bytes(b"x")
    for read_only in (True, False):
        assert look(folder, read_only=read_only) == (12, 12, [])
    assert steps_in(folder) == steps_in(saved)


def test_a_checkpoint_that_goes_away_meanwhile_is_passed_over(saved, monkeypatch, look):
    def read_bytes(path, of=Path.read_bytes):
        if "8" in path.parts and path.name == "_CHECKPOINT_METADATA":
            raise FileNotFoundError(path)
        return of(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    *steps, told = look(saved, read_only=True)
    assert steps == [12, 12]
    assert len(told) == 1 and told[0].endswith(
        "8 is damaged (_CHECKPOINT_METADATA is missing): passed over"
    )


def test_says_what_is_wrong(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    file = next(f for f in (folder / "12" / "state").rglob("*") if f.is_file())
    sums = folder / "12" / "SHA256SUMS"

    def told():
        (line,) = look(folder, read_only=True)[2]
        return line

    flip(file)
    assert f"{file.relative_to(folder / '12')} has changed" in told()
    remove(file)
    assert f"{file.relative_to(folder / '12')} is missing" in told()
    truncate(sums)
    assert "SHA256SUMS is incomplete" in told()
    remove(sums)
    assert "its save did not finish" in told()


def test_other_files_in_it_do_it_no_harm(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    for name in ("Thumbs.db", "state/note.txt", ".nfs01"):
        (folder / "12" / name).write_text("of a file manager")
    assert look(folder) == (12, 12, [])


def test_sums_that_cannot_be_read_now_cost_no_checkpoint(saved, tmp_path, monkeypatch):
    folder, of = shutil.copytree(saved, tmp_path / "copy"), Path.read_text

    def read_text(path, *how, **options):
        if path.name == "SHA256SUMS":
            raise OSError(errno.EIO, "Input/output error")
        return of(path, *how, **options)

    monkeypatch.setattr(Path, "read_text", read_text)
    with pytest.raises(UserError, match="cannot read .*SHA256SUMS: Input/output error"):
        Checkpoints(folder)
    assert (folder / "12").exists()


def test_all_damaged(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    for step in (8, 12):
        remove(folder / str(step) / "SHA256SUMS")
    for read_only in (True, False):
        last, best, told = look(folder, read_only=read_only)
        assert (last, best) == (None, None)
        assert "/8 is damaged" in told[0] and "/12 is damaged" in told[1]
        assert "no sound checkpoint" in told[2] and len(told) == 3


def test_an_unfinished_save_is_cleared_away(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    unfinished = folder / "16.orbax-checkpoint-tmp"
    unfinished.mkdir()
    assert look(folder, read_only=True) == (12, 12, [])
    assert unfinished.exists()
    assert look(folder) == (12, 12, [])
    assert not unfinished.exists()


def test_saves_again_what_was_damaged(saved, tmp_path, look):
    folder = shutil.copytree(saved, tmp_path / "copy")
    remove(folder / "12" / "SHA256SUMS")
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.last_step() == 8
        checkpoints.save(state_of(12), network_of(12), score=0.1)
        assert (checkpoints.last_step(), checkpoints.best_step()) == (12, 8)
    assert look(folder) == (12, 8, [])


def test_checksums_are_those_of_sha256sum(saved):
    for line in (saved / "12" / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ", 1)
        assert hashlib.sha256((saved / "12" / name).read_bytes()).hexdigest() == digest


def test_a_step_by_its_name_or_number(saved, tmp_path):
    with Checkpoints(saved, read_only=True) as checkpoints:
        assert [checkpoints.step_of(x) for x in ("last", "best", 8)] == [12, 12, 8]
        with pytest.raises(UserError, match="no sound checkpoint of step 5"):
            checkpoints.step_of(5)
    nothing = Checkpoints(tmp_path, read_only=True)
    with pytest.raises(UserError, match="has no sound checkpoint$"):
        nothing.step_of("last")


def test_another_network_does_not_fit(saved):
    other = state_of(12)._replace(params={"network": {"weights": jnp.ones((7, 5))}})
    with Checkpoints(saved, read_only=True) as checkpoints:
        with pytest.raises(UserError, match="/12: ") as caught:
            checkpoints.restore(12, jax.eval_shape(lambda: other))
        assert "\n" not in str(caught.value)
