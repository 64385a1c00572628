"""The clusters that pre-training found in a few validation slices."""

from typing import NamedTuple

import numpy as np

from mijax.data import read_splits
from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.inference.batching import predict_stacks
from mijax.inference.scoring import make_scoring
from mijax.report.excerpts import shown_pixel_size
from mijax.report.predictions import scored_predictor, source_for, source_of
from mijax.runs.method import make_method

_SLICES = 4


class Clusters(NamedTuple):
    """Slices of a row and the clusters of their pixels.

    Attributes:
      label: of the row.
      images: (n, h, w).
      maps: (n, h, w) cluster of each pixel.
      count: of the clusters that there are.
      aspect: mm along h over mm along w, of a pixel of each slice.
    """

    label: str
    images: np.ndarray
    maps: np.ndarray
    count: int
    aspect: list


def find_clusters(rows, *, data_dir):
    """``Clusters`` of the first seed of each row whose method has any.

    Args:
      rows: of ``runs.Row``, of pre-training.
      data_dir: folder of the data where it moved since, or None.

    Returns:
      List of ``Clusters``, and notes about rows that could not be had.

    Raises:
      UserError, OSError: if the data cannot be had.
    """
    first = rows[0].runs[0].run
    source = source_of(first, data_dir)
    names = read_splits(first.folder / "splits.json").validation
    found, notes = [], []
    for row in rows:
        try:
            predictor = scored_predictor(row.runs[0])
            seen = source_for(row.runs[0].run, source, first, data_dir)
        except UserError as error:
            notes.append(f"{row.label} is missing among the cluster maps: {error}")
            continue
        network = predictor.network
        scoring = make_scoring(network, make_method(row.config).examination)
        if network.patch is not None:
            notes.append(f"{row.label} is missing among the cluster maps: they are of slices")
        elif scoring.clusters:
            volumes = [seen.volume(names[i % len(names)]) for i in range(_SLICES)]
            images, aspect = _slices(volumes, network.slices)
            stacks = predict_stacks(
                scoring.clusters, predictor.weights, [images], batch=network.batch
            )
            maps, count = next(stacks), scoring.count
            found.append(Clusters(row.label, images[..., 0], _at(images, maps), count, aspect))
    return found, notes


def _slices(volumes, slices):
    """One slice (h, w, c) of each volume, each a step further through it, and their aspects."""
    images, aspects = [], []
    for i, volume in enumerate(volumes, start=1):
        cut = slice_volume(volume._replace(label=None), slices, middle=True)
        images.append(cut.image[len(cut.image) * i // (len(volumes) + 1)])
        h, w = shown_pixel_size(volume, cut.grid)
        aspects.append(h / w)
    return np.stack(images), aspects


def _at(images, maps):
    """Maps of features of a lower resolution at that of the images."""
    factors = [n // m for n, m in zip(images.shape[1:3], maps.shape[1:], strict=True)]
    return maps.repeat(factors[0], 1).repeat(factors[1], 2)
