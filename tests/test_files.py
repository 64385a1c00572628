"""Locks between processes, and file systems that have none."""

import errno

import pytest

from mijax.files import locked


def test_one_holds_it_at_a_time(tmp_path):
    path = tmp_path / "folder" / ".lock"
    with locked(path) as first:
        assert first is not None
        with locked(path) as second:
            assert second is None
    with locked(path, wait=True) as third:
        assert third is not None


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
