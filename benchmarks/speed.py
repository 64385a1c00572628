"""Times mijax, beside PyTorch: python -m benchmarks.speed [--torch PYTHON]

Losses, warps and whole train steps, one process a framework, in turn, after a warm-up; prints a
table of medians. PyTorch may live in an environment of its own, whose interpreter --torch names.
Nothing else should run on the machine.
"""

import argparse
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.worker import Settings

PEAKS = ("product", "copy")  # what the machine can do: FLOP/s and bytes/s of the roof
CASES = (
    "mutual information",
    "KL consistency",
    "warp of probabilities",
    "augmentation",
    "step, supervised",
    "step, shared statistics",
    "step",
    "step, streamed",
)
ASKED = ("step, three seeds", "volumes, gradient", "volumes, prediction")  # or minutes on a CPU
# glibc gives large blocks back to the system and takes them again at every step, which makes
# either framework slower, and the times depend on the moment.
_ENVIRONMENT = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    "MALLOC_TOP_PAD_": "268435456",
    "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.2",  # of a GPU that several processes share
}
_RATES = {"GFLOP/s": "flops", "GB/s": "bytes"}
_ROOT = Path(__file__).parent.parent


class Side(NamedTuple):
    """One process to time."""

    name: str
    python: str
    module: str
    options: tuple[str, ...] = ()


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", metavar="PYTHON", help="interpreter that has PyTorch")
    known = (*CASES, *ASKED)
    parser.add_argument(
        "--case",
        action="append",
        choices=known,
        metavar="CASE",
        help=f"again for more: {', '.join(map(repr, known))} (all but the last three)",
    )
    parser.add_argument("--runs", type=int, default=7, help="of each case and side (7)")
    parser.add_argument("--size", type=int, default=224, help="of a slice (224)")
    parser.add_argument("--labelled", type=int, default=4, help="slices a step (4)")
    parser.add_argument("--unlabelled", type=int, default=10, help="slices a step (10)")
    parser.add_argument(
        "--widths", type=int, nargs="+", default=Settings().widths, help="of the U-Net"
    )
    parser.add_argument("--gpu", action="store_true", help="bfloat16, scan, AMP and compile too")
    parser.add_argument(
        "--steps-per-dispatch", type=int, default=50, help="with --gpu (50); 1 to rehearse on a CPU"
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile too, on a CPU")
    parser.add_argument("--start", action="store_true", help="time to the first step as well")
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    settings = Settings(
        size=options.size,
        labelled=options.labelled,
        unlabelled=options.unlabelled,
        widths=tuple(options.widths),
    )
    cases = options.case or CASES
    figures = {"machine": _machine(), "settings": settings._asdict(), "cases": {}}

    def write():
        if options.output:
            options.output.write_text(json.dumps(figures, indent=1) + "\n")

    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped by SIGTERM"))
    try:
        compared = compare(
            sides(options), settings, (*PEAKS, *cases), runs=options.runs, at_once=options.gpu
        )
        for case, found in compared:
            figures["cases"][case] = found
            write()
            print(f"{case}: done", file=sys.stderr)
    finally:  # what is measured is kept, whatever becomes of the rest
        if figures["cases"].keys() >= set(PEAKS):
            print(table(figures["cases"], settings))
    if options.start:
        figures["start"] = start_up(settings)
        print(
            "start to first step: {cold:.1f} s cold, {warm:.1f} s warm".format(**figures["start"])
        )
    write()


def sides(options):
    """The processes to compare; the first is the one that the others are divided by."""
    ours, torch = "benchmarks.ours", "benchmarks.pytorch"
    scan = ("--steps-per-dispatch", str(options.steps_per_dispatch))
    half, last = "--precision=bfloat16", "--channels-last"
    if options.gpu:  # float32 is TF32 on both sides, in products and convolutions
        found = [
            ("mijax bfloat16", ours, (*scan, half)),
            ("mijax float32", ours, scan),
            ("mijax bfloat16, a step a dispatch", ours, (half,)),
            ("PyTorch compile, channels last, AMP", torch, (*scan, last, "--compile", "--amp")),
            ("PyTorch channels last, AMP", torch, (*scan, last, "--amp")),
            ("PyTorch float32", torch, scan),
        ]
    else:
        found = [
            ("mijax", ours, ()),
            ("mijax, one device", ours, ("--one-device",)),
            ("PyTorch", torch, ()),
            ("PyTorch channels last", torch, (last,)),
        ]
        if options.compile:
            found.append(("PyTorch compile, channels last", torch, (last, "--compile")))
    interpreter = {ours: sys.executable, torch: options.torch}
    return [
        Side(name, interpreter[module], module, flags)
        for name, module, flags in found
        if interpreter[module]
    ]


def compare(sides, settings, cases, *, runs, at_once=False):
    """Times every case on every side, in turn.

    With ``at_once`` all sides compile a case at the same time, which then says nothing of
    "first_seconds", but minutes on a GPU are few.

    Yields:
      Each case with {side: {"value", "first_seconds", "units", "flops", "bytes", "seconds",
      "peak_bytes"} or {"error"}}; ``seconds`` is a list, of one unit each.

    Raises:
      SystemExit: if two sides do not compute the same value.
    """
    with contextlib.ExitStack() as stack:
        workers = {side.name: stack.enter_context(_worker(side, settings)) for side in sides}
        for case in cases:
            found = {}
            for group in [workers] if at_once else [{n: w} for n, w in workers.items()]:
                for worker in group.values():
                    _tell(worker, {"case": case})
                found |= {name: _answer(worker) for name, worker in group.items()}
            _check(case, found)
            for _ in range(runs):
                for name, worker in workers.items():
                    if "error" not in found[name]:
                        _tell(worker, {"runs": 1})
                        answer = _answer(worker)
                        if "error" in answer:
                            found[name] = answer
                            continue
                        seconds = answer["seconds"][0] / found[name]["units"]
                        found[name].setdefault("seconds", []).append(seconds)
                        found[name]["peak_bytes"] = answer["peak_bytes"]
            yield case, found


def start_up(settings):
    """Seconds from the start of a process to the end of its first train step, cold and warm."""
    side = Side("mijax", sys.executable, "benchmarks.ours")
    with tempfile.TemporaryDirectory() as cache:

        def once():
            started = time.perf_counter()
            with _worker(side, settings, BENCHMARK_CACHE=cache) as worker:
                _tell(worker, {"case": "step"})
                _answer(worker)
                return time.perf_counter() - started

        return {"cold": once(), "warm": once()}


def table(cases, settings):
    """The figures as text: medians, and how many times as long as the first side.

    "of roof" is the time that the machine's own product and copy would take for the FLOPs or for
    the bytes, whichever is longer, over the time that it took.
    """
    rows = [
        ("case", "side", "median ms", "min", "ratio", "slices/s", *_RATES, "of roof", "peak GiB")
    ]
    roof = [_rate(next(iter(cases[c].values())), key) for c, key in zip(PEAKS, _RATES, strict=True)]
    slices = settings.labelled + 2 * settings.unlabelled
    for case, found in cases.items():
        base = None
        for side, figures in found.items():
            if "error" in figures:
                if case not in PEAKS:
                    rows.append((case, side, figures["error"], *[""] * 7))
                continue
            median = statistics.median(figures["seconds"])
            base = base or median
            count = settings.labelled if case == "step, supervised" else slices
            rates = [_rate(figures, key) for key in _RATES]
            share = max((r / top for r, top in zip(rates, roof, strict=True)), default=0)
            rows.append(
                (
                    case,
                    side,
                    f"{1e3 * median:.1f}",
                    f"{1e3 * min(figures['seconds']):.1f}",
                    f"{median / base:.2f}",
                    f"{count / median:.0f}" if case.startswith("step") else "",
                    *(f"{r / 1e9:.0f}" if r else "" for r in rates),
                    f"{share:.0%}" if share else "",
                    f"{figures['peak_bytes'] / 2**30:.2f}",
                )
            )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _rate(figures, key):
    """FLOPs or bytes a second, or 0 where they are not known."""
    amount = figures.get(_RATES[key])
    return amount / figures["units"] / statistics.median(figures["seconds"]) if amount else 0


@contextlib.contextmanager
def _worker(side, settings, **environment):
    command = [side.python, "-m", side.module, json.dumps(settings._asdict()), *side.options]
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=os.environ | _ENVIRONMENT | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(BrokenPipeError):  # it has ended
            process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()


def _tell(worker, order):
    with contextlib.suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(order) + "\n")
        worker.stdin.flush()


def _answer(worker):
    answer = worker.stdout.readline()
    if not answer:  # the others go on without it
        return {"error": f"ended: {' '.join(worker.args[2:])}; what it said stands above"}
    return json.loads(answer)


def _check(case, found):
    """Both sides compute the same, where it is not random: else the times mean nothing."""
    values = {n: f["value"] for n, f in found.items() if f.get("value") is not None}
    if case.startswith("step") or not values:
        return
    low, high = min(values.values()), max(values.values())
    if high - low > 1e-3 * abs(high):
        raise SystemExit(f"{case}: the sides do not compute the same: {values}")


def _machine():
    model = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    return {
        "processor": model[0].partition(": ")[2] if model else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
