"""The table of a report as Markdown, CSV and LaTeX, and its cases as CSV."""

import csv
import io

from mijax.inference.scores import METRICS
from mijax.report.chance import LEAST_PATIENTS, SIGNIFICANT, patients_of
from mijax.report.statistics import MEAN

UNITS = {"dsc": "%", "hd95": "mm", "assd": "mm"}
NAMES = {"dsc": "DSC", "hd95": "HD95", "assd": "ASSD"}
NONE = "–"

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"}, "–": "--", "−": "$-$", "×": r"$\times$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


def grids(table):
    """The parts of the table, as ``(title, header, rows of cells)``; cells are of text.

    A cell is ``(text, best, significant)``, the last whether it is significantly worse than that
    of the tested row; the first of each row is the label.
    """
    gaps, intervals = table.gaps[MEAN], table.intervals[MEAN]
    closed = any(gap is not None for gap in gaps)
    known = any(interval is not None for interval in intervals)
    header = ["Method", *map(_heading, table.columns)]
    header += [*["95 % interval"] * known, *["Gap closed"] * closed, "Training cases", "Seeds"]
    rows = []
    for i, row in enumerate(table.rows):
        cells = [_marked("dsc", table.cells["dsc"][column][i]) for column in table.columns]
        others = [*[_interval(intervals[i])] * known, *[percent(gaps[i])] * closed]
        others += [row.training_cases, str(len(row.runs))]
        rows.append([plain(row.label), *cells, *map(plain, others)])
    parts = [("DSC (%)", header, rows)]
    for metric in METRICS[1:]:
        header = ["Method", *map(_heading, table.columns)]
        rows = [
            [plain(row.label), *(_marked(metric, table.cells[metric][c][i]) for c in table.columns)]
            for i, row in enumerate(table.rows)
        ]
        parts.append((f"{NAMES[metric]} ({UNITS[metric]})", header, rows))
    return parts


def p_values(table):
    """The p values of the DSC: ``(title, header, rows of text)``; None where there is no test."""
    if all(cell.p is None for cells in table.cells["dsc"].values() for cell in cells):
        return None
    rows = [
        [row.label, *(show_p(table.cells["dsc"][column][i].p) for column in table.columns)]
        for i, row in enumerate(table.rows)
        if i != table.tested
    ]
    title = f"p of the t-test that {table.rows[table.tested].label} is better, DSC"
    return title, ["Method", *map(_heading, table.columns)], rows


def caption(table, *, checkpoint):
    """What the numbers are, in sentences."""
    entry = table.rows[0].runs[0].entry
    seeds = max(len(row.runs) for row in table.rows)
    sentences = [
        f"Mean over {len(entry['cases'])} {entry['split']} cases of the {checkpoint} checkpoint"
        + (", and over seeds, with the standard deviation over seeds in parentheses"
           if seeds > 1 else "")
        + ". DSC is per volume (3D); HD95 and ASSD are in mm on the native grid. "
        "Training cases: labelled + unlabelled."
    ]  # fmt: skip
    if entry.get("largest_component"):
        sentences.append("Of each class the largest component of a label map was kept.")
    if entry.get("mirror"):
        sentences.append("Probabilities are means over mirrored slices.")
    if table.unseen:
        sentences.append(
            f"No case shows {', '.join(table.unseen)}: undefined, and left out of the mean."
        )
    if checkpoint == "best" and entry["split"] == "validation":
        sentences.append(
            "The checkpoint was chosen by the DSC of the very same cases, which flatters all rows."
        )
    if any(cell.best for cells in table.cells["dsc"].values() for cell in cells):
        sentences.append("Bold: the best of a column, full supervision aside.")
    if table.tested is not None:
        sentences += _about_tests(table)
    if any(interval is not None for interval in table.intervals[MEAN]):
        sentences.append(
            "95 % interval: of the mean DSC over cases, by bootstrap over patients; the seeds are "
            "averaged first."
        )
    if any(gap is not None for gap in table.gaps[MEAN]):
        sentences.append(
            "Gap closed: (method − partial) / (full − partial) of the mean DSC, where partial and "
            "full are the supervised baselines."
        )
    if any(cell.undefined for m in METRICS for cells in table.cells[m].values() for cell in cells):
        sentences.append(
            "[n]: in n cases (over all seeds) the class was not found, or was found where there "
            "is none; their distance is undefined and left out. –: a seed has no distance at all."
        )
    if any(cell.undefined for cells in table.cells["dsc"].values() for cell in cells):
        sentences.append("A class that was not drawn in a case has no score there.")
    return " ".join(sentences)


