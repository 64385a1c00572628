"""Scores a run on the native grid of its volumes: python -m mijax.evaluate --workdir RUN

Writes RUN/scores.json, for the last and the best checkpoint, and prints it as a table. The
cases are those of the test split, or of the validation split where there is no test.
"""

from absl import flags

from mijax import commands


def main(argv):
    """Scores the run."""
    from mijax.inference.evaluate import evaluate
    from mijax.inference.score_table import table
    from mijax.inference.tolerance import read_tolerances
    from mijax.runs.folder import open_run

    values = flags.FLAGS
    if not values.workdir:
        commands.fail("needs --workdir FOLDER, the folder of a run")
    run = open_run(values.workdir)
    if values.data_dir is not None:
        run.config.data.source.dir = values.data_dir
    commands.prepare_jax(run.config)
    scores = evaluate(
        run,
        largest_component=values.largest_component,
        mirror=values.mirror,
        nsd_tolerance=read_tolerances(values.nsd_tolerance),
    )
    print(table(scores))


def define_flags():
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("data_dir", None, "new folder of the data, if it has moved")
    flags.DEFINE_bool("largest_component", False, "keep the largest 3-D piece of each class")
    flags.DEFINE_bool("mirror", False, "average over mirror images; four times as long, or eight")
    flags.DEFINE_list(
        "nsd_tolerance", [], "of the NSD: mm for all classes, or CLASS=MM of some; by default 2 mm"
    )


if __name__ == "__main__":
    commands.run(main, define_flags)
