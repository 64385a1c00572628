"""How stable the order of the rows is when patients are drawn anew.

Reference: Wiesenfarth et al., "Methods and open-source toolkit for analyzing and visualizing
challenge results", Scientific Reports 11, 2021 (challengeR), whose blob plot this is.
"""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mijax.report.figures import LINE, styles, wrapped
from mijax.report.gaps import competitors
from mijax.report.values import MEAN

_TINY = 1e-12  # differences of rounding


class Ranking(NamedTuple):
    """The ranks of rows by mean DSC in bootstrap samples, 1 the highest; rows alike share one.

    Attributes:
      places: of the rows in the table, the highest mean DSC first; of ``gaps.competitors``.
      shares: (rows, ranks) the part of the samples in which a row has a rank.
      median, low, high: (rows,) of the rank; 95 % of the samples are within low and high.
    """

    places: list
    shares: np.ndarray
    median: np.ndarray
    low: np.ndarray
    high: np.ndarray


def find_ranking(table):
    """The ``Ranking`` of a ``statistics.Table``; None of one row or of few patients."""
    cells = table.cells["dsc"][MEAN]
    places = [
        i
        for i in competitors(table.rows)
        if table.samples[i] is not None and cells[i].mean is not None
    ]
    if len(places) < 2:
        return None
    places.sort(key=lambda i: -cells[i].mean)
    samples = np.stack([table.samples[i] for i in places])
    samples = samples[:, ~np.isnan(samples).any(0)]
    ranks = 1 + (samples > samples[:, None] + _TINY).sum(1)
    shares = np.stack([(ranks == rank).mean(1) for rank in range(1, len(places) + 1)], 1)
    low, median, high = np.percentile(ranks, (2.5, 50, 97.5), axis=1, method="nearest")
    return Ranking(places, shares, median, low, high)


def blob_plot(table, ranking):
    """A line a row: at each rank a disc with the area of its share of the samples."""
    rows, looks = table.rows, styles(table.rows)
    labels = [wrapped(rows[i].label, 34) for i in ranking.places]
    count = len(labels)
    each = max(0.34, 0.1 + LINE * (1 + max(label.count("\n") for label in labels)))
    inch = min(0.5, 6 / count)  # between two ranks
    figure = Figure(figsize=(2.6 + inch * count, 0.7 + each * count), layout="constrained")
    ax = figure.subplots()
    largest = 72 * 0.9 * min(each, inch)  # points across
    for line, place in enumerate(ranking.places):
        ax.plot([ranking.low[line], ranking.high[line]], [line, line], color="#404040", lw=0.8)
        ax.scatter(
            np.arange(1, count + 1),
            np.full(count, line),
            s=largest**2 * ranking.shares[line],
            color=looks[place]["color"],
            lw=0,
            zorder=2,
        )
        ax.plot(ranking.median[line], line, marker="x", color="black", ms=4, mew=1, zorder=3)
    ax.set_yticks(range(count), labels)
    ax.set_xticks(range(1, count + 1))
    ax.set(xlim=(0.4, count + 0.6), ylim=(count - 0.4, -0.6), xlabel="rank by mean DSC")
    return figure
