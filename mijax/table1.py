r"""Runs Table 1 of the paper: python -m mijax.table1 --config configs/phantom.py --output FOLDER

Eight rows, each with --seeds seeds, one after another, then the report FOLDER/report/index.html.
--rows names others: any method is one, and METHOD:PRETRAINING is a method that begins with the
weights of another, as in --rows full,partial,global_local_mi,supervised:boundary_iic. Row full is
left out if there are no more labels than partial has. The same command goes on after a kill; what
is done is not run again. Flags --config.KEY=VALUE hold for all rows. --list shows the jobs, and of
given splits writes FOLDER/full_splits.json, which row full has; --index N runs one of the jobs,
which makes a Slurm array:

sbatch --array=0-23 --gpus=1 --requeue --wrap 'python -m mijax.table1 \
    --config configs/acdc.py --output FOLDER --index $SLURM_ARRAY_TASK_ID'

whose last job to finish writes the report. Run a pre-training first, as an array of its own:
--rows boundary_iic. On several GPUs of one machine run each command on one of them
(CUDA_VISIBLE_DEVICES): the images of a forward pass must divide over all that it sees, which those
of small batches do not.
"""

import contextlib
import hashlib
import json
import logging
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mijax import commands
from mijax.options import tuples

_log = logging.getLogger("mijax")


def main(argv):
    """Runs the jobs, or shows them."""
    values = flags.FLAGS
    if values.config is None or not values.output:
        commands.fail("needs --config FILE and --output FOLDER")

    from mijax.jobs import COMMAND, ROWS, make_jobs, run_jobs  # takes seconds to import

    file = config_flags.get_config_filename(values["config"])
    overrides = config_flags.get_override_values(values["config"])
    if values.config.plan:
        asked = [f"--config={file}", *(f"--config.{key}={v}" for key, v in overrides.items())]
        planned = _planned(values.config, asked, Path(values.output), keep=not values.list)
        overrides = planned | overrides | {"plan": False}
    jobs = make_jobs(
        file,
        overrides,
        output=values.output,
        seeds=values.seeds,
        rows=values.rows or list(ROWS),
    )
    if values.list:
        for number, job in enumerate(jobs):
            command = shlex.join(["python", *COMMAND[1:], *job.arguments])
            print(f"{number:3d}  {'done' if job.done else '-':4s}  {command}")
        return
    index = values.index
    if index is not None and index >= len(jobs):
        commands.fail(f"--index is below {len(jobs)}, the number of jobs, not {index}")
    chosen = jobs if index is None else [jobs[index]]
    failed = run_jobs(chosen, total=len(jobs))
    if all(job.done for job in jobs) or (index is None and any(job.done for job in jobs)):
        _report(jobs, Path(values.output) / "report")
    if failed:
        names = ", ".join(job.folder.name for job in failed)
        commands.fail(
            f"{len(failed)} of {len(chosen)} jobs not done: {names}; the same command runs them "
            "again",
            code=1,
        )


def _planned(config, asked, output, *, keep):
    """Values by dotted key of one plan for all rows, OUTPUT/plan.json.

    It is taken where it was made of the same values and cases, as of all jobs of an array, and
    where a job has saved a checkpoint; else it is made, and written with ``keep``.
    """
    from mijax.files import locked, read_json, write_json, writing_to
    from mijax.runs.folder import Run
    from mijax.runs.source import cases_of

    path = output / "plan.json"
    data, read = config.data, []
    for file in filter(None, (data.splits.file, data.annotation.file)):
        with contextlib.suppress(OSError):  # told when it is planned
            read.append(Path(file).read_text(encoding="utf-8", errors="replace"))
    inputs = repr((asked, cases_of(config), config.to_json_best_effort(), read))
    made_of = hashlib.sha256(inputs.encode()).hexdigest()
    with contextlib.ExitStack() as stack:
        if keep:
            stack.enter_context(writing_to(output))
            stack.enter_context(locked(output / ".locks" / "plan", wait=True))
        plan = read_json(path) if path.exists() else {}
        same = plan.get("made_of") == made_of
        if not same and plan and any(Run(f, None).begun for f in output.glob("*-seed*")):
            _log.info("%s holds, as jobs have begun; another --output has a plan of its own", path)
        elif not same:
            plan = _plan(asked) | {"made_of": made_of}
            if keep:
                write_json(path, plan)
    found = tuples({choice["key"]: choice["value"] for choice in plan["choices"]})
    # None is as it is anyway.
    return {key: value for key, value in found.items() if value is not None}


def _plan(asked):
    """A plan, made in a process of its own: this one does not take the device from the jobs."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        command = [sys.executable, "-m", "mijax.plan", "--notry", *asked, f"--output={path}"]
        code = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
        if code:
            sys.exit(code)  # it said why
        return json.loads(path.read_text(encoding="utf-8"))


def _report(jobs, folder):
    from mijax.report import make_report

    done = [job for job in jobs if job.done]
    config = done[0].config
    commands.prepare_jax(config)
    data_dir = config.data.source.dir or None  # they may have moved since the runs were scored
    print(make_report([job.folder for job in done], folder, data_dir=data_dir))


def define_flags():
    config_flags.DEFINE_config_file("config", None, "configuration file, without a method")
    flags.DEFINE_string("output", None, "folder of the runs")
    flags.DEFINE_list("rows", [], "rows of the table; by default those of the paper")
    flags.DEFINE_integer("seeds", 3, "number of seeds of each row", lower_bound=1)
    flags.DEFINE_integer("index", None, "run this job alone", lower_bound=0)
    flags.DEFINE_bool("list", False, "show the jobs and whether they are done, run none")


if __name__ == "__main__":
    commands.run(main, define_flags)
