"""The figure of a case: its slices with the contours of every row and of the annotation."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from mijax.report.figures import CLASS_COLOURS, wrapped
from mijax.report.pictures import turned

_HALO = 1.2  # points of black beside a line: seen on bright tissue, as its colour is on dark
_DASHES = (0, (2.5, 2))
_GAP, _BETWEEN, _MARGIN = 0.04, 0.3, 0.05  # inches between slices, between blocks, around all
_LINE = 0.15  # inches of a line of text
_SIDES = (("R", "L"), ("A", "P"), ("S", "I"))  # where x, y and z of RAS+ are high, and low


def contours(chosen, rows, classes, *, estimates=None):
    """Slices of a case: a block with the annotation, then one a row with that beside (Fig. 2).

    Args:
      chosen: ``excerpts.Excerpt``.
      rows: of ``runs.Row``.
      classes: names, background first.
      estimates: of ``predictions.Predictions``, or None.
    """
    blocks = [("Annotation", chosen.truth)]
    for row, labels, dsc in zip(rows, chosen.labels, chosen.dsc, strict=True):
        if labels is not None:
            known = (estimates or {}).get(row.label)
            text = f", estimated {_interval(known[chosen.case])}" if known else ""
            blocks.append((f"{row.label} · DSC {_percent(dsc)}{text}", labels))
    box = _around([labels for _, labels in blocks])
    images = chosen.image[:, *box]
    columns = 1 if len(blocks) <= 3 else 2
    height, width = _panel(images.shape[1:], chosen.pixel, 2.6 if columns == 1 else 1.75)
    across = len(images) * (width + _GAP) - _GAP
    titles = [wrapped(title, int(15 * across)) for title, _ in blocks]
    above = _LINE * (1 + max(title.count("\n") for title in titles)) + 0.04
    legend = _legend_lines(classes, columns * across)
    size = (
        columns * across + (columns - 1) * _BETWEEN + 2 * _MARGIN,
        -(-len(blocks) // columns) * (height + above + 0.1) + _LINE * 1.3 * legend + 2 * _MARGIN,
    )
    figure = Figure(figsize=size)
    window = np.percentile(images, [0.5, 99.5])
    for i, ((_, labels), title) in enumerate(zip(blocks, titles, strict=True)):
        line, column = divmod(i, columns)
        top = size[1] - _MARGIN - line * (height + above + 0.1)
        left = _MARGIN + column * (across + _BETWEEN)
        figure.text(left / size[0], (top - above + 0.04) / size[1], title, va="bottom")
        for j, image in enumerate(images):
            place = (left + j * (width + _GAP), top - above - height, width, height)
            ax = figure.add_axes(np.divide(place, (*size, *size)))
            _draw_image(ax, image, chosen, j, window)
            if labels is not chosen.truth:
                _draw_labels(ax, chosen.truth[j][box], chosen.pixel, len(classes), truth=True)
            _draw_labels(ax, labels[j][box], chosen.pixel, len(classes))
    _add_legend(figure, classes, legend)
    return figure


def _draw_image(ax, image, chosen, j, window):
    """A slice in millimetres, with its number, the sides of the patient and a scale bar."""
    height, width = np.multiply(image.shape, chosen.pixel)[::-1]
    low, high = window
    ax.imshow(
        turned(image),
        cmap="gray",
        vmin=low,
        vmax=high if high > low else low + 1,
        extent=(0, width, height, 0),
        aspect="auto",
    )
    ax.set_axis_off()
    ax.autoscale(False)  # outlines reach beyond the edge by their frame
    (left, right), (top, bottom) = (s for axis, s in enumerate(_SIDES) if axis != chosen.axis)
    bar = _round_length(width / 3)
    ends = (0.96 * width - bar, 0.96 * width)
    halo = [withStroke(linewidth=2, foreground="black")]
    ax.plot(ends, [0.95 * height] * 2, color="white", lw=1.5, path_effects=halo)
    number = f"{chosen.numbers[j]} / {chosen.count}"
    for x, y, text, across, up in (
        (0.02, 0.5, left, "left", "center"),
        (0.98, 0.5, right, "right", "center"),
        (0.5, 0.02, top, "center", "top"),
        (0.5, 0.98, bottom, "center", "bottom"),
        (0.02, 0.02, number, "left", "top"),
        (0.96, 0.93, f"{bar:g} mm", "right", "bottom"),
    ):
        ax.text(
            x * width, y * height, text, ha=across, va=up, size=6.5, color="white",
            path_effects=halo,
        )  # fmt: skip


def _draw_labels(ax, labels, pixel, classes, *, truth=False):
    """The outline of each class, on black; that of the annotation in white dashes."""
    for value in range(1, classes):
        # A frame of zeros closes outlines at the edge of the picture.
        mask = np.pad(turned(labels) == value, 1).astype(float)
        if not mask.any():
            continue
        x, y = ((np.arange(n) - 0.5) * mm for n, mm in zip(mask.shape[::-1], pixel, strict=True))
        colour, dashes, width = ("white", _DASHES, 0.9) if truth else (_colour(value), "-", 1.3)
        ax.contour(x, y, mask, [0.5], colors="black", linewidths=width + _HALO)
        ax.contour(x, y, mask, [0.5], colors=colour, linestyles=[dashes], linewidths=width)


def _add_legend(figure, classes, lines):
    halo = [withStroke(linewidth=1.3 + _HALO, foreground="black")]
    handles = [
        Line2D([], [], color=_colour(value), lw=1.3, path_effects=halo, label=name)
        for value, name in enumerate(classes[1:], start=1)
    ]
    black = Line2D([], [], color="black", lw=0.9 + _HALO)
    white = Line2D([], [], color="white", lw=0.9, linestyle=_DASHES)
    figure.legend(
        [*handles, (black, white)],
        [*classes[1:], "annotation"],
        loc="lower left",
        bbox_to_anchor=(0, 0),
        ncols=-(-len(classes) // lines),
        frameon=False,
        borderpad=0.2,
        labelspacing=0.3,
    )


def _legend_lines(classes, width):
    """Lines that a legend of so many inches takes."""
    each = 0.6 + 0.075 * max(map(len, [*classes[1:], "annotation"]))
    return math.ceil(len(classes) / max(1, int(width / each)))


def _colour(value):
    return CLASS_COLOURS[(value - 1) % len(CLASS_COLOURS)]


def _percent(dsc):
    return "–" if np.isnan(dsc) else f"{100 * dsc:.1f} %"


def _interval(estimate):
    dsc, low, high = (100 * x for x in estimate)
    return f"{dsc:.1f} % ({low:.0f} to {high:.0f})"


def _panel(shape, pixel, inches):
    """Height and width in inches of a slice (h, w) as it is turned, of its true proportions."""
    across, down = np.multiply(shape, pixel)
    height = min(inches * down / across, 1.4 * inches)
    return height, height * across / down


def _round_length(most):
    """1, 2 or 5 of a power of ten, the largest that is not above ``most``."""
    power = 10.0 ** math.floor(math.log10(most))
    return power * max(step for step in (1, 2, 5) if step * power <= most)


def _around(stacks):
    """The box around all foreground of label maps (n, h, w); whole slices without any."""
    found = np.any([labels > 0 for labels in stacks], axis=(0, 1))
    if not found.any():
        return slice(None), slice(None)
    box = []
    for axis in (0, 1):
        places = np.flatnonzero(found.any(1 - axis))
        room = max(4, round(0.35 * (places[-1] - places[0] + 1)))
        box.append(slice(max(0, places[0] - room), places[-1] + 1 + room))
    return tuple(box)
