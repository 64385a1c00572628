"""How far something that takes long is, on standard error."""

import sys
import time

_CALM = 10  # seconds between two lines


class Progress:
    """On a terminal one line, written over; else a line at the start and one now and then.

        preparing msd: 12 of 40

    Args:
      doing: what is done, "preparing msd".
      total: how many volumes there are.
    """

    def __init__(self, doing: str, total: int):
        self._doing, self._total, self._last, self._open = doing, total, None, False

    def __call__(self, index: int) -> None:
        """The volume of this index is begun."""
        text, now = f"{self._doing}: {index + 1} of {self._total}", time.monotonic()
        if sys.stderr.isatty():
            print(f"\r{text}", end="", file=sys.stderr, flush=True)
            self._open = True
        elif self._last is None:
            print(f"{self._doing}: {self._total} volumes", file=sys.stderr, flush=True)
            self._last = now
        elif now - self._last >= _CALM:
            print(text, file=sys.stderr, flush=True)
            self._last = now

    def end(self) -> None:
        """Leaves the line that is written over, if there is one."""
        if self._open:
            print(file=sys.stderr)
        self._open = False
