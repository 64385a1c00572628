"""Locks between processes, by files."""

import contextlib
import errno

_NO_LOCKS = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK)


@contextlib.contextmanager
def locked(path, *, tell, wait=False):
    """An open file with a lock on it, or None where another process holds that.

    With ``wait``, waits for it. Processes that inherit the file hold the lock as well; it ends
    with the last of them, however that ends. On a file system without locks (Lustre as it is
    often mounted, some NFS) there is none, which ``tell`` is called with a line about.
    """
    import fcntl  # not on Windows

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield None
            return
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            tell(
                f"{path.parent}: the file system has no locks ({error.strerror}); goes on "
                "without, so see to it that no other process works there"
            )
        yield file
