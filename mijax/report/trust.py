"""What runs said of the scored cases without their annotation, beside the true scores."""

import numpy as np
from matplotlib.figure import Figure

from mijax.report.figures import styles
from mijax.report.values import case_means


def worst_first(excerpts, estimates):
    """Excerpts of cases, those of the lowest estimate first; in their order without any."""

    def lowest(excerpt):
        return min(of_row[excerpt.case].low for of_row in estimates.values())

    return sorted(excerpts, key=lowest) if estimates else excerpts


def scatter(rows, estimates):
    """The estimated DSC of each case and its interval, against its true DSC."""
    figure = Figure(figsize=(4.6, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.plot([0, 100], [0, 100], color="#808080", lw=0.8, zorder=1)
    lowest = 100.0
    for row, style in zip(rows, styles(rows), strict=True):
        if row.label not in estimates:
            continue
        of_row, true = estimates[row.label], _first_seed(row)
        dsc, low, high = 100 * np.array(list(of_row.values())).T
        ax.errorbar(
            dsc,
            [100 * true[name] for name in of_row],
            xerr=[dsc - low, high - dsc],
            fmt="o",
            ms=3.5,
            lw=0.7,
            alpha=0.8,
            color=style["color"],
            label=row.label,
        )
        lowest = min(lowest, low.min(), *(100 * true[name] for name in of_row))
    ax.set(xlabel="estimated DSC (%)", ylabel="true DSC (%)")
    ax.set(xlim=(lowest - 2, 100), ylim=(lowest - 2, 100), aspect="equal")
    if len(estimates) > 1:
        ax.legend(frameon=False)
    return figure


def risk_coverage(rows, estimates):
    """Mean of 1 − DSC over the part of the cases that the estimates trust most.

    Reference: Geifman, El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
    """
    figure = Figure(figsize=(5, 3.2), layout="constrained")
    ax = figure.subplots()
    for row, style in zip(rows, styles(rows), strict=True):
        if row.label not in estimates:
            continue
        of_row, true = estimates[row.label], _first_seed(row)
        scored = [name for name in of_row if not np.isnan(true[name])]
        risk = 100 * np.array([1 - true[name] for name in scored])
        by_estimate = risks(risk, np.array([of_row[name].dsc for name in scored]))
        coverage = 100 * np.arange(1, len(risk) + 1) / len(risk)
        label = f"{row.label}, AURC {by_estimate.mean():.1f} %"
        ax.plot(coverage, by_estimate, lw=1.4, label=label, **style)
        ax.plot(coverage, risks(risk, -risk), lw=0.9, color=style["color"], ls=":")
    ax.set(xlabel="cases kept (%)", ylabel="mean of 1 − DSC (%)", xlim=(0, 100))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False)
    return figure


def risks(risk, trusted):
    """(n,): mean risk of the 1, 2, …, n cases that are trusted most."""
    order = np.argsort(-trusted, kind="stable")
    return np.cumsum(risk[order]) / np.arange(1, len(risk) + 1)


def _first_seed(row):
    """True mean DSC of each case by the run that the estimates are of."""
    return case_means(row._replace(runs=row.runs[:1]))
