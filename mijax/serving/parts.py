"""What the addresses of a server have in common."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from mijax.serving.model import Model, Options
from mijax.serving.reader import Reader
from mijax.serving.receive import Receiver
from mijax.serving.sessions import Sessions
from mijax.serving.turns import Queue


class Parts(NamedTuple):
    """The parts of one server.

    Attributes:
      model: what predicts.
      root: the folder of all that comes from outside.
      sessions: the scans that are kept.
      queue: turns to predict.
      reader: the process that reads images.
      receiver: of uploads.
      clean: of ``errors.hide``.
    """

    model: Model
    root: Path
    sessions: Sessions
    queue: Queue
    reader: Reader
    receiver: Receiver
    clean: Callable[[str], str]


def key_of(request, options: Options, image: str) -> tuple[str, str, str]:
    """Of an image that is known by a name, which several clients may give to images of theirs."""
    return (request.client.host, options.client, image)
