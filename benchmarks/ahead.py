"""What programs cost on a GPU or TPU that is not there: python -m benchmarks.ahead [--chip CHIP]

Compiles the train step or the prediction of the paper's ACDC experiment, or of another --config,
for a chip, without one, and counts in what comes out. A row a program, as each is done, of one
device and one step; the lists of --top, temporary MB and CPU s, of the compiler, are of all steps
of the program:

- kernels: GPU launches or TPU instructions, those of loops as often as they run ("+": a loop runs
  an unknown number of times and counts once); GB read and written in the main memory.
- roof ms: Σ over kernels of the longer of memory ms (bytes / bandwidth) and FLOP ms (FLOPs / peak).
  launch ms, 3 µs a kernel of a GPU, is not in it.
- Mcycles and cycles ms: of a TPU, as its compiler estimates; collectives are not in it.

Needs mijax[ahead], and minutes of a core for each program.
"""

import argparse
import functools
import importlib.util
import itertools
import json
import os
import subprocess
import sys
from multiprocessing.pool import ThreadPool
from pathlib import Path

import jax

from benchmarks.chips import CHIPS, LAUNCH_MS
from benchmarks.hlo import Program
from benchmarks.programs import SETS, Job, lower
from mijax import methods
from mijax.errors import UserError

TOLERANCE = 0.03  # of a budget
_ROOT = Path(__file__).parent.parent
_COLUMNS = (  # title, width, format; in JSON with _ for spaces
    ("config", 13, ""), ("chip", 4, ""), ("devices", 7, ""), ("method", 18, ""),
    ("precision", 9, ""), ("steps", 5, ""),
    ("kernels", 8, ",.0f"), ("GB read", 7, ".2f"), ("GB written", 10, ".2f"),
    ("temporary MB", 12, ",.0f"), ("roof ms", 8, ".3f"), ("memory ms", 9, ".3f"),
    ("FLOP ms", 8, ".3f"), ("launch ms", 9, ".2f"), ("Mcycles", 8, ".2f"), ("cycles ms", 9, ".2f"),
    ("CPU s", 6, ".0f"),
)  # fmt: skip


_MAIN = [(1, "supervised"), (1, "local_mi"), (1, "mean_teacher"), (1, "mixed_mi"), (4, "local_mi")]
BUDGETED = [Job("h100", devices, method, "bfloat16", 1) for devices, method in _MAIN]


def main():
    options = _options()
    if options.worker:
        print(json.dumps(measure(**json.loads(options.worker))))
        return
    jobs, allowed = BUDGETED if options.write_budget else _jobs(options), []
    if options.check:
        kept = json.loads(options.check.read_text())
        allowed = kept["programs"]
        jobs = list(map(Job.of, allowed))
        if kept["jax"] != jax.__version__:
            print(f"{options.check} is of jax {kept['jax']}, this is {jax.__version__}")
    for chip in {job.chip for job in jobs}:
        plugin = "libtpu" if CHIPS[chip].clock else "jax_cuda13_plugin"
        if not importlib.util.find_spec(plugin):
            sys.exit(f"{chip} needs {plugin}, which is not installed: pip install -e '.[ahead]'")
    print("  ".join(f"{title:>{width}}" for title, width, _ in _COLUMNS), " collectives")
    rows = []
    with ThreadPool(options.jobs) as pool:
        for row in pool.imap_unordered(functools.partial(_run, options), jobs):
            print(_lines(row), flush=True)
            rows.append(row)
            if options.json:
                options.json.write_text(json.dumps(rows, indent=1) + "\n")
    failed = any("error" in row for row in rows)
    if options.write_budget and not failed:
        options.write_budget.write_text(budget(rows))
    sys.exit("\n".join(overruns(rows, allowed)) or int(failed))


