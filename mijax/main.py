"""Trains and scores a run: python -m mijax.main --config configs/phantom.py[:METHOD]

Every value of the configuration is a flag: --config.method.weight=0.05, and with --config FILE
before it --help lists them. Of a flag that is given twice the last holds. Without --workdir the run
goes to runs/NAME/METHOD-Nlabelled-seedS. The same command goes on with a run that was
interrupted, and so does --workdir alone.
"""

import sys

from absl import flags
from ml_collections import config_flags

from mijax import commands
from mijax.progress import doing, out_of_memory

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "configuration file, with a method: configs/spleen.py:mean_teacher"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "folder of the run")
_REPORT = flags.DEFINE_bool("report", True, "write RUN/report as well, one page about the run")


def main(argv):
    """Trains the run, or goes on with it, and scores it."""
    from mijax import parallel  # these take seconds to import
    from mijax.run import default_folder, open_run, start_run

    if _CONFIG.value is not None:
        config = _CONFIG.value
    elif _WORKDIR.value:
        config = open_run(_WORKDIR.value).config
    else:
        commands.fail("needs --config FILE for a new run or --workdir FOLDER for an old one")
    folder = _WORKDIR.value or default_folder(config)
    parallel.join(tell=commands.tell)
    commands.prepare_jax(config)
    first = parallel.is_first()
    tell = commands.tell if first else lambda line: None
    tell(f"devices: {parallel.devices()}")
    if first:
        run = start_run(folder, config)
    parallel.meet("the run folder is there")
    if not first:
        run = start_run(folder, config)

    from mijax.evaluate import evaluate, table
    from mijax.train import train

    tell(f"run folder: {run.folder}")
    train(run, tell=tell)
    with doing("scoring"):
        scores = evaluate(run, tell=tell)
    if first:
        print(table(scores))
        if _REPORT.value:
            _report(run)


def _report(run):
    """Writes RUN/report. What goes wrong there is told: the run itself is done and scored."""
    import jax

    if jax.process_count() > 1:  # it restores checkpoints, which all of them would have to
        commands.tell(f"python -m mijax.report {run.folder} --output FOLDER makes a report")
        return
    try:
        from mijax.report import make_report

        with doing("writing the report", tell=commands.tell):
            page = make_report([run.folder], run.folder / "report", tell=commands.tell)
        commands.tell(f"report: {page}")
    except Exception as error:
        reason = out_of_memory(error) or f"{type(error).__name__}: {error}"
        commands.tell(f"no report ({reason})")


def cli():
    """The command ``mijax``, which is python -m mijax.main."""
    sys.modules["__main__"], sys.argv[0] = sys.modules[__name__], __name__  # that --help tells of
    commands.run(main)


if __name__ == "__main__":
    commands.run(main)
