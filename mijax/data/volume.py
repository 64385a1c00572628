"""What a data set consists of: cases, volumes, and the recipe that makes them."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mijax.errors import UserError

UNLABELLED = 255  # the value of a voxel that nobody annotated; no class has it
_LARGEST = 2**30 - 2**20  # bytes of one case: TFDS's limit without TensorFlow, less the rest


def spacing_of(affine: np.ndarray) -> np.ndarray:
    """(3,) millimetres between voxel centres along x, y, z, of an affine, (4, 4)."""
    return np.linalg.norm(affine[:3, :3], axis=0)


class Case(NamedTuple):
    """One scan: its name, the patient it shows, and whether anybody annotated it."""

    name: str
    patient: str
    labelled: bool


class Volume(NamedTuple):
    """One scan as it came: native grid, native intensities.

    Attributes:
      name: the case.
      image: (x, y, z, c) float32.
      label: (x, y, z) uint8, the index of a class, or ``UNLABELLED``; None where nobody annotated.
      affine: (4, 4) float64, voxel index to millimetres, RAS+.
      undrawn: indices of the classes that nobody drew in it: a voxel labelled background may be
        of any of them.
    """

    name: str
    image: np.ndarray
    label: np.ndarray | None
    affine: np.ndarray
    undrawn: tuple[int, ...] = ()

    @property
    def spacing(self) -> np.ndarray:
        """(3,) millimetres between voxel centres along x, y, z."""
        return spacing_of(self.affine)


class Geometry(NamedTuple):
    """What a header says of a volume.

    Attributes:
      shape: (x, y, z) voxels.
      channels: of the image.
      affine: (4, 4) float64, voxel index to millimetres, RAS+.
    """

    shape: tuple[int, int, int]
    channels: int
    affine: np.ndarray


def check_size(name: str, geometry: Geometry) -> None:
    """Refuses a case that no record holds, which is one of an image and a label.

    Raises:
      UserError: it is too large.
    """
    size = math.prod(geometry.shape) * (4 * geometry.channels + 1)  # float32, and uint8
    if size > _LARGEST:
        raise UserError(
            f"case {name} takes {size / 2**30:.1f} GiB, more than a record holds (1 GiB); "
            "crop or resample it"
        )


class Recipe(NamedTuple):
    """All that a builder needs to write a data set once.

    Attributes:
      builder: the name under which it is prepared; None where there is nothing to prepare.
      key: changes whenever the content would; names the folder in the cache, if it is prepared.
      classes: names, index is the label value, the first is the background.
      channels: of every image.
      cases: sorted by name.
      geometry: (case name) -> Geometry, from headers alone; raises UserError for a bad one.
      read: (case name) -> Volume; raises UserError for a bad file.
      finish: what becomes of a volume that is read before it is written.
      gaps: whether a label may have voxels that nobody annotated.
      modalities: names of the channels; empty where nothing says them.
      numbered: whether a file CASE_0000 is of CASE, see ``scans.find_scans``.
    """

    builder: str | None
    key: str
    classes: tuple[str, ...]
    channels: int
    cases: tuple[Case, ...]
    geometry: Callable[[str], Geometry]
    read: Callable[[str], Volume]
    finish: Callable[[Volume], Volume] = lambda volume: volume
    gaps: bool = False
    modalities: tuple[str, ...] = ()
    numbered: bool = True
