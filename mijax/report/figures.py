"""Figures of what the runs wrote: learning curves, and the DSC of every case."""

import itertools
import json
import textwrap

import numpy as np
from matplotlib.figure import Figure

from mijax import methods
from mijax.methods import FULL, PARTIAL
from mijax.report.values import MEAN, case_scores

# Of the rows, in their order: Okabe and Ito's, told apart by people of every colour vision, without
# their yellow, which paper does not show, then Tol's muted ones.
_COLOURS = (
    "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00",
    "#882255", "#999933", "#332288", "#44AA99", "#AA4499", "#117733", "#661100",
)  # fmt: skip
_BASELINES = {FULL: "#000000", PARTIAL: "#808080"}
_DASHES = ("-", "--", ":", "-.")
# Of classes, on grey pictures: none is that of a row.
CLASS_COLOURS = ("#FFE600", "#00F0FF", "#FF5CF4", "#7CFF2B", "#FF6A5E", "#A79BFF")
LINE = 0.14  # inches of a line of text
STYLE = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "text.parse_math": False,  # a class may be called "$x$"
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "figure.dpi": 150,
    "pdf.fonttype": 42,  # letters that can be edited and searched
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}
_QUANTITIES = {  # of the trainer, in this order, before those of the methods
    "validation_dsc_percent": "Validation DSC (%)",
    "loss": "Loss",
    "supervised": "Loss of the labelled slices",
    "teacher_consistency": "Consistency with a teacher",
}
_IGNORED = {"learning_rate"}


def styles(rows):
    """Line colour and dash of each row: black and grey of the baselines, the others in turn."""
    baselines, others = dict(_BASELINES), itertools.cycle(itertools.product(_DASHES, _COLOURS))
    found = []
    for row in rows:
        own = baselines.pop(row.base, None)
        dash, colour = ("-", own) if own else next(others)
        found.append({"color": colour, "linestyle": dash})
    return found


def learning_curves(rows):
    """Every logged quantity over the steps: mean over seeds, and their range as a band.

    Returns:
      A figure, or None where no run has a log.
    """
    logs = [[_read_log(one.run.folder / "metrics.jsonl") for one in row.runs] for row in rows]
    logged = {name for row in logs for log in row for name in log}
    titles = _titles(rows)
    names = [name for name in titles if name in logged] + sorted(logged - titles.keys())
    names.sort(key=lambda name: not name.startswith("validation_"))
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    width, labels = 3.4 * columns, [wrapped(row.label, 60) for row in rows]
    longest = max(len(line) for label in labels for line in label.split("\n"))
    beside = min(4, len(rows), max(1, int(width / (0.6 + 0.065 * longest))))  # in the legend
    legend = LINE * sum(1.2 + label.count("\n") for label in labels) / beside
    figure = Figure(figsize=(width, 2.4 * lines + 0.3 + legend), layout="constrained")
    figure.get_layout_engine().set(hspace=0.06)  # between a title and the axis above it
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    handles = {}
    for ax, name in zip(axes, names, strict=False):
        for label, row_logs, style in zip(labels, logs, styles(rows), strict=True):
            curves = [log[name] for log in row_logs if name in log]
            if not curves:
                continue
            steps = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = np.array([[curve[step] for step in steps] for curve in curves])
            marker = "o" if len(steps) < 12 else None
            (line,) = ax.plot(
                steps, values.mean(0), **style, lw=1.4, marker=marker, ms=2.5, label=label
            )
            if len(curves) > 1:
                ax.fill_between(
                    steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0
                )
            handles.setdefault(label, line)
        ax.set_title(titles.get(name, (name[0].upper() + name[1:]).replace("_", " ")))
        ax.set_xlabel("step")
    for ax in axes[len(names) :]:
        ax.remove()
    if len(rows) > 1:
        figure.legend(
            handles=list(handles.values()), loc="outside lower center", ncols=beside, frameon=False
        )
    return figure


def _titles(rows):
    """Titles of what the trainer and the methods of some rows log, by name and in order."""
    titles = dict(_QUANTITIES)
    for method in dict.fromkeys(row.config.method.name for row in rows):
        for name, quantity in methods.quantities(method).items():
            titles.setdefault(name, quantity.heading)
            heading = quantity.heading
            titles.setdefault(f"validation_{name}", f"Validation {heading[0].lower()}{heading[1:]}")
    return titles


def case_strips(table):
    """The DSC of every case: a strip a row, the cases of neighbouring rows joined."""
    rows, columns = table.rows, table.columns
    if len(columns) > 5 or len(columns) == 2:  # one class is its own mean
        columns = (MEAN,)
    scores = [100 * case_scores(row) for row in rows]
    picks = [table.columns.index(column) for column in columns]
    labels = [wrapped(row.label, 34) for row in rows]
    each = max(0.42, 0.12 + LINE * (1 + max(label.count("\n") for label in labels)))
    figure = Figure(
        figsize=(1.6 + max(2.6 * len(columns), 5), 0.8 + each * len(rows)), layout="constrained"
    )
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False).ravel()
    cases = len(scores[0])
    # Each case has its own height within a strip, so that its dots lie above one another.
    offsets = np.linspace(-0.22, 0.22, cases) if cases > 1 else np.zeros(1)
    heights = np.arange(len(rows))[:, None] + offsets
    for ax, column, pick in zip(axes, columns, picks, strict=True):
        values = np.array([s[:, pick] for s in scores])
        ax.plot(values, heights, color="#b0b0b0", lw=0.5, alpha=0.6, zorder=1)
        for i, style in enumerate(styles(rows)):
            ax.scatter(values[i], heights[i], s=13, color=style["color"], alpha=0.8, lw=0, zorder=2)
            scored = values[i][~np.isnan(values[i])]
            median = np.median(scored) if len(scored) else np.nan
            ax.plot([median] * 2, [i - 0.36, i + 0.36], color="white", lw=4, zorder=3)
            ax.plot([median] * 2, [i - 0.36, i + 0.36], color=style["color"], lw=2, zorder=4)
        ax.set_title("Mean over classes" if column == MEAN else column)
        ax.set_xlabel("DSC (%)")
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), labels)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def wrapped(text, width):
    """A text over several lines of so many characters, broken at blanks."""
    return "\n".join(textwrap.wrap(text, max(width, 8), break_on_hyphens=False))


def _read_log(path):
    """``{quantity: {step: value}}``; whole lines only, none of a log that is not there.

    Of a "whole/part" only the whole.
    """
    found = {}
    if not path.exists():
        return found
    for line in path.read_bytes().splitlines():
        try:
            values = json.loads(line)
            step = values.pop("step")
        except (ValueError, KeyError, AttributeError):
            continue  # half a line of a killed run
        for name, value in values.items():
            if name not in _IGNORED and "/" not in name:
                found.setdefault(name, {})[step] = value
    return found
