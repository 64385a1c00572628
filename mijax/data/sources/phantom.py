"""Volumes drawn from a seed: a ring around a cavity, as the heart muscle around its chamber.

Patients differ in position, turn, size, shear, contrast, bias field, texture and noise, much
more than the noise within one, so a few of them do not show what the rest look like.
"""

import hashlib
import json

import numpy as np

from mijax.data.volume import Case, Geometry, Recipe, Volume
from mijax.errors import UserError

CLASSES = ("background", "body", "core")  # body: the ring; core: the cavity inside it
SPACING = (1.0, 1.0, 4.0)  # mm


def phantom_recipe(*, seed: int, patients: int, shape: tuple[int, int, int]) -> Recipe:
    """The recipe of a data set of phantoms, one volume a patient, all of them labelled.

    Raises:
      UserError: a negative seed, no patients, or a shape that is not three numbers of at least 4.
    """
    if seed < 0:
        raise UserError(f"data.source.seed={seed}: must not be negative")
    if patients < 1:
        raise UserError(f"data.source.patients={patients}: must be at least 1")
    if len(shape) != 3 or min(shape) < 4:
        raise UserError(f"data.source.shape={shape}: must be three numbers of at least 4")
    names = [f"phantom_{index:04d}" for index in range(patients)]
    index = {name: i for i, name in enumerate(names)}

    def read(name: str) -> Volume:
        image, label, affine, _ = phantom_volume(seed, index[name], shape)
        return Volume(name, image, label, affine)

    with open(__file__, "rb") as file:  # another formula is another data set
        formula = file.read()
    content = json.dumps([seed, patients, shape]).encode() + formula
    return Recipe(
        builder="phantom",
        key=f"phantom-{hashlib.sha256(content).hexdigest()[:16]}",
        classes=CLASSES,
        channels=1,
        cases=tuple(Case(name, name, True) for name in names),
        geometry=lambda name: Geometry(shape, 1, np.diag([*SPACING, 1.0])),
        read=read,
    )


def phantom_volume(
    seed: int, index: int, shape: tuple[int, int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """One volume; the same arguments give the same bytes.

    Args:
      seed: of the data set.
      index: of the patient.
      shape: (x, y, z) voxels.

    Returns:
      image (x, y, z, 1) float32, label (x, y, z) uint8, affine (4, 4) float64 and spacing (3,)
      float64 in millimetres.
    """
    key = np.random.default_rng([seed, index])
    grid = _coordinates(shape)
    x, y, z = grid
    u, v = _heart_frame(key, x, y)
    radius = np.hypot(u, v) / _outline(key, np.arctan2(v, u))
    apex = key.uniform(0.85, 1.2)  # half the organ's length, in half heights of the volume
    outer = key.uniform(0.34, 0.5) * np.sqrt(np.clip(1 - (z / apex) ** 2, 0, 1))
    cavity = np.minimum(key.uniform(0.5, 0.72) * outer, outer - 0.1)  # a wall of some voxels
    label = np.where(radius < cavity, 2, np.where(radius < outer, 1, 0)).astype(np.uint8)
    distractor = _distractor(key, grid) & (label == 0)
    chest = np.hypot(x / key.uniform(0.85, 1.0), y / key.uniform(0.75, 0.95)) < 1

    ring = key.uniform(0.2, 0.4)
    tissue = ring + key.uniform(0.12, 0.25)
    core = tissue + key.uniform(0.15, 0.35)
    image = np.where(chest, tissue, 0.05)
    image = np.where(distractor, key.uniform(0.2, 1.0), image)
    image = np.choose(label, [image, ring, core])
    image = image + key.uniform(0.03, 0.1) * _waves(key, grid, number=6)
    image = _blur(image, key.uniform(0.1, 0.3))
    bias = key.uniform(-0.35, 0.35, 3)
    image = image * np.exp(bias[0] * x + bias[1] * y + bias[2] * x * y)
    image = image + key.uniform(0.03, 0.08) * key.standard_normal(shape)
    image = key.uniform(80, 400) * image + key.uniform(0, 50)

    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = -0.5 * np.multiply(SPACING, shape) + key.uniform(-20, 20, 3).round(1)
    return image.astype(np.float32)[..., None], label, affine, np.array(SPACING)


def _coordinates(shape) -> list[np.ndarray]:
    """x, y, z of voxel centres from −1 to 1, each broadcastable to the volume."""
    axes = [(np.arange(n) + 0.5) / n * 2 - 1 for n in shape]
    return np.meshgrid(*axes, indexing="ij", sparse=True)


def _heart_frame(key, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(x, y, 1) in the organ's own axes: moved, turned, stretched, sheared."""
    shift = key.uniform(-0.3, 0.3, 2)
    angle = key.uniform(-np.pi, np.pi)
    stretch = key.uniform(0.8, 1.25)
    shear = key.uniform(-0.3, 0.3)
    u = np.cos(angle) * (x - shift[0]) + np.sin(angle) * (y - shift[1])
    v = np.cos(angle) * (y - shift[1]) - np.sin(angle) * (x - shift[0])
    return (u + shear * v) * stretch, v / stretch


def _outline(key, angle: np.ndarray) -> np.ndarray:
    """A radius about 1 around the circle, from its second to fourth harmonic."""
    radius = np.ones_like(angle)
    for harmonic in (2, 3, 4):
        phase = key.uniform(0, 2 * np.pi)
        radius += key.uniform(0, 0.18 / harmonic) * np.cos(harmonic * angle + phase)
    return radius


def _distractor(key, grid: list[np.ndarray]) -> np.ndarray:
    """(x, y, z) bool: an organ off to one side, with an intensity of its own."""
    x, y, z = grid
    side = key.uniform(-np.pi, np.pi)
    distance = key.uniform(0.55, 0.8)
    size = key.uniform(0.2, 0.35, 2)
    u = (x - distance * np.cos(side)) / size[0]
    v = (y - distance * np.sin(side)) / size[1]
    return u**2 + v**2 + (0.5 * z) ** 2 < 1


def _waves(key, grid: list[np.ndarray], *, number: int) -> np.ndarray:
    """(x, y, z) texture of unit variance: a few plane waves."""
    waves = 0.0
    for _ in range(number):
        frequency = key.normal(0, (9, 9, 3))
        phase = sum(f * axis for f, axis in zip(frequency, grid, strict=True))
        waves = waves + np.cos(phase + key.uniform(0, 2 * np.pi))
    return waves * np.sqrt(2 / number)


def _blur(image: np.ndarray, weight: float) -> np.ndarray:
    """Three-point blur along x and y, weight to each neighbour."""
    for axis in (0, 1):
        before, after = (np.roll(image, step, axis) for step in (1, -1))
        image = (1 - 2 * weight) * image + weight * (before + after)
    return image
