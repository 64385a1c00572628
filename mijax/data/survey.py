"""What a folder of volumes looks like: grids from headers, intensities and classes from voxels."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np

from mijax.data.volume import UNLABELLED, Geometry, Volume, spacing_of

LEVELS = (0, 1, 50, 99, 100)  # percentiles of an image that are told
_EDGES = (0.5, 99.5)  # percentiles of what is labelled that a window must hold
_AIR = -500  # Hounsfield units; an image whose lowest values are below is taken for a CT
_SPAN = 50  # and at least, from the lowest value to the highest, of a CT by its name: else scaled


class Grids(NamedTuple):
    """Of n volumes, axes in the order of RAS+.

    Attributes:
      shape: (n, 3) voxels.
      spacing: (n, 3) millimetres.
      axcodes: (n,) where the axes of the files point, "LPS" or the like.
    """

    shape: np.ndarray
    spacing: np.ndarray
    axcodes: tuple[str, ...]


class Look(NamedTuple):
    """Of one volume.

    Attributes:
      levels: (c, 5) ``LEVELS`` of each channel.
      counts: (k + 1,) voxels of each class and of none; None where nobody annotated.
      edges: (c, 2) range of what is labelled, or None where nothing is.
    """

    levels: np.ndarray
    counts: np.ndarray | None
    edges: np.ndarray | None


def grids(geometries: Iterable[Geometry]) -> Grids:
    """The grids of some volumes."""
    rows = []
    for shape, _, affine in geometries:
        order = np.argsort(nib.io_orientation(affine)[:, 0])
        spacing = spacing_of(affine)
        rows.append((np.take(shape, order), spacing[order], "".join(nib.aff2axcodes(affine))))
    shapes, spacings, axcodes = zip(*rows, strict=True)
    return Grids(np.array(shapes), np.array(spacings), axcodes)


def look(volume: Volume, classes: int) -> Look:
    """Intensities and classes of a volume, of which there are so many."""
    channels = np.moveaxis(volume.image, 3, 0)
    levels = np.array([np.percentile(channel, LEVELS) for channel in channels])
    if volume.label is None:
        return Look(levels, None, None)
    counts = np.bincount(volume.label.ravel(), minlength=UNLABELLED + 1)
    counts = np.append(counts[:classes], counts[UNLABELLED])
    inside = (volume.label > 0) & (volume.label != UNLABELLED)
    edges = [np.percentile(c[inside], _EDGES) for c in channels] if inside.any() else None
    return Look(levels, counts, edges and np.array(edges))


def round_to_two(value: float, *, up: bool = False) -> float:
    """Two digits of a positive number."""
    step = 10.0 ** (np.floor(np.log10(value)) - 1)
    digits = np.ceil(value / step - 1e-9) if up else np.round(value / step)
    return float(f"{digits * step:.6g}")


def propose_window(looks: Sequence[Look], channels: Sequence[str]) -> tuple[float, float] | None:
    """A window of Hounsfield units about what is labelled; None where the images are no CT.

    A CT is known by the names of its channels, unless its values were scaled, or by the air in it.
    The window holds the range of the labelled voxels, 0.5 % at each end aside, and half of it again
    on both sides, so that what surrounds them is seen as well.
    """
    lowest, highest = np.median([found.levels[:, [0, -1]] for found in looks], axis=0).T
    named = {name.strip().upper() for name in channels} == {"CT"}
    named = named and (highest - lowest >= _SPAN).all()
    edges = [found.edges for found in looks if found.edges is not None]
    if not edges or not (named or (lowest < _AIR).all()):
        return None
    low, high = np.median(edges, axis=0)[:, 0].min(), np.median(edges, axis=0)[:, 1].max()
    if not low < high:
        return None
    margin = (high - low) / 2
    return float(np.floor((low - margin) / 10) * 10), float(np.ceil((high + margin) / 10) * 10)
