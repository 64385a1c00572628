"""DSC over the number of labels, of runs that have grown from one another."""

from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from mijax.errors import UserError
from mijax.runs.growth import noted_lineage


class Growth(NamedTuple):
    """The scores of a row and of what it has grown from, on the same cases.

    DSC is modelled as a line in log₂ of the number of labelled cases.

    Attributes:
      labelled: (n,) numbers of labelled cases, growing; of several seeds a number comes again.
      dsc: (n,) mean DSC in %.
      more: cases that the last growth has added, and the next is taken to add.
      gain: points of DSC that so many more are expected to bring.
      interval: 95 % interval of the gain, or None where three scores or fewer cannot say.
    """

    labelled: np.ndarray
    dsc: np.ndarray
    more: int
    gain: float
    interval: tuple[float, float] | None

    def line(self, labelled):
        """The modelled DSC in % at some numbers of labelled cases."""
        slope, level = np.polyfit(np.log2(self.labelled), self.dsc, 1)
        return level + slope * np.log2(labelled)


def find_growth(row, *, checkpoint):
    """The ``Growth`` of a row, or None where its runs have grown from none with a score."""
    points = set()
    for one in row.runs:
        if one.entry.get("mean_dsc") is not None:
            points.add((len(one.splits.labelled), 100 * one.entry["mean_dsc"]))
        for ancestor in _ancestors(one.run):
            if (dsc := ancestor.scores.get(checkpoint)) is not None and _alike(
                ancestor.terms.get(checkpoint, {}), one.entry
            ):
                points.add((ancestor.labelled, 100 * dsc))
    numbers = sorted({labelled for labelled, _ in points})
    if len(numbers) < 2:
        return None
    labelled, dsc = (np.array(v, float) for v in zip(*sorted(points), strict=True))
    more = numbers[-1] - numbers[-2]
    return Growth(labelled, dsc, more, *_expected(labelled, dsc, more))


def _alike(terms, entry):
    """Whether scores are of the same annotation, made in one way, as far as that was noted."""
    return all(entry.get(key, value) == value for key, value in terms.items())


def _ancestors(run):
    try:
        return noted_lineage(run)
    except UserError:  # a report does without an info.json
        return []


def _expected(labelled, dsc, more):
    """Gain of so many more labels by the line, and its 95 % interval or None."""
    from scipy.stats import t

    x = np.log2(labelled)
    slope, level = np.polyfit(x, dsc, 1)
    step = np.log2((labelled.max() + more) / labelled.max())
    freedom = len(x) - 2
    if freedom < 2:
        return float(slope * step), None
    spread = np.sqrt(np.sum((dsc - level - slope * x) ** 2) / freedom)
    error = spread / np.sqrt(np.sum((x - x.mean()) ** 2)) * t.ppf(0.975, freedom)
    return float(slope * step), (float((slope - error) * step), float((slope + error) * step))


def caption(rows, growths):
    """What the figure shows, and what is expected of more labels."""
    texts = []
    for row, growth in zip(rows, growths, strict=True):
        whose = f"{row.label}: " if len(rows) > 1 else ""
        text = f"{whose}the next {growth.more} are expected to bring {growth.gain:+.1f} points"
        if growth.interval:
            low, high = growth.interval
            text += f" (95 % interval {low:+.1f} to {high:+.1f})"
        else:
            text += f" ({len(growth.dsc)} scores, too few for an interval)"
        texts.append(text)
    return (
        "Mean DSC over the number of labelled cases: the runs that this one has grown from, on the "
        f"same cases. The line is straight in the logarithm of that number. By it, "
        f"{'; '.join(texts)}. Such curves flatten in the end: it is the most to hope for."
    )


def growth_curve(rows, growths, looks):
    """The figure: a dot a run, and the line with what the next labels are expected to bring.

    ``looks`` are of the rows, as in the other figures (``figures.styles`` of all rows).
    """
    figure = Figure(figsize=(5, 3), layout="constrained")
    ax = figure.subplots()
    for row, growth, style in zip(rows, growths, looks, strict=True):
        first, last = growth.labelled.min(), growth.labelled.max()
        seen, ahead = np.geomspace(first, last), np.geomspace(last, last + growth.more)
        ax.plot(growth.labelled, growth.dsc, "o", color=style["color"], ms=4, label=row.label)
        ax.plot(seen, growth.line(seen), color=style["color"], lw=1)
        ax.plot(ahead, growth.line(ahead), color=style["color"], lw=1, ls=":")
    ax.set_xscale("log", base=2)
    numbers = sorted({int(n) for growth in growths for n in growth.labelled})
    ax.set_xticks(numbers, map(str, numbers))
    ax.minorticks_off()
    ax.set(title="Mean over classes", xlabel="labelled cases", ylabel="DSC (%)")
    if len(rows) > 1:
        ax.legend(frameon=False)
    return figure
