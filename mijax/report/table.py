"""The table of a report as Markdown, CSV and LaTeX, and its cases as CSV."""

import csv
import io

from mijax.inference.scores import METRICS
from mijax.report.statistics import LEAST_PATIENTS, MEAN, SIGNIFICANT, patients_of

UNITS = {"dsc": "%", "hd95": "mm", "assd": "mm"}
NAMES = {"dsc": "DSC", "hd95": "HD95", "assd": "ASSD"}
NONE = "–"
AGAINST = "p of the one-sided paired t-test of the mean DSC over patients"

_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    **{c: "\\" + c for c in "&%$#_{}"}, "–": "--", "−": "$-$", "×": r"$\times$",
    "<": "$<$", ">": "$>$",
}  # fmt: skip


def grids(table):
    """The parts of the table, as ``(title, header, rows of cells)``; cells are of text.

    A cell is ``(text, best, significant)``; the first of each row is the label.
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
    """The p values of the DSC, as ``(header, rows of text)``; None where there is no test."""
    if all(cell.p is None for cells in table.cells["dsc"].values() for cell in cells):
        return None
    rows = []
    for i, row in enumerate(table.rows):
        cells = [table.cells["dsc"][column][i] for column in table.columns]
        rows.append([row.label, *("best" if c.best else show_p(c.p) for c in cells)])
    return ["Method", *map(_heading, table.columns)], rows


def against(table):
    """The p values against named rows, as ``(header, rows of text)``; None where none is named."""
    if not table.against:
        return None
    rows = [
        [row.label, *(show_p(found[i]) for found in table.against.values())]
        for i, row in enumerate(table.rows)
    ]
    return ["Method", *(f"better than {label}" for label in table.against)], rows


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
        sentences.append(_about_tests(len(set(patients_of(table.rows[0])))))
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
    return " ".join(sentences)


def _about_tests(patients):
    if patients < LEAST_PATIENTS:
        return f"No t-test: it takes {LEAST_PATIENTS} patients, and there are {patients}."
    return (
        f"* p < {SIGNIFICANT} in a one-sided paired t-test against it, over patients whose scores "
        "were averaged over seeds and scans first: the row is worse than the best (full "
        "supervision: better). p values are not corrected for the number of tests, and say nothing "
        "about other draws of the labelled cases."
    )


def to_markdown(table, *, checkpoint):
    lines = []
    for title, header, rows in grids(table):
        texts = [
            [f"**{text}**" if best else text + r"\*" * star for text, best, star in row]
            for row in rows
        ]
        lines += [f"**{title}**", "", *markdown_lines(header, texts), ""]
    tests = p_values(table)
    if tests:
        lines += ["**p of the t-test against the best, DSC**", "", *markdown_lines(*tests), ""]
    if named := against(table):
        lines += [f"**{AGAINST}**", "", *markdown_lines(*named), ""]
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
              "undefined", "best", "p", "gap_closed", "low", "high")]  # fmt: skip
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
                     cell.p, gap, *(100 * x for x in interval or ()))
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
