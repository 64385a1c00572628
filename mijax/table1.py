r"""Runs Table 1 of the paper: python -m mijax.table1 --config configs/phantom.py --output FOLDER

Eight rows, each with --seeds seeds, one after another, then the report FOLDER/report/index.html.
--rows names others: any method is one, and METHOD:PRETRAINING is a method that begins with the
weights of another, as in --rows full,partial,global_local_mi,supervised:boundary_iic. There is no
row full where it would have no more labels than partial.
The same command goes on after a kill; what has scores is not run again. Flags --config.KEY=VALUE
hold for all rows. --list shows the jobs; --index N runs one of them, which makes a Slurm array:

sbatch --array=0-23 --gpus=1 --requeue --wrap 'python -m mijax.table1 \
    --config configs/acdc.py --output FOLDER --index $SLURM_ARRAY_TASK_ID'

whose last job to finish writes the report. A pre-training has to be done before the array of the
rows that begin with it: METHOD alone in --rows makes one. On several GPUs of one machine give each
such command one of them (CUDA_VISIBLE_DEVICES): the images of a forward pass must divide over all
that it sees, which those of small batches do not.
"""

import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from mijax import commands, methods
from mijax import main as training
from mijax.errors import Preempted, UserError
from mijax.files import locked

_DECLARED = sorted(
    ((name, key, row) for name in methods.names() for key, row in methods.rows(name).items()),
    key=lambda found: found[2].place,
)
# Folder: (method, values of the configuration), of the rows of Table 1 and of the others.
ROWS = {key: (name, row.values) for name, key, row in _DECLARED if row.table1}
OTHER_ROWS = {key: (name, row.values) for name, key, row in _DECLARED if not row.table1}
COMMAND = (sys.executable, "-m", training.__name__)

flags.declare_key_flag("config")
_CONFIG = flags.FLAGS["config"]  # of mijax.main
_CONFIG.help = "configuration file, without a method"
# The report has a flag of this name, and one process may import both.
_OUTPUT = flags.DEFINE_string("output", None, "folder of the runs", allow_override=True)
_ROWS = flags.DEFINE_list("rows", list(ROWS), "rows of the table")
_SEEDS = flags.DEFINE_integer("seeds", 3, "seeds a row", lower_bound=1)
_INDEX = flags.DEFINE_integer("index", None, "run this job alone", lower_bound=0)
_LIST = flags.DEFINE_bool("list", False, "show the jobs and whether they are done, run none")


class Job(NamedTuple):
    """One run of the table: its folder, the arguments of mijax.main, and the configuration."""

    folder: Path
    arguments: tuple[str, ...]
    config: object

    @property
    def done(self):
        return (self.folder / "scores.json").exists()


def main(argv):
    """Runs the jobs, or shows them."""
    output, index = _OUTPUT.value, _INDEX.value
    if _CONFIG.value is None or not output:
        commands.fail("needs --config FILE and --output FOLDER")
    jobs = make_jobs(
        config_flags.get_config_filename(_CONFIG),
        config_flags.get_override_values(_CONFIG),
        output=output,
        seeds=_SEEDS.value,
        rows=_ROWS.value,
    )
    if _LIST.value:
        for number, job in enumerate(jobs):
            state = "done" if job.done else "-"
            print(
                f"{number:3d}  {state:4s}  {shlex.join(['python', *COMMAND[1:], *job.arguments])}"
            )
        return
    if index is not None and index >= len(jobs):
        commands.fail(f"--index is below {len(jobs)}, the number of jobs, not {index}")
    chosen = jobs if index is None else [jobs[index]]
    failed = run_jobs(chosen, total=len(jobs))
    if all(job.done for job in jobs) or (index is None and any(job.done for job in jobs)):
        _report(jobs, Path(output) / "report")
    if failed:
        names = ", ".join(job.folder.name for job in failed)
        commands.fail(
            f"{len(failed)} of {len(chosen)} jobs without scores: {names}; the same command runs "
            "them again",
            code=1,
        )


def make_jobs(file, overrides, *, output, seeds, rows):
    """The jobs of a table, all rows of the first seed first.

    Args:
      file: path of the configuration.
      overrides: values of the configuration by dotted key, for all rows.
      output: folder of the run folders.
      seeds: number of seeds; the first is that of the configuration.
      rows: names of rows, see ``--help``. A pre-training is a job of its own, before the row.

    Raises:
      UserError: values that cannot hold for all rows, or a folder with a run of others.
    """
    if ":" in Path(file).name:
        raise UserError(f"--config {file}: without a method, the table has them all")
    for key in overrides:
        if key.startswith("method."):
            raise UserError(
                f"--config.{key} cannot hold for all rows; set it in {file}, whose get_config "
                "is told the method"
            )
    from mijax.runs.source import cases_of  # takes seconds to import

    output, jobs = Path(output), []
    base = _load(file, next(iter(ROWS.values()))[0], overrides)
    cases = cases_of(base)
    rows = _rows_there_are(rows, base, cases)
    for seed in range(base.seed, base.seed + seeds):
        for row, (method, values) in _resolve(rows).items():
            wanted = {**overrides, **values, "seed": seed}
            if "init_from" in values:
                wanted["init_from"] = str(output / f"{values['init_from']}-seed{seed}")
            if "data.splits.labelled" in values and base.data.splits.file:
                wanted["data.splits.file"] = str(
                    _all_labelled(base.data.splits.file, cases, output)
                )
            folder = output / f"{row}-seed{seed}"
            arguments = (
                f"--config={file}:{method}",
                *_as_flags(wanted),
                f"--workdir={folder}",
                "--noreport",
            )
            job = Job(folder, arguments, _load(file, method, wanted))
            _check_same(job)
            jobs.append(job)
    return jobs