def _options():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, known = parser.add_argument, (*methods.names(), "predict")
    add("--chip", choices=CHIPS, default="h100", help=f"{', '.join(CHIPS)} (h100)")
    add("--devices", type=int, nargs="+", default=[1])
    add("--method", nargs="+", choices=(*known, "all"), default=["local_mi"], metavar="METHOD",
        help=f"all, or some of {', '.join(known)} (local_mi)")  # fmt: skip
    add("--config", choices=SETS, default="acdc", help=f"{', '.join(SETS)} (acdc)")
    add("--precision", nargs="+", choices=("float32", "bfloat16"), default=["bfloat16"])
    add("--steps", type=int, nargs="+", default=[1], help="of a dispatch (1)")
    add("--jobs", type=int, default=1, help="programs to compile at once (1)")
    add("--json", type=Path, metavar="FILE", help="for all rows")
    add("--top", type=int, default=0, metavar="N", help="list the N largest kernels and parts")
    add("--save", type=Path, metavar="FOLDER", help="for the HLO texts")
    add("--check", type=Path, metavar="FILE", help="fail where the budget in it is passed")
    add("--write-budget", type=Path, metavar="FILE", help="write the budget that is just kept")
    add("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.check and not options.check.is_file():
        parser.error(f"there is no {options.check}; --write-budget makes it")
    return options


def _jobs(options):
    names = [n for m in options.method for n in (methods.names() if m == "all" else [m])]
    jobs = itertools.starmap(
        Job,
        itertools.product(
            [options.chip],
            options.devices,
            names,
            options.precision,
            options.steps,
            [options.config],
        ),
    )
    return list(dict.fromkeys(j._replace(steps=1) if j.method == "predict" else j for j in jobs))


def _run(options, job):
    """The row of a job, of a process of its own: a compiler may end it, and keeps its memory."""
    order = {"job": job, "top": options.top, "save": options.save and str(options.save.resolve())}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.ahead", "--worker", json.dumps(order)],
        cwd=_ROOT, env=CHIPS[job.chip].environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = (done.stderr.strip().splitlines() or ["nothing said"])[-1]
        return {**job._asdict(), "error": f"ended with status {done.returncode}: {said}"}


def measure(job, *, top=0, save=None):
    """The row of a job, or what went wrong, as a dict."""
    job = Job(*job)
    row = job._asdict() | {"jax": jax.__version__}
    try:
        lowered, started = lower(job), sum(os.times()[:4])
        compiled = lowered.compile()
        row["CPU_s"] = sum(os.times()[:4]) - started
    except Exception as error:  # one program is no reason not to look at the others
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        return row | {"error": kind + str(error).partition("\n")[0]}
    row["temporary_MB"] = compiled.memory_analysis().temp_size_in_bytes / 2**20
    text = compiled.as_text()
    if save:
        Path(save).mkdir(parents=True, exist_ok=True)
        Path(save, f"{'-'.join(map(str, job))}.txt").write_text(text)
    program = Program(text)
    row |= figures(program, CHIPS[job.chip], job.steps)
    return row | {"list": listing(program.kernels, top)} if top else row


def figures(program, chip, steps):
    """What a row says of a ``Program`` for a ``Chip``, of one of its steps, as a dict."""

    def total(each):
        return sum(kernel.times * each(kernel) for kernel in program.kernels) / steps

    def memory(kernel):
        return 1e3 * kernel.moved / chip.bandwidth

    def compute(kernel):
        return sum(1e3 * n / chip.peaks[kind] for kind, n in kernel.flops.items())

    found = {
        "kernels": total(lambda k: 1),
        "unknown_loops": program.unknown_loops,
        "GB_read": total(lambda k: k.read) / 1e9,
        "GB_written": total(lambda k: k.written) / 1e9,
        "GFLOP": total(lambda k: k.flops.total()) / 1e9,
        "roof_ms": total(lambda k: max(memory(k), compute(k))),
        "memory_ms": total(memory),
        "FLOP_ms": total(compute),
        "collectives": {},
    }
    for kernel in program.kernels:
        for kind, size in kernel.collectives:
            entry = found["collectives"].setdefault(kind, {"count": 0, "MB": 0})
            entry["count"] += kernel.times / steps
            entry["MB"] += kernel.times * size / 1e6 / steps
    if not chip.clock:
        return found | {"launch_ms": LAUNCH_MS * found["kernels"]}
    cycles = total(lambda k: k.cycles)
    return found | {"Mcycles": cycles / 1e6, "cycles_ms": 1e3 * cycles / chip.clock}


def listing(kernels, top):
    """Lines of the largest kernels and of the largest parts: by cycles, if there are any, or MB."""
    unit, name = ("Mcycles", "cycles") if any(k.cycles for k in kernels) else ("MB", "moved")

    def size(group):
        return sum(kernel.times * getattr(kernel, name) for kernel in group) / 1e6

    def lines(title, groups, about):
        yield f"{title}: times, {unit}"
        for group in sorted(groups, key=size, reverse=True)[:top]:
            times = sum(kernel.times for kernel in group)
            yield f"{times:7,}  {size(group):10,.2f}  {about(group[0])}"

    parts = {}
    for kernel in kernels:
        parts.setdefault(kernel.part, []).append(kernel)
    alone = lines(
        "kernels", ([k] for k in kernels), lambda k: f"{k.kind}  {k.shape[:50]}  {k.source[-80:]}"
    )
    return [*alone, *lines("parts", parts.values(), lambda k: k.part)]


def budget(rows):
    """Text of the budget that those rows just keep."""
    programs = [Job.of(row)._asdict() | _spent(row) for row in sorted(rows, key=Job.of)]
    return json.dumps({"jax": jax.__version__, "programs": programs}, indent=1) + "\n"


def overruns(rows, allowed):
    """A line for everything that has grown by more than ``TOLERANCE``."""
    limits = {Job.of(row): row for row in allowed}
    return [
        f"{Job.of(row)}: {found:,g} {name}, where {limits[Job.of(row)][name]:,g} are allowed"
        for row in rows
        if "error" not in row and Job.of(row) in limits
        for name, found in _spent(row).items()
        if found > limits[Job.of(row)][name] * (1 + TOLERANCE)
    ]


def _spent(row):
    return {
        "kernels": row["kernels"],
        "GB": round(row["GB_read"] + row["GB_written"], 3),
        "collectives": sum(entry["count"] for entry in row["collectives"].values()),
    }


def _lines(row):
    """A row as text, with its list."""
    if "error" in row:
        return f"{Job.of(row)}: {row['error']}"
    cells = []
    for title, width, form in _COLUMNS:
        value = row.get(title.replace(" ", "_"))
        text = "" if value is None else format(value, form)
        cells.append(f"{text}+" if title == "kernels" and row["unknown_loops"] else text)
        cells[-1] = cells[-1].rjust(width)
    found = row["collectives"].items()
    cells.append(", ".join(f"{e['count']:g} {kind} {e['MB']:,.1f} MB" for kind, e in found))
    return "\n".join(["  ".join(cells), *row.get("list", ())])


if __name__ == "__main__":
    main()
