"""Files in one piece, locks between processes, and file systems that have none."""

import errno
import fcntl
import os

import pytest

from mijax.errors import UserError
from mijax.files import in_one_piece, locked, remove_abandoned, write_atomically


def by_part(path, content):
    with in_one_piece(path) as part:
        part.write_text(content)


@pytest.mark.parametrize("write", [write_atomically, by_part])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_what_was_there_alone(tmp_path, monkeypatch, write, error):
    path = tmp_path / "file"
    write(path, "old")

    def replace(*_):
        raise error

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises((OSError, UserError, KeyboardInterrupt)):
        write(path, "new")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_what_was_abandoned_goes_a_day_later(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    os.utime(tmp_path / "old", (0, 0))
    remove_abandoned(tmp_path.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_one_holds_it_at_a_time(tmp_path):
    path = tmp_path / "folder" / ".lock"
    with locked(path) as first:
        assert first is not None
        with locked(path) as second:
            assert second is None
    with locked(path, wait=True) as third:
        assert third is not None


def test_who_waits_says_so(tmp_path, monkeypatch, told):
    asked = []

    def flock(_, how):
        asked.append(how)
        if how & fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / ".lock", wait=True) as file:
        assert file is not None and asked == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]
    assert told == [f"waiting for another process that works in {tmp_path}"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
@pytest.mark.parametrize("wait", [False, True])
def test_a_file_system_without_locks(tmp_path, monkeypatch, number, wait, told):
    def flock(*_):
        raise OSError(number, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / ".lock", wait=wait) as file:
        assert file.fileno()  # to be passed on, as any
    (line,) = told
    assert line.startswith(f"{tmp_path}: the file system has no locks (Function not implemented)")


def test_any_other_error_is_one(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(OSError, match="Input/output"), locked(tmp_path / ".lock"):
        pass
