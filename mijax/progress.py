"""What a command is doing: told where it takes long, and named where memory runs out."""

import contextlib
import re
import threading
import time

PATIENCE = 5.0  # seconds that nothing is told
_DOING = "while "
_ASKED = re.compile(r"(?:allocat\w*|request for|Used)\D{0,20}?([\d.]+) ?(bytes|[KMGTPE]i?B?\b)")


@contextlib.contextmanager
def doing(what, *, tell=None, patience=None):
    """Names what is done inside, to the user and in any error that comes of it.

    Args:
      what: such as "restoring checkpoint 400".
      tell: called with a line when that has taken ``patience`` seconds, and with another at its
        end, of how long it took. Without it nothing is told.
      patience: in seconds, ``PATIENCE`` by default.
    """
    over, told, began = threading.Event(), threading.Event(), time.monotonic()

    def wait():
        if not over.wait(PATIENCE if patience is None else patience):
            told.set()
            tell(f"{what} …")

    thread = threading.Thread(target=wait, daemon=True)
    if tell:
        thread.start()
    try:
        yield
    except BaseException as error:
        error.add_note(f"{_DOING}{what}")
        raise
    finally:
        over.set()
    if tell:
        thread.join()
    if told.is_set():
        tell(f"{what} took {time.monotonic() - began:.0f} s")


def counted(items, total, tell, what):
    """The same items; tells every ``PATIENCE`` seconds how many of the ``total`` are done."""
    over, done = threading.Event(), 0

    def watch():
        told = None
        while not over.wait(PATIENCE):
            line = f"{what} {done}/{total}"
            if line != told:
                tell(line)
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
            "config.data.size or config.model.widths, or set config.precision=bfloat16 or "
            "config.stream=True"
        )
    elif isinstance(error, MemoryError):
        whose = "this machine"
        advice = "lower config.data.size, use fewer or smaller volumes, or a larger machine"
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
