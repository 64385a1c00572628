"""The picture of a selection: each chosen patient, and beside it those that it stands for."""

import io

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mijax.errors import counted
from mijax.files import write_atomically
from mijax.report.figures import STYLE, wrapped
from mijax.report.pictures import turned

_ROWS, _BESIDE, _INCHES = 24, 5, 1.5


def draw(path, selection, slices):
    """Writes the picture, in one piece: the middle slice of a scan of each patient.

    Args:
      path: of the PNG file.
      selection: ``Selection``; of many patients the first 24 are shown.
      slices: case name -> (n, h, w, c).
    """
    with rc_context(STYLE):
        figure = make_figure(selection, slices)
        content = io.BytesIO()
        FigureCanvasAgg(figure).print_png(content)
    write_atomically(path, content.getvalue())


def make_figure(selection, slices):
    """A row a chosen patient: its middle slice, then those of up to five it stands for."""
    scans, index = selection.candidates.scans, selection.candidates.index
    chosen = selection.chosen[:_ROWS]
    columns = 1 + max(min(_BESIDE, len(selection.stands_for[patient])) for patient in chosen)
    figure = Figure(
        figsize=(_INCHES * columns + 0.3, (_INCHES + 0.45) * len(chosen)), layout="constrained"
    )
    axes = figure.subplots(len(chosen), columns, squeeze=False)
    for rank, (patient, line) in enumerate(zip(chosen, axes, strict=True), start=1):
        near = selection.stands_for[patient]
        for ax, shown in zip(line, [patient, *near], strict=False):
            (own,), (other,) = index([patient]), index([shown])
            image = slices(scans[shown][0])
            middle = image[len(image) // 2, ..., 0]
            low, high = np.percentile(middle, (0.5, 99.5))
            high = high if high > low else low + 1
            ax.imshow(turned(middle), cmap="gray", vmin=low, vmax=high)
            below = f"distance {selection.distances[own, other]:.2f}"
            if shown == patient:
                below = f"for {counted(len(near), 'other')}" if near else "for itself"
            title = f"{rank}. {shown}" if shown == patient else shown
            ax.set_title(wrapped(title, 22), fontsize=7, fontweight="normal")
            ax.set_xlabel(below, fontsize=7)
        for ax in line:
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            ax.spines[:].set_visible(False)
        for ax in line[1 + len(near) :]:
            ax.remove()
        line[0].spines[:].set(visible=True, color="#D55E00", linewidth=2)
    return figure
