"""What runs said of the scored cases without their annotation, beside the true scores."""

import numpy as np
from matplotlib.figure import Figure

from mijax.report.figures import styles
from mijax.report.statistics import case_means


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
        of_row, true = estimates[row.label], case_means(row)
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
