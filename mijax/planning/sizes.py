"""Sizes of slices, and of patches of volumes, and millimetres of their pixels."""

import math

import numpy as np

from mijax.data.survey import round_to_two
from mijax.models import plan_levels

LEVELS = {2: 5, 3: 6}  # of a network, at most
_UNEVEN = 1.1  # spacings differ where one exceeds another by so much
_WIDEST = {"cpu": 128, "gpu": 512, "tpu": 512}  # pixels of a slice along an axis
_PATCH = {"cpu": 2**16, "gpu": 2**21, "tpu": 2**21}  # voxels


def of_slices(found, order, device, choose, kept):
    """Size of the slices, and millimetres of a pixel."""
    least, median, most = (np.array(found["mm"][n])[order[1:]] for n in ("least", "median", "most"))
    uneven = max(most) > _UNEVEN * min(least)
    multiple = max(16, stride(kept))
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
            tuple(multiple_of(min(n, _WIDEST[device]), multiple) for n in shapes[1]),
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
        tuple(multiple_of(n, multiple) for n in pixels),
        f"holds the largest slice whole, in multiples of {multiple}",
    )
    choose("data.patches.fit", "pad", "nothing is cut or stretched")
    return size, (spacing or mm,) * 2


def of_volumes(found, order, device, choose, kept):
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
    cut = (patch < shape).any()

    def whole(multiple):  # strides, and where it is cut no more than there is room for
        room = np.maximum(patch // multiple, 1) * multiple if cut else patch
        return tuple(multiple_of(n, m) for n, m in zip(room, multiple, strict=True))

    strides = _strides(grid, patch)
    size = whole(np.prod([np.ones(3, int), *strides], axis=0))
    levels = {len(one) + 1 for one in (strides, _strides(grid, size))}
    if "model.widths" in kept and levels != {len(kept["model.widths"])}:
        size = whole(np.full(3, stride(kept)))
    size = choose(
        "data.patches.size",
        size,
        f"as much as a {device} takes well of {' × '.join(f'{n:.0f}' for n in shape)} voxels, the "
        "median volume",
    )
    choose("data.patches.fit", "whole", "patches are drawn from volumes of any size")
    return size, tuple(grid)


def _strides(grid, size):
    return plan_levels(tuple(grid), tuple(map(int, size)), depth=LEVELS[len(size)])[0]


def stride(kept):
    """Of a network whose widths were given, which is pooled by 2 everywhere."""
    return 2 ** (len(kept.get("model.widths", (1,))) - 1)


def multiple_of(n, multiple):
    """The next multiple of a number of pixels, which is rounded as ``slice_shape`` does."""
    return int(-(-max(round(n), 1) // multiple) * multiple)
