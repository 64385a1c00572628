"""What is being done: logged where it takes long, and named where memory runs out."""

import contextlib
import logging
import re
import sys
import threading
import time

PATIENCE = 5.0  # seconds that nothing is logged
_CALM = 10  # seconds between two lines of ``Progress``
_DOING = "while "
_ASKED = re.compile(r"(?:allocat\w*|request for|Used)\D{0,20}?([\d.]+) ?(bytes|[KMGTPE]i?B?\b)")
_log = logging.getLogger("mijax")


@contextlib.contextmanager
def doing(what, *, logged=True, patience=None):
    """Names what is done inside, in the log and in any error that comes of it.

    Args:
      what: such as "restoring checkpoint 400".
      logged: whether there is a line when that has taken ``patience`` seconds, and another at its
        end, of how long it took.
      patience: in seconds, ``PATIENCE`` by default.
    """
    over, told, began = threading.Event(), threading.Event(), time.monotonic()

    def wait():
        if not over.wait(PATIENCE if patience is None else patience):
            told.set()
            _log.info("%s …", what)

    thread = threading.Thread(target=wait, daemon=True)
    if logged:
        thread.start()
    try:
        yield
    except BaseException as error:
        error.add_note(f"{_DOING}{what}")
        raise
    finally:
        over.set()
    if logged:
        thread.join()
    if told.is_set():
        _log.info("%s took %.0f s", what, time.monotonic() - began)


def logged(items, total, what):
    """The same items; logs every ``PATIENCE`` seconds how many of the ``total`` are done."""
    over, done = threading.Event(), 0

    def watch():
        told = None
        while not over.wait(PATIENCE):
            line = f"{what} {done}/{total}"
            if line != told:
                _log.info(line)
            told = line

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        for item in items:
            yield item
            done += 1
    finally:
        over.set()
        thread.join()


class Progress:
    """How far something that takes long is: a bar on a terminal, else a line now and then."""

    def __init__(self, what, total):
        """Of ``total`` volumes, with each of which ``what`` is done: "preparing msd"."""
        self._what, self._total, self._last, self._bar = what, total, None, None

    def __call__(self, index):
        """The volume of this index is begun."""
        now = time.monotonic()
        if sys.stderr.isatty():
            self._bar = self._bar or terminal_bar(self._what, self._total)
            self._bar.update(self._bar.task_ids[0], completed=index)
        elif self._last is None:
            _log.info("%s: %d volumes", self._what, self._total)
            self._last = now
        elif now - self._last >= _CALM:
            _log.info("%s: %d of %d", self._what, index + 1, self._total)
            self._last = now

    def end(self):
        """Leaves the bar, if there is one."""
        if self._bar:
            self._bar.stop()
        self._bar = None


def terminal_bar(what, total, *, done=0):
    """A bar on standard error, running: ``rich.progress.Progress`` with one task.

    Its task has a field ``shown``, a text behind the bar. Lines of the log go above it.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        BarColumn(bar_width=20),
        TimeRemainingColumn(),
        TextColumn("{task.fields[shown]}"),
        console=Console(stderr=True),
    )
    bar.add_task(what, total=total, completed=done, shown="")
    bar.start()
    return bar


def out_of_memory(error):
    """The line about an error, if it says that memory ran out, or else None.

    It tells what was being done, how much was asked for where the error says it, and what to
    lower.
    """
    text = str(error)
    if "RESOURCE_EXHAUSTED" in text or "CUDA_ERROR_OUT_OF_MEMORY" in text:
        whose = "the device"
        advice = (
            "lower config.labelled_batch and unlabelled_batch (predict_batch where it predicts), "
            "config.data.patches.size or config.model.widths, or set config.precision=bfloat16 or "
            "config.stream=True"
        )
    elif isinstance(error, MemoryError):
        whose = "this machine"
        advice = "lower config.data.patches.size, use fewer or smaller volumes, or a larger machine"
    else:
        return None
    notes = [n for n in getattr(error, "__notes__", ()) if n.startswith(_DOING)]
    asked = _ASKED.search(text)
    return (
        f"out of memory of {whose}{' ' + notes[0] if notes else ''}"
        f"{f' ({_amount(*asked.groups())} asked for)' if asked else ''}; {advice}"
    )


def _amount(number, unit):
    return f"{float(number) / 2**30:.2f} GiB" if unit == "bytes" else f"{number} {unit}"
