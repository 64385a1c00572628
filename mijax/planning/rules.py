"""Rules from a fingerprint to values of a configuration, each with its reason."""

import math
from typing import Any, NamedTuple

import numpy as np

from mijax.data.slices import PLANES
from mijax.data.survey import round_to_two
from mijax.errors import counted
from mijax.models import plan_levels

_CUBIC = 3  # voxels are thick from this ratio on, as nnU-Net has it
_DEEP = 16  # slices at least that make a volume
_UNEVEN = 1.1  # spacings differ where one exceeds another by so much
_PIXELS = {"cpu": 2**17, "gpu": 2**20, "tpu": 2**20}  # of the slices of a stream in a step
_WIDEST = {"cpu": 128, "gpu": 512, "tpu": 512}  # pixels of a slice along an axis
_PATCH = {"cpu": 2**16, "gpu": 2**21, "tpu": 2**21}  # voxels
_FIRST = {"cpu": 8, "gpu": 16, "tpu": 16}  # channels of the finest level
_STEPS = {"cpu": 2000, "gpu": 20_000, "tpu": 20_000}
_MOST = 320  # channels of a level
_LEVELS = {2: 5, 3: 6}
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
    size, grid = (_volumes if dims == 3 else _slices)(found, order, device, choose, kept)
    intensity = _intensities(found, choose, kept)
    _network(size, grid, dims, device, choose)
    pixels = _PIXELS[device] / math.prod(size)
    batch = 2 if dims == 3 else int(np.clip(round(pixels), 2, 16))
    batch = _multiple(batch, math.lcm(2, devices))
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
        multiple = max(16, _stride(kept))
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


def _slices(found, order, device, choose, kept):
    """Size of the slices, and millimetres of a pixel."""
    least, median, most = (np.array(found["mm"][n])[order[1:]] for n in ("least", "median", "most"))
    uneven = max(most) > _UNEVEN * min(least)
    multiple = max(16, _stride(kept))
    mm = float(np.median(median))
    shapes = [np.array(found["voxels"][n])[order[1:]] for n in ("least", "median", "most")]
    largest = shapes[2]
    if (least == 1).all() and (most == 1).all() and (largest > 2 * shapes[0]).any():
        choose("data.patches.spacing", None, "the files know no millimetres: all say 1")
        reason = f"the median of slices of {shapes[0].min():.0f} to {largest.max():.0f} pixels"
        if max(shapes[1]) > _WIDEST[device]:
            reason += f", and no side above the {_WIDEST[device]} that a {device} takes well"
        size = choose(
            "data.patches.size",
            tuple(_multiple(min(n, _WIDEST[device]), multiple) for n in shapes[1]),
            reason,
        )
        choose("data.patches.fit", "resize", "pixels are of unknown, unequal sizes")
        return size, (1.0, 1.0)
    # Of one slice, in mm: a large number of pixels and large pixels may be of two.
    extent = np.array(found["extent"]["most"])[order[1:]]
    widest = np.array(kept.get("data.patches.size", (_WIDEST[device],) * 2))
    spacing, reason = None, "all pixels are of one size"
    if uneven or (largest > widest).any():
        own, needed = round_to_two(mm), float(max(extent / widest))
        spacings = own, round_to_two(needed), round_to_two(needed, up=True)
        spacing = next(n for n in spacings if (np.round(extent / n) <= widest).all())
        reason = f"pixels are {least.min():.2g} to {most.max():.2g} mm" if uneven else "few pixels"
        reason += f"; {widest.max()} hold the largest slice" * (not uneven or spacing > own)
    spacing = choose("data.patches.spacing", spacing, reason)
    pixels = extent / spacing if spacing else largest
    size = choose(
        "data.patches.size",
        tuple(_multiple(n, multiple) for n in pixels),
        f"holds the largest slice whole, in multiples of {multiple}",
    )
    choose("data.patches.fit", "pad", "nothing is cut or stretched")
    return size, (spacing or mm,) * 2


def _volumes(found, order, device, choose, kept):
    """Size of the patches, and millimetres of a voxel."""
    least, median, most = (np.array(found["mm"][n])[order] for n in ("least", "median", "most"))
    uneven = most[0] > _UNEVEN * least[0] or max(most[1:]) > _UNEVEN * min(least[1:])
    depth_mm, mm = (round_to_two(n) for n in (median[0], float(np.median(median[1:]))))
    reason = f"voxels are {least.min():.2g} to {most.max():.2g} mm: the median"
    alike = "all voxels are of one size"
    spacing = choose("data.patches.spacing", mm if uneven else None, reason if uneven else alike)
    deep = choose(
        "data.patches.depth_spacing", depth_mm if uneven else None, reason if uneven else alike
    )
    grid = np.array([deep or median[0], *(spacing or n for n in median[1:])])
    # Whole, since float32 in a header makes 128.000005 of 128.
    shape = np.round(np.array(found["voxels"]["median"])[order] * median / grid).clip(1)
    patch = shape.copy()
    while math.prod(patch) > _PATCH[device]:  # the longest side in mm first, as nnU-Net
        patch[(patch * grid).argmax()] *= 0.95
    strides, _ = plan_levels(tuple(grid), tuple(int(n) for n in patch), depth=_LEVELS[3])
    multiple = np.prod(strides, axis=0) if strides else np.ones(3, int)
    if "model.widths" in kept and len(kept["model.widths"]) != len(strides) + 1:
        multiple = np.full(3, _stride(kept))
    if (patch < shape).any():  # whole strides, and no more than there is room for
        patch = np.maximum(patch // multiple, 1) * multiple
    size = choose(
        "data.patches.size",
        tuple(_multiple(n, m) for n, m in zip(patch, multiple, strict=True)),
        f"as much as a {device} takes well of {' × '.join(f'{n:.0f}' for n in shape)} voxels, the "
        "median volume",
    )
    choose("data.patches.fit", "whole", "patches are drawn from volumes of any size")
    return size, tuple(grid)


def _stride(kept):
    """Of a network whose widths were given, which is pooled by 2 everywhere."""
    return 2 ** (len(kept.get("model.widths", (1,))) - 1)


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
    strides, kernels = plan_levels(grid, size, depth=_LEVELS[dims])
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


def _multiple(n, multiple):
    """The next multiple of a number of pixels, which is rounded as ``slice_shape`` does."""
    return int(-(-max(round(n), 1) // multiple) * multiple)
