"""Figures of what the runs wrote: learning curves, and the DSC of every case."""

import json

import numpy as np
from matplotlib.figure import Figure

from mijax.report.runs import ORDER
from mijax.report.statistics import MEAN, case_scores

# Okabe and Ito's, told apart by people of every colour vision; without its yellow, which paper
# does not show. The same row of the paper has the same colour in every report.
_COLOURS = ("#000000", "#808080", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")
_DASHES = ("-", "--", ":", "-.")
CLASS_COLOURS = ("#D55E00", "#56B4E9", "#F0E442", "#009E73", "#CC79A7", "#E69F00")
STYLE = {
    "font.size": 8,
    "font.family": "DejaVu Sans",  # comes with matplotlib
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
    "savefig.bbox": "tight",
    "savefig.pad_inches": 0.05,
}
_QUANTITIES = {  # of metrics.jsonl, with how it is called and in which unit, in this order
    "validation_dsc": "Validation DSC (%)",
    "loss": "Loss",
    "cross_entropy": "Cross-entropy (nats)",
    "mutual_information": "Mutual information (nats)",
    "consistency": "Consistency",
    "entropy": "Entropy (nats)",
}
_IGNORED = {"learning_rate"}


def styles(rows):
    """Line colour and dash of each row."""
    taken, found = [], []
    for row in rows:
        colour = _COLOURS[ORDER.index(row.base)] if row.base in ORDER else None
        if colour is None or colour in taken:
            free = [c for c in _COLOURS[2:] if c not in taken]
            colour = free[-1] if free else _COLOURS[len(taken) % len(_COLOURS)]
        found.append({"color": colour, "linestyle": _DASHES[taken.count(colour) % len(_DASHES)]})
        taken.append(colour)
    return found


def learning_curves(rows):
    """Every logged quantity over the steps: mean over seeds, and their range as a band.

    Returns:
      A figure, or None where no run has a log.
    """
    logs = [[_read_log(one.run.folder / "metrics.jsonl") for one in row.runs] for row in rows]
    logged = {name for row in logs for log in row for name in log}
    others = sorted(logged - _QUANTITIES.keys() - _IGNORED)
    names = [name for name in _QUANTITIES if name in logged] + others
    if not names:
        return None
    columns = min(3, len(names))
    lines = -(-len(names) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.4 * lines + 0.5), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    handles = {}
    for ax, name in zip(axes, names, strict=False):
        for row, row_logs, style in zip(rows, logs, styles(rows), strict=True):
            curves = [log[name] for log in row_logs if name in log]
            if not curves:
                continue
            steps = sorted(set.intersection(*(set(curve) for curve in curves)))
            values = np.array([[curve[step] for step in steps] for curve in curves])
            values *= 100 if name == "validation_dsc" else 1
            marker = "o" if len(steps) < 12 else None
            (line,) = ax.plot(
                steps, values.mean(0), **style, lw=1.4, marker=marker, ms=2.5, label=row.label
            )
            if len(curves) > 1:
                ax.fill_between(
                    steps, values.min(0), values.max(0), color=style["color"], alpha=0.15, lw=0
                )
            handles.setdefault(row.label, line)
        ax.set_title(_QUANTITIES.get(name, name.replace("_", " ").capitalize()))
        ax.set_xlabel("step")
    for ax in axes[len(names) :]:
        ax.remove()
    if len(rows) > 1:
        columns = 4 if max(map(len, handles)) < 30 else 1
        figure.legend(
            handles=list(handles.values()), loc="outside lower center", ncols=columns, frameon=False
        )
    return figure


def case_strips(table):
    """The DSC of every case: a strip a row, the cases of neighbouring rows joined."""
    rows, columns = table.rows, table.columns
    if len(columns) > 5 or len(columns) == 2:  # one class is its own mean
        columns = (MEAN,)
    scores = [100 * case_scores(row) for row in rows]
    picks = [table.columns.index(column) for column in columns]
    figure = Figure(
        figsize=(1.6 + max(2.6 * len(columns), 5), 0.8 + 0.42 * len(rows)), layout="constrained"
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
            median = np.median(values[i])
            ax.plot([median] * 2, [i - 0.36, i + 0.36], color="white", lw=4, zorder=3)
            ax.plot([median] * 2, [i - 0.36, i + 0.36], color=style["color"], lw=2, zorder=4)
        ax.set_title("Mean over classes" if column == MEAN else column)
        ax.set_xlabel("DSC (%)")
        ax.grid(axis="y", visible=False)
    axes[0].set_yticks(range(len(rows)), [_wrapped(row.label) for row in rows])
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure


def _wrapped(label, width=34):
    """A long label over several lines, broken behind commas."""
    lines = [""]
    for part in label.split(", "):
        joined = f"{lines[-1]}, {part}" if lines[-1] else part
        if len(joined) <= width or not lines[-1]:
            lines[-1] = joined
        else:
            lines.append(part)
    return "\n".join(lines)


def _read_log(path):
    """``{quantity: {step: value}}``; whole lines only, none of a log that is not there."""
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
            if name not in _IGNORED:
                found.setdefault(name, {})[step] = value
    return found
