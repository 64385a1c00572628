"""Images are read in a process of their own: some bad files end the decoder, and what runs it."""

import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
import traceback
import warnings
from pathlib import Path

import numpy as np

from mijax.data.scans import Scan, read_scan
from mijax.data.volume import Volume
from mijax.errors import ANOTHER_SERIES, Notice, UserError, lines_of
from mijax.serving.scans import open_scan

_SECONDS = 600.0  # for one image
_VOXEL_BYTES, _REST = 24, 2**32  # of memory: for each voxel that is allowed, and besides
_FILE = "image.npy"
_log = logging.getLogger("mijax")


class Reader:
    """Another process, which is begun anew where it ended. Any thread may ask, one at a time."""

    def __init__(self, *, channels: int, slices: dict, most_voxels: int):
        """Reads for a run.

        Args:
          channels: of an image.
          slices: of ``data.patches.slice_options``.
          most_voxels: see ``scans.open_scan``.
        """
        self._channels, self._most = channels, most_voxels
        self._slices = slices
        self._lock = threading.Lock()
        self._process = self._pipe = None

    def start(self) -> None:
        """Begins the process, if there is none; it takes a second to be ready."""
        if self._process is None:
            spawn = multiprocessing.get_context("spawn")
            self._pipe, other = spawn.Pipe()
            most = _VOXEL_BYTES * self._most + _REST
            self._process = spawn.Process(target=_work, args=(other, most), daemon=True)
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process.start()  # for ever without SIGINT: the server sees to a Ctrl-C
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            other.close()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._pipe.close()
            self._process.kill()
            self._process.join()
            self._process = None

    def open(self, path: Path) -> Scan:
        """The one scan that was sent, with lines that were told; see ``scans.open_scan``.

        Raises:
          UserError: as there, or the process ended at it.
        """
        scan, told = self._ask(_hear, open_scan, path, self._slices, self._channels, self._most)
        return scan._replace(told=tuple(line.removesuffix(ANOTHER_SERIES) for line in told))

    def read(self, scan: Scan, folder: Path) -> tuple[Volume, list[str]]:
        """The volume of a scan, as a map of a file in ``folder``, and all lines that were told.

        Raises:
          UserError: see ``data.scans.read_scan``, or the process ended at it.
        """
        affine, told = self._ask(_hear, _read, scan, self._channels, folder / _FILE)
        image = np.load(folder / _FILE, mmap_mode="r")
        return Volume(scan.name, image, None, affine), list(dict.fromkeys([*scan.told, *told]))

    def _ask(self, function, *arguments):
        with self._lock:
            if self._process is not None and not self._process.is_alive():
                self.close()  # it ended with nothing to do, as where memory ran out
            self.start()
            try:
                self._pipe.send((function, arguments))
                if not self._pipe.poll(_SECONDS):
                    raise EOFError(f"no answer in {_SECONDS:.0f} s")
                result = self._pipe.recv()
            except (EOFError, OSError) as error:
                _log.error("the process that reads images ended at one: %s", lines_of(error)[0])
                self.close()
                raise UserError("the image cannot be read; copy or convert it again") from error
        if isinstance(result, Exception):
            raise result
        return result


def _work(pipe, most_bytes):
    """Does what is asked, until nobody can ask any more."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource  # not on Windows

        resource.setrlimit(resource.RLIMIT_AS, (most_bytes, most_bytes))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(EOFError, OSError):
        while True:
            function, arguments = pipe.recv()
            try:
                result = function(*arguments)
            except (UserError, MemoryError) as error:
                result = error
            except OSError as error:
                result = OSError(error.errno, error.strerror)
            except Exception:  # of a damaged image a library may raise anything
                traceback.print_exc(file=sys.stderr)
                result = UserError("the image cannot be read; copy or convert it again")
            pipe.send(result)


def _hear(function, *arguments):
    """What a function returns, and its notices."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", Notice)
        result = function(*arguments)
    return result, [str(w.message) for w in told if issubclass(w.category, Notice)]


def _read(scan, channels, path):
    volume = read_scan(scan, channels=channels)
    np.save(path, volume.image)
    return volume.affine
