"""The tables of a report as Markdown, LaTeX and CSV, and its cases as CSV."""

import csv
import io

from mijax.inference.scores import METRICS, VOLUME
from mijax.report.calibration import case_errors
from mijax.report.caption import caption
from mijax.report.chance import patients_of
from mijax.report.table import parts
from mijax.report.values import MEAN

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"}, "–": "--", "−": "$-$", "×": r"$\times$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


def to_markdown(table, *, checkpoint):
    lines = []
    for title, header, rows in parts(table):
        texts = [
            [f"**{text}**" if best else text + r"\*" * star for text, best, star in row]
            for row in rows
        ]
        lines += [f"**{title}**", "", *markdown_lines(header, texts), ""]
    return "\n".join([*lines, caption(table, checkpoint=checkpoint).replace("*", r"\*"), ""])


def to_latex(table, *, checkpoint):
    r"""A float a table, no wider than a line, and what the numbers are as a paragraph after them.

    For ``\usepackage{booktabs,graphicx}``.
    """
    lines = [r"% \usepackage{booktabs,graphicx}"]
    for title, header, rows in parts(table):
        lines += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(title)}}}",
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            " & ".join(map(latex, header)) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(*cell) for cell in row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}}",
            r"\end{table}",
        ]
    notes = latex(caption(table, checkpoint=checkpoint))
    return "\n".join([*lines, rf"{{\footnotesize\noindent {notes}\par}}", ""])


def to_csv(table):
    """One line a row, class and metric, in the units of the table, at full precision.

    Of the mean DSC there is also what the tested row is better by; the calibration error is of a
    region instead of a class.
    """
    lines = [("method", "seeds", "labelled", "unlabelled", "cases", "patients", "class", "metric",
              "unit", "mean", "std", "low", "high", "undefined", "best", "tested", "p",
              "gap_closed", "difference", "difference_low", "difference_high", "wilcoxon_p",
              "false_claim")]  # fmt: skip
    for i, row in enumerate(table.rows):
        about = (row.label, len(row.runs), len(row.splits.labelled), len(row.splits.unlabelled))
        about += (len(patients_of(row)), len(set(patients_of(row))))
        for metric, columns in table.cells.items():
            for column, cells in columns.items():
                cell, (_, unit, _, factor) = cells[i], METRICS[metric]
                values = (cell.mean, cell.std, *(cell.interval or (None, None)))
                whole = metric == "dsc"
                lines.append(
                    (*about, column, metric, unit, *(_times(factor, v) for v in values),
                     cell.undefined, int(cell.best), int(i == table.tested), cell.p,
                     table.gaps[column][i] if whole else None,
                     *(_compared(table, i) if whole and column == MEAN else [None] * 5))
                )  # fmt: skip
        for region, errors in table.errors[i].items():
            if errors:
                std = errors.by_seed.std(ddof=1) if len(errors.by_seed) > 1 else None
                values = (errors.by_seed.mean(), std, *(errors.interval or (None, None)))
                values = (_times(100, v) for v in values)
                lines.append((*about, region, "ece", "%", *values, *[None] * 10))
    return csv_text(lines)


def _compared(table, i):
    if i not in table.comparisons:
        return [None] * 5
    one = table.comparisons[i]
    points = [one.difference, *(one.interval or (None, None))]
    return [*(_times(100, v) for v in points), one.wilcoxon, one.false_claim]


def _times(factor, value):
    return None if value is None else factor * float(value)


def cases_to_csv(table):
    """One line a run, case and class: fractions, mm and ml, as in scores.json.

    The calibration errors, ``ece`` and that of the foreground, are of the case: they are the same
    in the lines of its classes.
    """
    metrics = (*METRICS, VOLUME)
    lines = [("run", "method", "seed", "step", "patient", "case", "class", *metrics,
              "ece", "ece_foreground")]  # fmt: skip
    for row in table.rows:
        for one in row.runs:
            cases, folder = one.entry["cases"], one.run.folder.resolve().name
            for patient, case in zip(patients_of(row), sorted(cases), strict=True):
                about = (folder, row.label, one.seed, one.entry["step"], patient, case)
                errors = case_errors(one.entry, case)
                for name, values in cases[case].items():
                    lines.append((*about, name, *map(values.get, metrics), *errors))
    return csv_text(lines)


def markdown_lines(header, rows):
    """The lines of a table in Markdown."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return ["| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |" for line in lines]


def csv_text(lines):
    """Tuples as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def latex(text):
    """Text with the characters escaped that mean something to LaTeX.

    Where a row of a table begins with [ or *, that would be an option of the line before.
    """
    first = "{}" if text.startswith(("[", "*")) else ""
    return first + "".join(_LATEX.get(c, c) for c in text)


def _latex_cell(text, best, significant):
    text = latex(text)
    return rf"\textbf{{{text}}}" if best else text + "$^{*}$" * significant
