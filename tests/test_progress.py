"""Long waits are told, short ones are not; what memory ran out for is one line."""

import time

import numpy as np
import pytest

from mijax.progress import doing, out_of_memory


def test_a_short_wait_is_not_told(told):
    with doing("sorting"):
        pass
    assert told == []


def test_a_long_wait_is_told_while_it_lasts_and_with_how_long_it_took(told):
    deadline = time.monotonic() + 10
    with doing("compiling", patience=0.01):
        while not told and time.monotonic() < deadline:
            time.sleep(0.005)
        assert told == ["compiling …"]
    assert told == ["compiling …", "compiling took 0 s"]


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("RESOURCE_EXHAUSTED: trying to allocate 17179869184 bytes.", "16.00 GiB"),
        ("RESOURCE_EXHAUSTED: Out of memory allocating 4294967296 bytes.", "4.00 GiB"),
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50TiB.", "1.50 TiB"),
        ("RESOURCE_EXHAUSTED: Failed to allocate request for 2.0GiB (2147483648B)", "2.0 GiB"),
        ("RESOURCE_EXHAUSTED: Ran out of memory in hbm. Used 17.52G of 15.48G", "17.52 G"),
    ],
)  # fmt: skip
def test_out_of_memory_of_the_device(text, asked):
    with pytest.raises(RuntimeError) as caught, doing("training"), doing("compiling the step"):
        raise RuntimeError(text)
    line = out_of_memory(caught.value)
    assert line.startswith(
        f"out of memory of the device while compiling the step ({asked} asked for); lower config."
    )
    for remedy in ("labelled_batch", "data.patches.size", "precision=bfloat16", "stream=True"):
        assert remedy in line


def test_out_of_memory_of_the_machine():
    with pytest.raises(MemoryError) as caught, doing("cutting the training slices"):
        np.zeros(2**50, np.uint8)
    line = out_of_memory(caught.value)
    assert line.startswith(
        "out of memory of this machine while cutting the training slices (1.00 PiB asked for); "
    )
    assert out_of_memory(MemoryError()).startswith("out of memory of this machine; lower")


def test_any_other_error_is_none():
    assert out_of_memory(RuntimeError("INTERNAL: allocate 3 bytes")) is None
