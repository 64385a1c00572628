"""Rules from a fingerprint to values of a configuration, each with its reason."""

import math
from typing import Any, NamedTuple

import numpy as np

from mijax.data.slices import PLANES
from mijax.errors import counted
from mijax.models import plan_levels
from mijax.planning.sizes import LEVELS, multiple_of, of_slices, of_volumes, stride

_CUBIC = 3  # voxels are thick from this ratio on, as nnU-Net has it
_DEEP = 16  # slices at least that make a volume
_PIXELS = {"cpu": 2**17, "gpu": 2**20, "tpu": 2**20}  # of the slices of a stream in a step
_FIRST = {"cpu": 8, "gpu": 16, "tpu": 16}  # channels of the finest level
_STEPS = {"cpu": 2000, "gpu": 20_000, "tpu": 20_000}
_MOST = 320  # channels of a level
_RARE = 0.01  # share of voxels
_FEW = 20  # labelled patients
_CROPPED = 96  # pixels of a side, from which on slices are cropped
_RATE = {"cpu": 3e-3, "gpu": 1e-3, "tpu": 1e-3}


class Choice(NamedTuple):
    """A value of the configuration.

    Attributes:
      key: without ``config.``.
      value: of it.
      reason: a sentence.
    """

    key: str
    value: Any
    reason: str


