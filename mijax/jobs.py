"""The jobs of a table: a run for each row and seed, one after another or one a process."""

import contextlib
import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from mijax import commands, methods
from mijax.data import all_labelled, read_splits, write_splits
from mijax.errors import Preempted, UserError, tell
from mijax.files import locked, writing_to
from mijax.report.runs import settings
from mijax.runs.annotation import annotation_in
from mijax.runs.folder import Run, absolute, is_done, open_run, settle_paths
from mijax.runs.source import cases_of, same_volumes
from mijax.runs.splits import choose_splits

_DECLARED = sorted(
    ((name, key, row) for name in methods.names() for key, row in methods.rows(name).items()),
    key=lambda found: found[2].place,
)
# Folder: (method, values of the configuration), of the rows of Table 1 and of the others.
ROWS = {key: (name, row.values) for name, key, row in _DECLARED if row.table1}
OTHER_ROWS = {key: (name, row.values) for name, key, row in _DECLARED if not row.table1}
COMMAND = (sys.executable, "-m", "mijax.main")

_log = logging.getLogger("mijax")


class Job(NamedTuple):
    """One run of the table: its folder, the arguments of mijax.main, and the configuration."""

    folder: Path
    arguments: tuple[str, ...]
    config: object

    @property
    def done(self):
        return is_done(self.folder)


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

    output, jobs = Path(absolute(output)), []
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
    _check_different(jobs)
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
    """Runs those of the jobs that are not done; returns those that still are not."""
    for number, job in enumerate(jobs, start=1):
        if job.done:
            _log.info(f"{job.folder.name} is done")
            continue
        origin = job.config.init_from
        if origin and not is_done(origin):
            _log.info(f"{job.folder.name} begins with {origin}, which is not done")
            continue
        place = f"job {number} of {total}: " if len(jobs) == total else ""
        _log.info(f"{place}{job.folder.name}")
        with contextlib.ExitStack() as stack:
            with writing_to(job.folder.parent):
                lock_file = job.folder.parent / ".locks" / job.folder.name
                lock = stack.enter_context(locked(lock_file))
            if lock is None:
                _log.info(f"{job.folder.name} is left to the process that is at it")
                continue
            code = _run(job, lock)
        if code == commands.INTERRUPTED:
            raise KeyboardInterrupt
        if code == commands.PREEMPTED:
            raise Preempted("stopped; the same command goes on")
        if code or not job.done:
            _log.info(f"{job.folder.name} failed with exit code {code}")
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


def _load(file, method, overrides):
    """The configuration as ``mijax.main`` will have it."""
    arguments = ["", f"--config={file}:{method}", *_as_flags(overrides)]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=arguments)
    values(arguments)
    settle_paths(values.config)
    return values.config


def _as_flags(overrides):
    return [f"--config.{key}={value}" for key, value in overrides.items()]


def _rows_there_are(rows, config, cases):
    """The rows without ``full`` where all labels that there are make ``partial``.

    Raises:
      UserError: if no case is unlabelled, or no row is left.
    """

    data = config.data
    annotation = annotation_in(data.annotation.file, data)
    if cases is None:  # not there yet, all of them labelled
        splits = None
        partial = data.splits.labelled or data.splits.file or annotation.partial
    else:
        splits = choose_splits(data, cases)
        partial = splits.unlabelled or annotation.of(splits.labelled).partial
    if not partial:
        raise UserError(
            "no training case is unlabelled, so that every row would be fully supervised; set "
            "config.data.splits.labelled to fewer patients than there are (0 takes all)"
        )
    if cases is None or all_labelled(splits, cases).labelled != splits.labelled:
        return rows
    left = [row for row in rows if row.partition(":")[0] != "full"]
    if len(left) < len(rows):
        _log.info("no row full: there are no more labels than partial learns from")
    if not left:
        raise UserError("--rows: no row is left")
    return left


def _all_labelled(path, cases, output):
    """A copy of given splits for full supervision, with all labels that there are."""
    splits, file = read_splits(path), output / "full_splits.json"
    if file.resolve() == Path(path).resolve():
        raise UserError(f"{path} is given, and would be written; choose another --output")
    if cases is None:  # not there yet, all of them labelled
        labelled = (*splits.labelled, *splits.unlabelled)
        splits = splits._replace(labelled=labelled, unlabelled=())
    else:
        splits = all_labelled(splits, cases)
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
        write_splits(file, splits)
    return file


def _check_different(jobs):
    """Refuses two rows of one configuration: they would be trained twice, and be one row."""
    known = {}
    for job in jobs:
        key = job.config.seed, tuple(sorted(map(str, settings(job.config).items())))
        if key in known:
            names = (one.folder.name.rpartition("-seed")[0] for one in (known[key], job))
            raise UserError(f"--rows: {' and '.join(names)} are the same; give one of them")
        known[key] = job


def _check_same(job):
    """Refuses the folder of a run with other values: its scores are not those of the job.

    Where its data lay elsewhere, that is told (``Notice``): they may have moved.
    """
    file = job.config.data.splits.file
    if file and (job.done or Run(job.folder, None).begun):
        had, given = (map(set, read_splits(f)) for f in (job.folder / "splits.json", file))
        if [*had] != [*given]:
            raise UserError(
                f"{job.folder} has other splits than {file} has now; choose another --output"
            )
    if not job.done:
        return  # mijax.main looks at it
    config = open_run(job.folder).config
    data, given = config.data.source, job.config.data.source
    if not same_volumes(data, given):
        tell(
            f"--output {job.folder.parent}: what is done there was trained and scored on the data "
            f"in {data.dir}, not in {given.dir}; if these are others, choose another --output"
        )
    found, wanted = settings(config), settings(job.config)
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise UserError(
                f"{job.folder} holds a run of another configuration (config.{key} is "
                f"{found.get(key)!r} there and {wanted.get(key)!r} here); choose another --output"
            )
