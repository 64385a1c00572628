"""Compares runs: python -m mijax.report RUN [RUN …] [--output FOLDER]

Groups the runs by method and seed and writes FOLDER/index.html, one page with the table of the
paper (means, intervals, tests, gap closed), a list of the cases and a viewer of their volumes,
learning curves, the DSC of every case, contours and joint distributions; the tables as table.md,
table.csv and table.tex, the scores of every case as cases.csv, and the figures as PNG, SVG and
PDF. A folder of runs stands for the runs in it; of one folder alone the report is FOLDER/report.
"""

from pathlib import Path

from absl import flags

from mijax import commands
from mijax.report import CASES, make_report


def main(argv):
    """Writes the report."""
    folders, values = argv[1:], flags.FLAGS
    if not folders or not (values.output or len(folders) == 1):
        commands.fail("needs a folder, or several and --output FOLDER for the report")
    output = values.output or Path(folders[0]) / "report"

    from mijax.report.runs import find_runs
    from mijax.runs.folder import open_run

    commands.prepare_jax(open_run(find_runs(folders)[0]).config)
    page = make_report(
        folders,
        output,
        checkpoint=values.checkpoint,
        names=values.names,
        against=values.against,
        predictions=values.predictions,
        data_dir=values.data_dir,
        cases=values.cases,
        whole_volumes=values.whole_volumes,
    )
    print(page)


def define_flags():
    flags.DEFINE_string("output", None, "folder of the report; of one folder, that in it")
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "scores of the best checkpoint, or of the last"
    )
    flags.DEFINE_list("names", [], "names of the rows, in the order in which their runs are given")
    flags.DEFINE_string(
        "against", None, "row, by its name, that is tested against each other one; by default ours"
    )
    flags.DEFINE_bool("predictions", True, "also the figures that need the data and the networks")
    flags.DEFINE_string("data_dir", None, "new folder of the data, if it has moved")
    flags.DEFINE_integer(
        "cases", CASES, "in the viewer, evenly from the worst to the best; 0 for all", 0
    )
    flags.DEFINE_bool("whole_volumes", False, "in the viewer, instead of the structures alone")


if __name__ == "__main__":
    commands.run(main, define_flags, arguments=True)
