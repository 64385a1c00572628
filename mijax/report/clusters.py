"""The clusters that pre-training found in a few validation slices."""

from typing import NamedTuple

import numpy as np

from mijax.data import read_splits
from mijax.errors import UserError
from mijax.experiment import slice_volume
from mijax.inference import predict_stacks
from mijax.report.predictions import pixel_size, restore_scored, source_of

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
    source = source_of(first.config, data_dir)
    names = read_splits(first.folder / "splits.json").validation
    volumes = [source.volume(names[i % len(names)]) for i in range(_SLICES)]
    found, notes = [], []
    for row in rows:
        try:
            experiment, state = restore_scored(row.runs[0])
        except UserError as error:
            notes.append(f"{row.label} is missing among the cluster maps: {error}")
            continue
        if experiment.clusters:
            images, aspect = _slices(volumes, row.config.data)
            maps = next(
                predict_stacks(experiment.clusters, state, [images], batch=experiment.predict_batch)
            )
            count = experiment.method.examination.count
            found.append(Clusters(row.label, images[..., 0], _at(images, maps), count, aspect))
    return found, notes


def _slices(volumes, data):
    """One slice (h, w, c) of each volume, each a step further through it, and their aspects."""
    images, aspects = [], []
    for i, volume in enumerate(volumes, start=1):
        cut = slice_volume(volume._replace(label=None), data)
        images.append(cut.image[len(cut.image) * i // (len(volumes) + 1)])
        h, w = pixel_size(volume, cut.grid)
        aspects.append(h / w)
    return np.stack(images), aspects


def _at(images, maps):
    """Maps of features of a lower resolution at that of the images."""
    factors = [n // m for n, m in zip(images.shape[1:3], maps.shape[1:], strict=True)]
    return maps.repeat(factors[0], 1).repeat(factors[1], 2)
