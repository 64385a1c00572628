"""One prediction at a time, and a line of few behind it."""

import asyncio
import contextlib
import math

_AGAIN = 60  # seconds after which another server may be there
_FIRST = 5.0  # seconds that a prediction takes, as long as none was made


class Busy(Exception):
    """The line is full; ``seconds`` until it is worth to ask again."""

    def __init__(self, seconds: int):
        super().__init__(seconds)
        self.seconds = seconds


class Queue:
    """Turns, in the order in which they were asked for."""

    def __init__(self, most: int):
        """Lets ``most`` wait behind the one whose turn it is."""
        self._most, self._lock = most, asyncio.Lock()
        self._took = _FIRST
        self._over = False
        self.count = 0  # with the one whose turn it is

    def check(self) -> None:
        """Refuses where the line is full.

        Raises:
          Busy: it is.
        """
        if self._over or self.count > self._most:
            raise Busy(math.ceil(self._took * self.count))

    def end(self) -> None:
        """Refuses all but the one whose turn it is; may be called by the handler of a signal."""
        self._over = True

    @contextlib.asynccontextmanager
    async def turn(self):
        """Waits for a turn and has it inside.

        Raises:
          Busy: see ``check``.
        """
        self.check()
        self.count += 1
        try:
            async with self._lock:
                if self._over:
                    raise Busy(_AGAIN)
                began = asyncio.get_running_loop().time()
                yield
                self._took = asyncio.get_running_loop().time() - began
        finally:
            self.count -= 1
