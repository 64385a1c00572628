"""The scan that was sent, judged by its headers."""

import math
from pathlib import Path

import numpy as np

from mijax.data.formats.imagefile import read_header
from mijax.data.scans import Scan, find_scans
from mijax.data.slices import slice_shape
from mijax.errors import ANOTHER_SERIES, UserError, times
from mijax.serving.archive import TooLarge

_AREA = 16  # times the area of the slices of a run that a slice may have


def open_scan(path: Path, slices: dict, channels: int, most_voxels: int) -> Scan:
    """The one scan that was sent. At most headers are read.

    Args:
      path: of ``uploads.store``.
      slices: of ``data.patches.slice_options``, of the run.
      channels: of the run.
      most_voxels: of the scan, channels included, and of what is made of it for the network.

    Raises:
      TooLarge: more voxels.
      UserError: damaged, or not one scan.
    """
    scans = find_scans(path, channels=channels)
    if len(scans) > 1:
        raise UserError(f"{len(scans)} scans; send one")
    (scan,) = scans
    if scan.problem:
        raise UserError(scan.problem.removesuffix(ANOTHER_SERIES))
    for image in (scan.reference,) if scan.stack else scan.images:
        shape, affine = read_header(image)
        count = math.prod(shape) * (1 if scan.stack else len(scan.images))
        takes = f"this server takes {most_voxels:,}"
        if count > most_voxels:
            raise TooLarge(f"{count:,} voxels, {times(shape)}; {takes}")
        made = _network_voxels(shape, affine, slices) * channels
        if made > most_voxels:
            raise TooLarge(f"{made:,} voxels as the network takes them; {takes}")
    return scan


def _network_voxels(shape, affine, options) -> int:
    """Voxels of a scan as it is resampled and padded, which its spacing may make many times more.

    Raises:
      TooLarge: a slice far larger than those of the run, padded to its own size.
    """
    dims = options["dims"]
    target = slice_shape(
        "the scan",
        shape,
        affine,
        spacing=options["spacing"],
        plane=options["plane"],
        dims=3,
        depth_spacing=options["depth_spacing"] if dims == 3 else None,
    )
    size = np.broadcast_to(options["size"], dims).tolist()
    plane = target[1:]
    if dims == 2 and options["fit"] == "pad" and math.prod(plane) > _AREA * math.prod(size):
        raise TooLarge(f"slices of {times(plane)} pixels; the run learned from {times(size)}")
    return math.prod(map(max, target, [1] * (3 - dims) + size))
