"""Scans that were sent and are kept a while, so that a viewer sends each but once."""

import contextlib
import secrets
import shutil
import time
from pathlib import Path
from typing import NamedTuple

from mijax.data.scans import Scan
from mijax.serving.archive import TooLarge


class Full(Exception):
    """There is no room for one more, and nothing that could make room."""


class Unknown(Exception):
    """There is no such session, or not any more."""


class Session:
    """A scan that was sent.

    Attributes:
      id: 128 random bits, in hexadecimal; it never becomes part of a path.
      folder: where its files are, and nothing else.
      scan: ``data.scans.Scan``.
      bytes: of its files.
      created, used: seconds since 1970.
      seconds: that it is kept after its last use.
      key: under which a client finds it without the id, or None.
    """

    def __init__(self, folder: Path, scan: Scan, *, seconds: float, now: float, key=None):
        self.id, self.folder, self.scan = secrets.token_hex(16), folder, scan
        self.bytes = sum(path.stat().st_size for path in folder.iterdir())
        self.created = self.used = now
        self.seconds, self.key = seconds, key
        self.users, self.dropped = 0, False

    def info(self) -> dict:
        """What MONAI Label tells of a session, without any path."""
        return {
            "name": self.id,
            "path": "",
            "image": "dicom" if self.scan.stack else self.scan.images[0].name,
            "meta": {"bytes": self.bytes},
            "create_ts": int(self.created),
            "last_access_ts": int(self.used),
            "expiry": int(self.seconds),
        }


class Bounds(NamedTuple):
    """How many sessions there may be, their bytes together, and seconds after their last use."""

    count: int
    bytes: int
    seconds: float


class Sessions:
    """The sessions of a server. Where room is needed, those go that were not used for longest."""

    def __init__(self, bounds: Bounds, *, clock=time.time):
        self._bounds, self._clock = bounds, clock
        self._found: dict[str, Session] = {}

    def __len__(self):
        return len(self._found)

    def add(self, folder: Path, scan: Scan, *, seconds: float | None = None, key=None) -> Session:
        """Keeps a scan, in place of one of the same key.

        Args:
          folder: its files; from here on they belong to the session.
          scan: ``data.scans.Scan``.
          seconds: to keep it after its last use, if fewer than usual.
          key: for ``find``, or None.

        Raises:
          Full: all others are in use.
          TooLarge: it exceeds the bounds itself.
        """
        self.sweep()
        most = self._bounds.seconds
        seconds = min(seconds or most, most)
        kept = Session(folder, scan, seconds=seconds, now=self._clock(), key=key)
        if kept.bytes > self._bounds.bytes:
            raise TooLarge("the scan exceeds all that is kept; send it with each request")
        before = self._of(key) if key else None
        stay = [one for one in self._found.values() if one.users and one is not before]
        if not self._has_room(kept.bytes, stay):  # whatever goes
            raise Full
        if before:
            self.drop(before.id)
        for old in sorted(self._found.values(), key=lambda one: one.used):
            if self._has_room(kept.bytes, self._found.values()):
                break
            if not old.users:
                self.drop(old.id)
        self._found[kept.id] = kept
        return kept

    def _has_room(self, more: int, beside) -> bool:
        total = sum(one.bytes for one in beside)
        return len(beside) < self._bounds.count and total + more <= self._bounds.bytes

    def get(self, id_: str, *, touch: bool = False) -> Session:
        """The session of an id; with ``touch`` that counts as a use.

        Raises:
          Unknown: there is none.
        """
        self.sweep()
        if id_ not in self._found:
            raise Unknown("no such session, or it has expired; send the scan again")
        session = self._found[id_]
        if touch:
            session.used = self._clock()
        return session

    def find(self, key) -> Session:
        """The session of a key.

        Raises:
          Unknown: there is none.
        """
        self.sweep()
        session = self._of(key)
        if session is None:
            raise Unknown(
                "no image of that name from this client, or it has expired; load it again"
            )
        return session

    def _of(self, key) -> Session | None:
        return next((one for one in self._found.values() if one.key == key), None)

    @contextlib.contextmanager
    def use(self, session: Session):
        """Its files stay until the end of this, whatever becomes of the session."""
        session.users += 1
        try:
            yield session
        finally:
            session.users -= 1
            session.used = self._clock()
            self._clear(session)

    def drop(self, id_: str) -> None:
        """Forgets a session and removes its files, once nobody uses them."""
        session = self._found.pop(id_, None)
        if session:
            session.dropped = True
            self._clear(session)

    def sweep(self) -> None:
        """Drops what has expired."""
        now = self._clock()
        for one in list(self._found.values()):
            if not one.users and now > one.used + one.seconds:
                self.drop(one.id)

    @staticmethod
    def _clear(session: Session) -> None:
        if session.dropped and not session.users:
            shutil.rmtree(session.folder, ignore_errors=True)