def _resolve(rows):
    """Folder name, method and values of each row, a pre-training before what begins with it."""
    found, known = {}, ROWS | OTHER_ROWS
    for row in rows:
        name, _, origin = row.partition(":")
        method, values = known.get(name, (name, {}))
        for which in filter(None, (method, origin)):
            try:
                methods.find(which)
            except UserError as error:
                raise UserError(f"--rows: {error}; the rows are {', '.join(known)}") from error
        if origin:
            found[origin] = (origin, {})
            values = {**values, "init_from": origin}
        found[f"{name}-from-{origin}" if origin else name] = (method, values)
    return found


def run_jobs(jobs, *, total):
    """Runs those of the jobs that have no scores; returns those that still have none."""
    for number, job in enumerate(jobs, start=1):
        if job.done:
            commands.tell(f"{job.folder.name} is done")
            continue
        origin = job.config.init_from
        if origin and not (Path(origin) / "scores.json").exists():
            commands.tell(f"{job.folder.name} begins with {origin}, which is not done")
            continue
        place = f"job {number} of {total}: " if len(jobs) == total else ""
        commands.tell(f"{place}{job.folder.name}")
        lock_file = job.folder.parent / ".locks" / job.folder.name
        with locked(lock_file) as lock:
            if lock is None:
                commands.tell(f"{job.folder.name} is left to the process that is at it")
                continue
            code = _run(job, lock)
        if code == 130:
            raise KeyboardInterrupt
        if code == commands.PREEMPTED:
            raise Preempted("stopped; the same command goes on")
        if code or not job.done:
            commands.tell(f"{job.folder.name} failed with exit code {code}")
    return [job for job in jobs if not job.done]


def _run(job, lock):
    """Exit code of a job; PREEMPTED after SIGTERM, which is passed on to the job, for it to save.

    Slurm tells every process, but Kubernetes and a shell's kill only this one.
    """
    noticed, process = False, None

    def pass_on(*_):
        nonlocal noticed
        noticed = True
        if process:
            process.terminate()

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        with subprocess.Popen([*COMMAND, *job.arguments], pass_fds=[lock.fileno()]) as process:
            if noticed:  # meanwhile
                process.terminate()
            try:
                code = process.wait()
            except KeyboardInterrupt:  # a terminal has told the job as well, which saves
                process.terminate()
                process.wait()
                raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return commands.PREEMPTED if noticed else code


def _report(jobs, folder):
    from mijax.report import make_report

    done = [job for job in jobs if job.done]
    commands.prepare_jax(done[0].config)
    print(make_report([job.folder for job in done], folder))


def _load(file, method, overrides):
    """The configuration as ``mijax.main`` will have it."""
    arguments = ["", f"--config={file}:{method}", *_as_flags(overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=arguments)
    values(arguments)
    return values.config


def _as_flags(overrides):
    return [f"--config.{key}={value}" for key, value in overrides.items()]


def _rows_there_are(rows, config, cases):
    """The rows without ``full`` where all labels that there are make ``partial``.

    Raises:
      UserError: if no case is unlabelled, or no row is left.
    """
    from mijax.data import all_labelled
    from mijax.runs.splits import choose_splits

    if cases is None:  # not there yet, all of them labelled
        splits, partial = None, config.data.splits.labelled or config.data.splits.file
    else:
        splits = choose_splits(config.data, cases)
        partial = splits.unlabelled
    if not partial:
        raise UserError(
            "no training case is unlabelled, so that every row would be fully supervised; set "
            "config.data.splits.labelled to fewer patients than there are (0 takes all)"
        )
    if cases is None or all_labelled(splits, cases).labelled != splits.labelled:
        return rows
    left = [row for row in rows if row.partition(":")[0] != "full"]
    if len(left) < len(rows):
        commands.tell(
            f"no row full: the {len(splits.unlabelled)} unlabelled training cases have no labels, "
            "so that it would be the same as partial"
        )
    if not left:
        raise UserError("--rows: no row is left")
    return left


def _all_labelled(path, cases, output):
    """A copy of given splits for full supervision, with all labels that there are."""
    from mijax.data import all_labelled, read_splits, write_splits

    output.mkdir(parents=True, exist_ok=True)
    write_splits(output / "full_splits.json", all_labelled(read_splits(path), cases or ()))
    return output / "full_splits.json"


def _check_same(job):
    """Refuses the folder of a run with other values: its scores are not those of the job."""
    from mijax.report.runs import settings
    from mijax.runs.folder import open_run

    if not job.done:
        return  # mijax.main looks at it
    found, wanted = settings(open_run(job.folder).config), settings(job.config)
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(
                f"{job.folder} holds a run of another configuration (config.{key} is "
                f"{found.get(key)!r} there and {wanted.get(key)!r} here); choose another --output"
            )


if __name__ == "__main__":
    commands.run(main)