def choices(found, *, device, devices, kept):
    """The choices for a data set.

    Args:
      found: ``fingerprint``.
      device: "cpu", "gpu" or "tpu".
      devices: how many.
      kept: {key: value} of what was given, which the others follow.

    Returns:
      List of ``Choice``, those that were given left out.
    """
    made = {}

    def choose(key, value, reason):
        if key not in kept:
            made[key] = Choice(key, value, reason)
        return kept.get(key, value)

    spacing, voxels = (np.array(found[name]["median"]) for name in ("mm", "voxels"))
    flat = [i for i in range(3) if found["voxels"]["most"][i] == 1]
    thick = flat[0] if len(flat) == 1 else int(spacing.argmax())
    ratio = spacing[thick] / np.sort(spacing)[1]
    mm = " × ".join(f"{n:.2g}" for n in spacing)
    across, reason = PLANES[thick], f"voxels are {mm} mm: slices are across the thickest side"
    if len(flat) == 1:
        reason = "each volume is one slice"
    elif ratio <= 1.5:
        across, reason = "axial", f"voxels of {mm} mm are about as thick as wide"
    plane = choose("data.patches.plane", across, reason)
    axis = PLANES.index(plane)
    order = [axis, *(i for i in range(3) if i != axis)]
    depth = voxels[axis]
    solid = ratio < _CUBIC and depth >= _DEEP and device != "cpu"
    axes = len(kept.get("data.patches.size", ()))
    reason = "as many as the size has" if axes else _about_dims(solid, ratio, depth, device)
    dims = choose("data.patches.dims", axes or (3 if solid else 2), reason)
    size, grid = (of_volumes if dims == 3 else of_slices)(found, order, device, choose, kept)
    intensity = _intensities(found, choose, kept)
    _network(size, grid, dims, device, choose)
    pixels = _PIXELS[device] / math.prod(size)
    batch = 2 if dims == 3 else int(np.clip(round(pixels), 2, 16))
    batch = multiple_of(batch, math.lcm(2, devices))
    what = "voxels" if dims == 3 else "pixels"
    reason = f"so many of {' × '.join(map(str, size))} {what} are what a {device} takes well"
    batch = choose("labelled_batch", batch, reason)
    choose("unlabelled_batch", batch, "as many as labelled ones")
    choose("predict_batch", 2 if dims == 3 else 16, "nothing is kept for gradients")
    steps = choose("steps", _STEPS[device], f"a {device} does so many in an hour or a few")
    choose("warmup_steps", steps // 20, "a twentieth of the steps")
    _intervals(steps, kept, choose)
    choose("learning_rate", _RATE[device], f"what suits {steps} steps of Adam")
    patients = found["labelled_patients"]
    validation = choose(
        "data.splits.validation",
        validation_patients(patients),
        f"a fifth of {patients} labelled patients, 10 at most, chooses the checkpoint"
        if patients > 1
        else f"{counted(patients, 'labelled patient')} cannot teach and choose it: annotate more",
    )
    left = max(patients - validation - kept["data.splits.test"], min(patients, 1))
    labelled = kept.get("data.splits.labelled") or left
    _augmentation(found, labelled, dims, intensity, choose)
    if dims == 2 and labelled <= _FEW and min(size) >= _CROPPED:
        multiple = max(16, stride(kept))
        choose(
            "augmentation.crop",
            tuple(max(round(n * 2 / 3 / multiple), 1) * multiple for n in size),
            "with few labelled patients, random crops of two thirds were worth points on ACDC",
        )
    return list(made.values())


def validation_patients(patients):
    """How many of so many labelled patients choose the checkpoint."""
    return int(np.clip(patients // 5, 1, 10))


def _intervals(steps, kept, choose):
    """How often it is logged and validated, of which one is a multiple of the other."""
    log = kept.get("log_every")
    every = max(round(steps / 10 / (log or 1)), 1) * (log or 1)
    every = choose("evaluate_every", every, "about ten checkpoints to choose from")
    fine = next(n for n in range(max(every // 10, 1), 0, -1) if every % n == 0)
    choose("log_every", fine, "ten lines of the log between two of them")


def _about_dims(solid, ratio, depth, device):
    if solid:
        return f"voxels are {ratio:.2g} times as thick as wide and {depth:.0f} deep: volumes"
    if ratio >= _CUBIC:
        return f"voxels are {ratio:.2g} times as thick as wide: slices"
    if depth < _DEEP:
        return f"no depth, of {counted(round(depth), 'slice')}: slices"
    return f"a {device} takes seconds a step of volumes: slices; give 3 to try"


def _intensities(found, choose, kept):
    """How intensities are scaled."""
    for key, name in (("window", "window"), ("percentiles", "percentile")):
        if f"data.patches.{key}" in kept:
            return choose("data.patches.intensity", name, f"data.patches.{key} is given")
    if found["window"]:
        low, high = found["window"]
        name = choose(
            "data.patches.intensity", "window", "Hounsfield units of a CT, by its name or its air"
        )
        if name == "window":
            choose(
                "data.patches.window",
                (low, high),
                "the range of what is labelled, 1 % aside, and half of it again on both sides",
            )
        return name
    reason = "no Hounsfield units: each volume by itself"
    return choose("data.patches.intensity", "percentile", reason)


def _network(size, grid, dims, device, choose):
    strides, kernels = plan_levels(grid, size, depth=LEVELS[dims])
    cubes = all(set(stride) == {2} for stride in strides)
    first = _FIRST[device] * (2 if dims == 3 and device != "cpu" else 1)
    widths = choose(
        "model.widths",
        tuple(min(first * 2**level, _MOST) for level in range(len(strides) + 1)),
        f"so many levels leave 4 pixels or more at the deepest; {first} channels at the finest",
    )
    if not cubes and len(widths) == len(strides) + 1:
        reason = "long sides of voxels, and short sides of images, are pooled less, as in nnU-Net"
        choose("model.strides", strides, reason)
        choose("model.kernels", kernels, reason)
    if dims == 3:
        choose("model.norm", "instance", "batches are of two patches")


def _augmentation(found, labelled, dims, intensity, choose):
    if labelled <= _FEW:
        strong = f"few labelled patients ({labelled}): strong changes were worth points on ACDC"
        ranges = {"rotation": 30.0, "shear": 0.0, "scale": (0.7, 1.4)}
        # Of a range of 1, or of standard deviations.
        ranges["brightness"] = 0.4 if intensity == "zscore" else 0.1
        ranges |= {"contrast": 0.4, "gamma": 0.4, "noise": 0.1}
    else:
        strong = "patients lie the same way and differ by a tenth or two"
        ranges = {"rotation": 15.0, "shear": 0.0, "scale": (0.85, 1.2), "brightness": 0.1}
        ranges |= {"contrast": 0.2, "gamma": 0.2, "noise": 0.05}
    for name, value in ranges.items():
        choose(f"augmentation.{name}", value, strong)
    choose("augmentation.flip", 0.0, "all are turned to the same axes: left is left")
    rare = [name for name, share in list(found["share"].items())[1:] if 0 < share < _RARE]
    if dims == 3 and rare:
        reason = f"{rare[0]} is less than 1 % of the voxels: a third, as nnU-Net"
        choose("augmentation.foreground", 0.33, reason)
