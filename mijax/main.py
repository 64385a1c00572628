"""Trains and scores a run: python -m mijax.main --config configs/phantom.py[:METHOD]

Every value of the configuration is a flag, such as --config.method.weight=0.05; --config FILE
--help lists them. If a flag is given twice, the last one counts. Without --workdir the run goes to
runs/NAME/METHOD-Nlabelled-seedS. The same command goes on with a run that was interrupted;
--workdir RUN alone does the same.

--grow OLD --workdir NEW goes on from the run OLD when more scans have labels: with its
configuration and weights, and on its validation and test cases.
"""

import logging
import sys
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mijax import commands
from mijax.errors import needs, quoted
from mijax.progress import doing, out_of_memory

# Flags that go with --grow, and what they are of a run that has a configuration of its own.
_GROWING = {
    "splits": "data.splits.file", "annotation": "data.annotation.file", "weights": "init_from",
}  # fmt: skip
_log = logging.getLogger("mijax")


def main(argv):
    """Trains the run, or goes on with it, and scores it."""
    from mijax import parallel  # these take seconds to import
    from mijax.planning import settle_plan, write_plan
    from mijax.runs.folder import Run, check_processes, default_folder, open_run, start_run
    from mijax.runs.growth import grown_config
    from mijax.runs.tracking import TRACKERS, settle_tracking

    values = flags.FLAGS
    for key, other in _GROWING.items():
        if values[key].present and not values.grow:
            commands.fail(f"--{key} goes with --grow; of a new run it is --config.{other}")
    if values.data_dir is not None and values.config is not None:
        commands.fail("--data_dir is of a run that there is; here it is --config.data.source.dir")
    if values.grow:
        if values.config is not None or not values.workdir:
            commands.fail("--grow OLD needs --workdir NEW, and takes the configuration of OLD")
        options = {key: values[key].value for key in _GROWING}
        config = grown_config(values.grow, **options)
    elif values.config is not None:
        config = values.config
    elif values.workdir:
        config = open_run(values.workdir).config
    else:
        commands.fail("needs --config FILE for a new run or --workdir FOLDER for an old one")
    if values.data_dir is not None:
        config.data.source.dir = values.data_dir
    folder = values.workdir or default_folder(config)
    trackers = [name for name in TRACKERS if getattr(values, name)]
    for name in trackers:
        needs(name, name)
    parallel.join()
    commands.prepare_jax(config)
    first = parallel.is_first()
    if not first:  # one talks
        _log.setLevel(logging.CRITICAL)
    _log.info("devices: %s", parallel.devices())
    with doing("planning", logged=False):
        plan = settle_plan(config, folder, given=commands.given_keys())
    check_processes(folder, config)
    if first:
        run = start_run(folder, config)
        if plan:
            path = write_plan(folder, plan)
            _log.info("what was left open is as %s has it, with reasons", path)
        settle_tracking(run.folder, trackers)
    parallel.barrier("the run folder is there")
    if not first:  # the first may have failed meanwhile, and taken the folder back
        run = Run(Path(folder), config)

    from mijax.inference import evaluate
    from mijax.inference.score_table import table
    from mijax.training import train

    _log.info("run folder: %s", run.folder)
    train(run)
    with doing("scoring", logged=False):
        scores = evaluate(run)
    if first:
        print(table(scores))
        if values.report:
            _report(run)


def _report(run):
    """Writes RUN/report. What goes wrong there is logged: the run itself is done and scored."""
    import jax

    data_dir = run.config.data.source.dir or None  # that of its config.json may be an older one
    if jax.process_count() > 1:  # it restores checkpoints, which all of them would have to
        given = f" --data_dir={quoted(data_dir)}" if data_dir else ""
        _log.info("python -m mijax.report %s%s makes a report", quoted(run.folder), given)
        return
    try:
        from mijax.report import make_report

        with doing("writing the report"):
            page = make_report([run.folder], run.folder / "report", data_dir=data_dir)
        _log.info("report: %s", page)
    except Exception as error:
        reason = out_of_memory(error) or f"{type(error).__name__}: {error}"
        _log.warning("no report (%s)", reason)


def cli():
    """The command ``mijax``, which is python -m mijax.main."""
    sys.modules["__main__"], sys.argv[0] = sys.modules[__name__], __name__  # that --help tells of
    commands.run(main, define_flags)


def define_flags():
    config_flags.DEFINE_config_file(
        "config", None, "configuration file, with a method: configs/spleen.py:mean_teacher"
    )
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("grow", None, "folder of a run to go on from with more labels")
    flags.DEFINE_string(
        "splits", "", "with --grow: a splits.json that says who is labelled, instead of all labels"
    )
    flags.DEFINE_string("annotation", "", "with --grow: a file of what was annotated in part")
    flags.DEFINE_bool("weights", True, "with --grow: begin with the weights of that run")
    flags.DEFINE_string("data_dir", None, "of an old run: new folder of the data, if moved")
    flags.DEFINE_bool("mlflow", False, "write to MLflow as well; MLFLOW_TRACKING_URI says where")
    flags.DEFINE_bool("wandb", False, "write to Weights & Biases as well, offline in RUN/wandb")
    flags.DEFINE_bool("report", True, "write RUN/report as well, one page about the run")


if __name__ == "__main__":
    commands.run(main, define_flags)
