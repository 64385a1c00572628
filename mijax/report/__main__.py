"""Compares runs: python -m mijax.report RUN [RUN …] --output FOLDER

Groups the runs by method and seed and writes FOLDER/index.html, one page with the table of the
paper (means, t-tests, gap closed), learning curves, the DSC of every case, contours and joint
distributions; the table as table.md, table.csv and table.tex, the scores of every case as
cases.csv, and the figures. A folder of runs stands for the runs in it.
"""

from absl import flags

from mijax import commands

# Other commands have flags of these names, and one process may import them all.
_OUTPUT = flags.DEFINE_string("output", None, "folder of the report", allow_override=True)
_CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "last"], "which scores", allow_override=True
)
_NAMES = flags.DEFINE_list(
    "names", [], "names of the rows, in the order in which their runs are given"
)
_AGAINST = flags.DEFINE_string(
    "against", None, "row, by its name, that is tested against each other one; by default ours"
)
_PREDICTIONS = flags.DEFINE_bool(
    "predictions", True, "also the figures that need the data and the networks"
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of the data, where it moved since", allow_override=True
)


def main(argv):
    """Writes the report."""
    folders, output = argv[1:], _OUTPUT.value
    options = {
        "checkpoint": _CHECKPOINT.value,
        "names": _NAMES.value,
        "against": _AGAINST.value,
        "predictions": _PREDICTIONS.value,
        "data_dir": _DATA_DIR.value,
    }
    if not folders or not output:
        commands.fail("needs one run folder or more, and --output FOLDER for the report")

    from mijax.report import make_report
    from mijax.report.runs import find_runs
    from mijax.runs.folder import open_run

    commands.prepare_jax(open_run(find_runs(folders)[0]).config)
    print(make_report(folders, output, **options))


if __name__ == "__main__":
    commands.run(main, arguments=True)
