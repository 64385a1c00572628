"""Whether the probabilities of the rows say how often they are right: the ECE and its diagram."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mijax.inference.reliability import BINS, REGIONS
from mijax.report.chance import interval, patients_of, resampled_means
from mijax.report.figures import styles

_FEW = 100  # voxels of a bin that is not drawn


class Errors(NamedTuple):
    """The ECE of a row in a region, a fraction: mean over cases, and as of ``statistics.Cell``."""

    by_seed: np.ndarray
    interval: tuple[float, float] | None


def errors_of(row, place):
    """``{region: Errors}``, None of a region without; empty of a row without any.

    Args:
      row: ``runs.Row``.
      place: of it in its table.
    """
    if not _is_known(row):
        return {}
    found = {}
    for region in REGIONS:
        values = np.array([_of_cases(one.entry, region) for one in row.runs], float)
        if np.isnan(values).all(1).any():
            found[region] = None
            continue
        samples = resampled_means(values, patients_of(row), row=place)
        found[region] = Errors(np.nanmean(values, 1), interval(samples))
    return found


def case_errors(entry, case):
    """ECE of a case in each region; None where there is none."""
    known = entry.get("calibration") or {}
    return [known.get(region, {}).get("cases", {}).get(case) for region in REGIONS]


def _of_cases(entry, region):
    known = entry["calibration"][region]["cases"]
    return [known.get(case) for case in sorted(entry["cases"])]


def _is_known(row):
    return all(one.entry.get("calibration") for one in row.runs)


def reliability_diagram(rows):
    """Accuracy over probability, of the voxels of all cases and seeds; None where there is none."""
    known = [i for i, row in enumerate(rows) if _is_known(row)]
    if not known:
        return None
    figure = Figure(figsize=(6.8, 3.9 + 0.14 * (len(known) // 2)), layout="constrained")
    axes = figure.subplots(1, len(REGIONS), sharey=True)
    looks = styles(rows)
    for ax, region in zip(axes, REGIONS, strict=True):
        ax.plot([0, 100], [0, 100], color="#808080", lw=0.8, zorder=1)
        for i in known:
            probability, accuracy = 100 * _pooled(rows[i], region)
            ax.plot(
                probability, accuracy, marker="o", ms=2.5, lw=1.2, label=rows[i].label, **looks[i]
            )
        ax.set(xlim=(0, 100), ylim=(0, 100), aspect="equal")
        ax.set_xlabel("probability of the class (%)")
    axes[0].set_title("All voxels")
    axes[1].set_title("Foreground")
    axes[0].set_ylabel("accuracy (%)")
    if len(rows) > 1:
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def _pooled(row, region):
    """(2, bins): mean probability and accuracy of the bins with enough voxels."""
    parts = [one.entry["calibration"][region] for one in row.runs]
    counts = np.array([part["voxels"] for part in parts], float)
    total = counts.sum(0)
    values = [
        (counts * np.nan_to_num(np.array([part[name] for part in parts], float))).sum(0)
        for name in ("probability", "accuracy")
    ]
    used = total >= min(_FEW, total.sum() / BINS)
    return np.stack(values)[:, used] / total[used]
