"""The slices of a case that are shown as pictures."""

from typing import NamedTuple

import numpy as np

from mijax.data import native_slice
from mijax.data.patches import slice_volume


class Excerpt(NamedTuple):
    """A few slices of a case, as the network sees them; images and label maps are (n, h, w).

    Attributes:
      title: why the case was chosen.
      case: its name.
      axis: of RAS+ that the slices lie across.
      numbers: of the slices in the file, from 1.
      count: of all slices of the case.
      image: (n, h, w).
      truth: label maps of the annotator.
      labels: label maps of each row, or None for a row without a network.
      dsc: of the whole case, of each row.
      pixel: millimetres of a pixel along h and along w.
    """

    title: str
    case: str
    axis: int
    numbers: list
    count: int
    image: np.ndarray
    truth: np.ndarray
    labels: list
    dsc: list
    pixel: tuple[float, float]


def make_excerpt(title, volume, slices, labels, dsc):
    """The ``Excerpt`` of three slices of a case.

    Args:
      title, dsc: see there.
      volume: ``data.Volume`` with its label.
      slices: ``config.data.patches``, of slices.
      labels: label maps (x, y, z) of each row, or None.
    """
    cut = slice_volume(volume, slices, multiple=1)
    some = choose_slices(cut.label)
    return Excerpt(
        title=title,
        case=volume.name,
        axis=cut.grid.axis,
        numbers=[1 + index for index in native_slices(cut.grid, some)],
        count=len(cut.image),
        image=cut.image[some, ..., 0],
        truth=cut.label[some],
        labels=[
            None if one is None
            else slice_volume(thinned(volume, one, cut.grid, some), slices, multiple=1).label
            for one in labels
        ],
        dsc=dsc,
        pixel=shown_pixel_size(volume, cut.grid),
    )  # fmt: skip


def choose_slices(label):
    """Three slices at a quarter, half and three quarters of the annotated ones; fewer of few."""
    found = np.flatnonzero((label > 0).any((1, 2)))
    found = found if len(found) else np.arange(len(label))
    return list(dict.fromkeys(int(found[len(found) * i // 4]) for i in (1, 2, 3)))


def native_slices(grid, places):
    """Where slices lie along their axis of the volume as it came."""
    return [native_slice(grid, place)[-1].start for place in places]


def thinned(volume, label, grid, places):
    """The volume that is some slices alone of a volume, in order, with another label map."""
    axis = len(native_slice(grid, 0)) - 1
    indices = sorted(native_slices(grid, places))
    image, label = (values.take(indices, axis) for values in (volume.image, label))
    return volume._replace(image=image, label=label)


def shown_pixel_size(volume, grid):
    """Millimetres of a pixel of its slices along h and along w, as these were resized."""
    millimetres = volume.spacing[np.argsort([axis for axis, _ in grid.orientation])]
    in_plane = [mm for axis, mm in enumerate(millimetres) if axis != grid.axis]
    h, w = (mm * n / m for mm, n, m in zip(in_plane, grid.native, grid.size, strict=True))
    return float(h), float(w)
