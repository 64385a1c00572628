"""What a folder of volumes looks like: grids from headers, intensities and classes from voxels."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import nibabel as nib
import numpy as np

from mijax.data.slices import PLANES, slice_shape
from mijax.data.volume import UNLABELLED, Geometry, Volume, spacing_of

LEVELS = (0, 1, 50, 99, 100)  # percentiles of an image that are told
_EDGES = (0.5, 99.5)  # percentiles of what is labelled that a window must hold
_MULTIPLE = 16  # of sizes: the stride of a network of five levels
_LARGEST = 512  # pixels along a proposed slice
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


def propose_slices(
    geometries: Mapping[str, Geometry],
    *,
    plane: str,
    spacing: float | None = None,
    dims: int = 2,
    depth_spacing: float | None = None,
    stride: Sequence[int] = (1,),
) -> tuple[tuple[int, ...], float | None]:
    """A size that holds every slice, or every volume, whole, and the spacing it is at.

    Pixels stay as they are where all are of one size, to a tenth, and no slice is larger than 512
    of them; else the spacing is the median one, or as much more as that takes.

    Args:
      geometries: by case.
      plane: of the slices.
      spacing: where it is given already.
      dims, depth_spacing: see ``slices.to_slices``.
      stride: of a network, that sizes have to be multiples of; one number or one an axis.

    Returns:
      (h, w) or (d, h, w), multiples of 16 as well; and millimetres, or None for the native ones.
    """

    def largest(spacing):
        options = {"plane": plane, "dims": dims, "depth_spacing": depth_spacing}
        shapes = [
            slice_shape(name, shape, affine, spacing=spacing, **options)
            for name, (shape, _, affine) in geometries.items()
        ]
        return np.max(shapes, axis=0)

    most = largest(spacing)
    in_plane = np.delete(grids(geometries.values()).spacing, PLANES.index(plane), axis=1)
    median = float(np.median(in_plane))
    if spacing is None and not np.allclose(in_plane, median, rtol=0.1):
        spacing = round_to_two(median)
        most = largest(spacing)
    if max(most[-2:]) > _LARGEST:
        spacing = round_to_two((spacing or median) * max(most[-2:]) / _LARGEST, up=True)
        most = largest(spacing)
    multiple = np.lcm(stride, _MULTIPLE)
    return tuple((-(-most // multiple) * multiple).tolist()), spacing


def slice_flags(geometries: Mapping[str, Geometry], **options) -> str:
    """What ``propose_slices`` proposes, to paste into a command."""
    size, spacing = propose_slices(geometries, **options)
    given = ",".join(map(str, size))
    flags = f"--config.data.patches.size='({given})' --config.data.patches.fit=pad"
    return flags if spacing is None else f"{flags} --config.data.patches.spacing={spacing}"


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
