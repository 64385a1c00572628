"""Files that several processes see: written in one piece, and locks on them."""

import contextlib
import errno
import json
import logging
import os
import shutil
import time
from pathlib import Path

from mijax.errors import UserError

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)
_ABANDONED = 86400  # seconds
_log = logging.getLogger("mijax")


def write_atomically(path, content):
    """Writes a text or bytes in one piece: a reader sees the old file or the new one.

    Where something fails, whatever there was stays as it is, and nothing lies beside it.
    """
    path = Path(path)
    part = path.with_name(f".{path.name}.{os.getpid()}")  # each process of a run writes its own
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise


@contextlib.contextmanager
def in_one_piece(path):
    """``with in_one_piece(path) as part``: the file written to ``part`` is then that of ``path``.

    Where something fails, whatever there was of ``path`` stays as it is, and of ``part`` nothing.

    Raises:
      UserError: if it cannot be written there.
    """
    path = Path(path)
    part = path.with_name(f".part{os.getpid()}-{path.name}")
    try:
        yield part
        os.replace(part, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free space there, or choose another "
            "folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def writing_to(path):
    """One line where ``path``, or what is to be in it, cannot be written.

    Raises:
      UserError: in place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error


def remove_abandoned(folders):
    """Removes those into which nothing came for a day: a kill kept who wrote them from it."""
    for left in folders:
        with contextlib.suppress(OSError):  # another process was first
            newest = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - newest > _ABANDONED:
                shutil.rmtree(left)


def write_json(path, value):
    """Writes JSON in one piece."""
    write_atomically(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path):
    """The content of a file of JSON.

    Raises:
      UserError: if it cannot be read, or is none.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


class Record(dict):
    """The object in a file of JSON, of which ``[key]`` is refused in one line where it has none.

    Raises:
      UserError: see ``read_json``.
    """

    def __init__(self, path):
        super().__init__(read_json(path))
        self._path = path

    def __missing__(self, key):
        raise UserError(
            f"{self._path} has no {key!r}: it is of another version of mijax, or was damaged"
        )


@contextlib.contextmanager
def locked(path, *, wait=False):
    """An open file with a lock on it, or None where another process holds that.

    With ``wait``, logs that it waits for that one, and does. Processes that inherit the file hold
    the lock as well; it ends with the last of them, however that ends. On a file system without
    locks (Lustre as it is often mounted, some NFS) there is none, and a line is logged.
    """
    import fcntl  # not on Windows

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                yield None
                return
            _log.info("waiting for another process that works in %s", path.parent)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            _log.warning(
                "%s: the file system has no locks (%s); goes on without, so see to it that no "
                "other process works there",
                path.parent,
                error.strerror,
            )
        yield file
