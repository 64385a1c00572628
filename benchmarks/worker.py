"""What a process that is timed does: one framework, cases by name, orders by standard input.

Each order is a line of JSON and gets one as answer:

    {"case": NAME}  makes the case, runs it once, then twice more to warm up; where that fails,
                    {"error": WHY}, and the next order may be for another case
    {"runs": N}     runs it N times; {"seconds": [...], "peak_bytes": …}

Imports neither framework, so that both sides work on the very same inputs.
"""

import contextlib
import json
import re
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Settings(NamedTuple):
    """What all processes of a comparison share.

    Attributes:
      size: height and width of a slice that the network sees; stored ones are 8/7 of it.
      labelled, unlabelled: slices a step.
      widths: of the U-Net.
      classes: k.
      rotation: degrees, of the augmentation; T is that of the paper.
      shear, scale: of T.
      radius: of the mutual information.
    """

    size: int = 224
    labelled: int = 4
    unlabelled: int = 10
    widths: tuple = (16, 32, 64, 128, 256)
    classes: int = 4
    rotation: float = 20.0
    shear: float = 5.0
    scale: tuple = (0.8, 1.25)
    radius: int = 1


class Case(NamedTuple):
    """Something to time.

    Attributes:
      run: one run, done on return; gives a number, that of the other side to rounding unless
        it is random.
      units: steps of training in a run.
      flops: of a run, or None.
      bytes: that a run moves, or None.
    """

    run: Callable
    units: int = 1
    flops: float | None = None
    bytes: float | None = None


def probability_maps(settings):
    """Two (b, h, w, k) float32 maps that agree in part, and (b, 3, 3) rotations by up to 30°."""
    draw = np.random.default_rng(0)
    shape = (settings.unlabelled, settings.size, settings.size, settings.classes)
    logits = draw.normal(size=(2, *shape)).astype(np.float32)
    logits[1] += 2 * logits[0]
    p, q = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    angles = np.radians(draw.uniform(-30, 30, settings.unlabelled))
    matrix = np.tile(np.eye(3, dtype=np.float32), (settings.unlabelled, 1, 1))
    matrix[:, 0, 0] = matrix[:, 1, 1] = np.cos(angles)
    matrix[:, 0, 1], matrix[:, 1, 0] = -np.sin(angles), np.sin(angles)
    return p, q, matrix


def training_slices(settings):
    """Labelled slices (64, s, s, 1) and labels (64, s, s), unlabelled slices (160, s, s, 1)."""
    draw = np.random.default_rng(0)
    size = settings.size * 8 // 7
    rows, columns = np.mgrid[:size, :size] / size - 0.5

    def discs(count):
        centre = draw.uniform(-0.2, 0.2, (2, count, 1, 1))
        distance = np.hypot(rows - centre[0], columns - centre[1])
        label = np.clip(settings.classes - 10 * distance, 0, settings.classes - 1).astype(np.int32)
        image = label / settings.classes + draw.normal(scale=0.1, size=label.shape)
        return image[..., None].astype(np.float32), label

    image, label = discs(64)
    return image, label, discs(160)[0]


def volumes(settings):
    """Two volumes (2, d, s, s, 1) with labels (2, d, s, s); d is a quarter, in strides."""
    draw, size, stride = np.random.default_rng(0), settings.size, 2 ** (len(settings.widths) - 1)
    depth = max(size // 4 // stride, 1) * stride
    label = draw.integers(settings.classes, size=(2, depth, size, size), dtype=np.int32)
    noise = draw.normal(scale=0.1, size=label.shape)
    return (label / settings.classes + noise)[..., None].astype(np.float32), label


def serve(make_case, *, device_memory):
    """Answers orders until they end.

    Args:
      make_case: name -> ``Case``; raises where there is none.
      device_memory: () -> peak bytes on the device, of the process so far, or None where that is
        the host's, of a case.
    """
    sys.stdout.reconfigure(line_buffering=True)
    case = None
    for line in sys.stdin:
        order = json.loads(line)
        if "case" in order:
            case = None  # its memory first
            _forget_peak()
            try:
                case, answer = _warm(make_case, order["case"])
            except Exception as error:  # too much memory, or a package that is not there
                if not isinstance(error, ValueError):
                    traceback.print_exc()
                answer = {"error": (str(error) or type(error).__name__).partition("\n")[0]}
        else:
            answer = {"seconds": [_time(case.run) for _ in range(order["runs"])]}
            answer["peak_bytes"] = device_memory() or _host_peak()
        print(json.dumps(answer))


def _forget_peak():
    """Sets the peak of the host to what is in memory now, where the system can."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _host_peak():
    """Bytes of the host since ``_forget_peak``, or where there is none of the whole process."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())
        if found:
            return int(found[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _warm(make_case, name):
    started = time.perf_counter()
    case = make_case(name)
    value = case.run()
    first = time.perf_counter() - started
    case.run()
    case.run()
    answer = {"value": value, "first_seconds": first, **case._asdict()}
    del answer["run"]
    return case, answer


def _time(run):
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
