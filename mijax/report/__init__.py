"""Reports of runs: the table of the paper, its tests, figures, and one page that holds them."""

import tempfile
from pathlib import Path

from mijax.files import write_atomically, writing_to

CASES = 40  # predicted five times each
_FILES = ("table.md", "table.tex", "table.csv", "cases.csv", "measures.csv")  # that may be there


def make_report(
    folders,
    output,
    *,
    checkpoint="best",
    names=(),
    against=None,
    predictions=True,
    data_dir=None,
    cases=CASES,
    whole_volumes=False,
):
    """Writes the report of some runs: index.html, table.md, .csv and .tex, cases.csv, figures.

    They are written at the end, so that all is of one report.

    The page has a viewer of the scored cases, whose volumes are in the folder ``viewer``.

    Of pre-training alone it is index.html, table.md and .csv, and figures; beside runs that
    segment, its measures are in table.md and measures.csv.

    Args:
      folders: of runs, or of folders of runs.
      output: folder; files of an earlier report in it are written anew, or go.
      checkpoint: which is scored, "best" (by validation DSC, or by a measure of pre-training) or
        "last".
      names: of the rows, see ``runs.read_rows``.
      against: label of the row that is tested against each other one, see ``make_table``.
      predictions: also the figures that need the data and the networks; where the data
        cannot be had, the page says so and holds the rest.
      data_dir: folder of the data where it moved since.
      cases: about how many are in the viewer and among the estimates of trust at most, evenly from
        the worst to the best; 0 for all.
      whole_volumes: in the viewer, instead of what is around the structures.

    Returns:
      Path of the page.

    Raises:
      UserError: runs that do not go into one table, see ``runs.read_rows``; an output that
        cannot be written.
    """
    from mijax.report.runs import read_rows  # these import scipy and matplotlib

    rows, left_out = read_rows(folders, checkpoint=checkpoint, names=names)

    from mijax.report.illustrator import Illustrator
    from mijax.report.page import to_html
    from mijax.report.statistics import make_table
    from mijax.report.viewer import FOLDER, list_cases, write_viewer

    segmenting = [row for row in rows if not row.pretraining]
    pretraining = [row for row in rows if row.pretraining]
    table = make_table(segmenting, against=against) if segmenting else None
    files = _files(table, pretraining, checkpoint)
    output = Path(output)
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass  # else what cannot be written fails after minutes of prediction
        illustrator = Illustrator()
        if segmenting:
            illustrator.draw_growth(segmenting, checkpoint=checkpoint)
            illustrator.draw_logs(table)
        if pretraining:
            illustrator.draw_pretraining_logs(pretraining)
        found, listed = None, None
        if segmenting and predictions:
            found = illustrator.draw_predictions(segmenting, data_dir=data_dir, cases=cases)
        if pretraining and predictions:
            illustrator.draw_clusters(pretraining, data_dir=data_dir)
        page = output / "index.html"
        page.unlink(missing_ok=True)  # that of an earlier report has other files
        viewed, note = write_viewer(output / FOLDER, found, whole=whole_volumes)
        illustrator.notes += [note] if note else []
        if table:
            listed = list_cases(table, found, viewed)
        text = to_html(
            rows,
            table,
            checkpoint=checkpoint,
            listed=listed,
            illustrator=illustrator,
            left_out=left_out,
            files=files,
        )
        illustrator.write(output / "figures")
        for name in _FILES:
            if name not in files:
                (output / name).unlink(missing_ok=True)
        for name, content in {**files, page.name: text}.items():
            # Names of folders may hold bytes that are no text.
            write_atomically(output / name, content.encode(errors="replace"))
    return page


def _files(table, pretraining, checkpoint):
    """Contents of the files beside the page, by name."""
    from mijax.report import formats, measures

    if not table:
        return {
            "table.md": measures.to_markdown(pretraining, checkpoint=checkpoint),
            "table.csv": measures.to_csv(pretraining),
        }
    files = {
        "table.md": formats.to_markdown(table, checkpoint=checkpoint),
        "table.tex": formats.to_latex(table, checkpoint=checkpoint),
        "table.csv": formats.to_csv(table),
        "cases.csv": formats.cases_to_csv(table),
    }
    if pretraining:
        files["table.md"] += "\n" + measures.to_markdown(pretraining, checkpoint=checkpoint)
        files["measures.csv"] = measures.to_csv(pretraining)
    return files
