"""Hostile inputs: each gives one line, takes little memory, leaves nothing behind."""

import contextlib
import os
import resource
import time
import tracemalloc
from pathlib import Path

import pytest
import SimpleITK as sitk
from damage import MEMORY

from mijax.errors import UserError

sitk.ProcessObject.GlobalWarningDisplayOff()


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Of the whole process, with what C++ takes."""
    with contextlib.suppress(OSError):  # forgets the peak of what came before
        Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def tree(folder) -> set[str]:
    """Everything under a folder but its cache, without following links."""
    found = set()
    for path, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b"cache"]
        found |= {os.path.join(path, name) for name in folders + files}
    return found


@pytest.fixture
def refused(tmp_path):
    """(call, words of the message) -> message, when all bounds were kept."""

    def check(call, *words: str) -> str:
        before, start = tree(tmp_path), time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(UserError) as caught:
                call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        message = str(caught.value)
        assert len(message.splitlines()) == 1 and message.isprintable()
        assert len(message) < 1000
        for word in words:
            assert word in message
        assert peak < MEMORY
        assert time.process_time() - start < 5
        assert tree(tmp_path) == before
        return message

    return check
