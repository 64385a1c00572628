"""Volumes found and annotated: the plot of Bland and Altman.

Reference: Bland, Altman, Lancet 327, 1986.
"""

import numpy as np
from matplotlib.figure import Figure

from mijax.inference.scores import VOLUME
from mijax.report.chance import LEAST_PATIENTS, patients_of
from mijax.report.figures import styles, wrapped
from mijax.report.values import values_of

CLASSES = 6  # that are drawn, at most
_LIMITS = 1.96  # standard deviations, of 95 % of a normal distribution


def bland_altman(table):
    """The error of a volume over the mean of the two volumes, a panel a row and class.

    Returns:
      A figure, or None where no case shows a class.
    """
    unseen = set(table.unseen)
    classes = [(k, c) for k, c in enumerate(table.columns[:-1]) if c not in unseen][:CLASSES]
    if not classes:
        return None
    width = max(1.9, min(3, 7.5 / len(classes)))
    figure = Figure(figsize=(0.4 + width * len(classes), 0.4 + 1.45 * len(table.rows)),
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(len(table.rows), len(classes), squeeze=False, sharex="col", sharey="col")
    looks = styles(table.rows)
    for line, row in enumerate(table.rows):
        # A dot is a case and seed: the mean of several networks would be nearer.
        true, errors = (
            values_of(row, name).reshape(-1, len(table.columns) - 1)
            for name in (VOLUME, "volume_error")
        )
        patients = np.array(patients_of(row) * len(row.runs))
        for ax, (k, name) in zip(axes[line], classes, strict=True):
            _panel(ax, true[:, k], errors[:, k], patients, looks[line]["color"])
            if line == 0:
                ax.set_title(name)
            if line == len(table.rows) - 1:
                ax.set_xlabel("mean volume (ml)")
        axes[line, 0].set_ylabel("error (ml)")
        if len(table.rows) > 1:
            label = wrapped(row.label, int(1.3 * 14))
            axes[line, -1].annotate(
                label, (1.03, 0.5), xycoords="axes fraction", va="center", fontsize=7
            )
    return figure


def has_limits(patients):
    """Whether there are enough of them for limits of agreement."""
    return len(set(patients)) >= LEAST_PATIENTS


def _panel(ax, true, errors, patients, colour):
    known = ~np.isnan(errors)
    errors, mean = errors[known], true[known] + errors[known] / 2
    ax.axhline(0, color="#808080", lw=0.8, zorder=1)
    ax.scatter(mean, errors, s=11, color=colour, alpha=0.8, lw=0, zorder=3)
    if not len(errors):
        return
    bias = errors.mean()
    ax.axhline(bias, color=colour, lw=1.2, zorder=2)
    numbers = _digits(bias, "+")
    if has_limits(patients[known]):
        half = _LIMITS * errors.std(ddof=1)
        for limit in (bias - half, bias + half):
            ax.axhline(limit, color=colour, lw=0.9, ls="--", zorder=2)
        numbers += f" ± {_digits(half)}"
    ax.set_title(numbers.replace("-", "−"), loc="right", fontsize=7, fontweight="normal", pad=3)


def _digits(value, sign="-"):
    """Two digits of a volume, or all that are before the point."""
    return f"{value:{sign}.0f}" if abs(value) >= 10 else f"{value:{sign}.2g}"