def _about_tests(table):
    label, patients = table.rows[table.tested].label, len(set(patients_of(table.rows[0])))
    if patients < LEAST_PATIENTS:
        return [f"No t-test: it takes {LEAST_PATIENTS} patients, and there are {patients}."]
    sentences = [
        f"* p < {SIGNIFICANT} in a one-sided paired t-test that {label} is better than the row, "
        "over patients whose scores were averaged over seeds and scans first. p values are "
        "corrected by Holm's method for the number of rows that it is tested against, all but full "
        "supervision, in each column for itself; not for the number of classes and metrics. They "
        "say nothing about other draws of the labelled cases."
    ]
    if table.picked:
        sentences.append(f"{label} is tested for having the best mean DSC of the same cases, "
                         "which flatters it; --against names another row.")  # fmt: skip
    return sentences


def to_markdown(table, *, checkpoint):
    lines = []
    for title, header, rows in grids(table):
        texts = [
            [f"**{text}**" if best else text + r"\*" * star for text, best, star in row]
            for row in rows
        ]
        lines += [f"**{title}**", "", *markdown_lines(header, texts), ""]
    if tests := p_values(table):
        title, header, rows = tests
        lines += [f"**{title}**", "", *markdown_lines(header, rows), ""]
    return "\n".join([*lines, caption(table, checkpoint=checkpoint).replace("*", r"\*"), ""])


def to_latex(table, *, checkpoint):
    r"""Tables for ``\usepackage{booktabs}``."""
    lines = [r"% \usepackage{booktabs}", r"\begin{table}", r"\centering"]
    lines.append(rf"\caption{{{latex(caption(table, checkpoint=checkpoint))}}}")
    for title, header, rows in grids(table):
        lines += [
            rf"\begin{{tabular}}{{l{'r' * (len(header) - 1)}}}",
            r"\toprule",
            rf"\multicolumn{{{len(header)}}}{{l}}{{{latex(title)}}} \\",
            " & ".join(map(latex, header)) + r" \\",
            r"\midrule",
            *(" & ".join(_latex_cell(*cell) for cell in row) + r" \\" for row in rows),
            r"\bottomrule",
            r"\end{tabular}",
            r"\par\medskip",
        ]
    return "\n".join([*lines, r"\end{table}", ""])


def to_csv(table):
    """One line a row, class and metric, in the units of the table, at full precision."""
    lines = [("method", "seeds", "labelled", "unlabelled", "class", "metric", "unit", "mean", "std",
              "undefined", "best", "tested", "p", "gap_closed", "low", "high")]  # fmt: skip
    for i, row in enumerate(table.rows):
        about = (row.label, len(row.runs), len(row.splits.labelled), len(row.splits.unlabelled))
        for metric in METRICS:
            for column in table.columns:
                cell = table.cells[metric][column][i]
                gap, interval = None, None
                if metric == "dsc":
                    gap, interval = table.gaps[column][i], table.intervals[column][i]
                factor = 100 if metric == "dsc" else 1
                values = [None if v is None else factor * v for v in (cell.mean, cell.std)]
                lines.append(
                    (*about, column, metric, UNITS[metric], *values, cell.undefined, int(cell.best),
                     int(i == table.tested), cell.p, gap, *(100 * x for x in interval or ()))
                )  # fmt: skip
    return csv_text(lines)


def cases_to_csv(table):
    """One line a run, case and class; DSC is a fraction, distances are in mm."""
    lines = [("run", "method", "seed", "patient", "case", "class", *METRICS)]
    for row in table.rows:
        for one in row.runs:
            cases = one.entry["cases"]
            for patient, case in zip(patients_of(row), sorted(cases), strict=True):
                about = (one.run.folder.name, row.label, one.seed, patient, case)
                for name, values in cases[case].items():
                    lines.append((*about, name, *(values[metric] for metric in METRICS)))
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
    """Text with the characters escaped that mean something to LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def percent(fraction):
    return NONE if fraction is None else f"{100 * fraction:.0f} %".replace("-", "−")


def _interval(interval):
    return NONE if interval is None else "{:.1f} to {:.1f}".format(*(100 * x for x in interval))


def show_p(p):
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(text):
    return text, False, False


def _heading(column):
    return "Mean" if column == MEAN else column


def _marked(metric, cell):
    if cell.mean is None:
        text = NONE
    else:
        factor = 100 if metric == "dsc" else 1
        text = f"{factor * cell.mean:.2f}"
        text += "" if cell.std is None else f" ({factor * cell.std:.2f})"
    text += f" [{cell.undefined}]" if cell.undefined else ""
    return text, cell.best, cell.significant


def _latex_cell(text, best, significant):
    text = latex(text)
    return rf"\textbf{{{text}}}" if best else text + "$^{*}$" * significant
