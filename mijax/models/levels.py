"""Strides and kernels of the levels of a U-Net, by axis."""

import math
from collections.abc import Sequence

_LEAST = 4  # voxels of an axis at the deepest level


def check_levels(strides, kernels, *, depth, dims):
    """Strides and kernels of each level by axis, where they are empty 2 and 3.

    Args:
      strides: factors, 1 or 2, of the pooling into each level below the first, by axis.
      kernels: sizes, 1 or 3, of the kernels of each level, by axis.
      depth: number of levels.
      dims: number of axes.

    Returns:
      The two, (depth − 1) and (depth) tuples of ``dims`` numbers.

    Raises:
      ValueError: for others.
    """
    strides = tuple(map(_by_axis, strides)) or ((2,) * dims,) * (depth - 1)
    kernels = tuple(map(_by_axis, kernels)) or ((3,) * dims,) * depth
    for name, given, count, choices in (
        ("strides", strides, depth - 1, (1, 2)),
        ("kernels", kernels, depth, (1, 3)),
    ):
        fit = all(len(one) == dims and set(one) <= set(choices) for one in given)
        if len(given) != count or not fit:
            raise ValueError(
                f"{name} {given} of {depth} levels over {dims} axes: must be empty or {count} "
                f"times {dims} numbers, each of them {choices[0]} or {choices[1]}"
            )
    return strides, kernels


def total_stride(strides, *, depth, dims):
    """Pixels of the first level a pixel of the deepest, by axis; arguments and errors as above."""
    strides, _ = check_levels(strides, (), depth=depth, dims=dims)
    return tuple(math.prod(along) for along in zip((1,) * dims, *strides, strict=True))


def plan_levels(spacing, size, *, depth=None):
    """Strides and kernels of a U-Net for voxels of that size, by the rules of nnU-Net.

    An axis is pooled while it has at least 8 voxels, so that 4 are left at the deepest level, and
    while these are less than twice as large as the smallest of those axes. Its kernels have size 1
    until its voxels are less than twice as large as the smallest, and 3 from there on; at the
    deepest level all are 3. One axis alone is pooled only while it has 12 voxels.

    Args:
      spacing: size of a voxel by axis, in mm.
      size: voxels of an image (or of a patch) by axis.
      depth: of levels, at most; by default as many as ``size`` allows.

    Returns:
      ``strides`` and ``kernels`` as of ``UNet``. Their number is that of the levels.

    Reference: Isensee et al., nnU-Net, Nature Methods 2021, online methods.

    >>> plan_levels((10.0, 1.25, 1.25), (16, 64, 64), depth=3)
    (((1, 2, 2), (1, 2, 2)), ((1, 3, 3), (1, 3, 3), (3, 3, 3)))
    """
    spacing, size = list(spacing), list(size)
    axes = range(len(spacing))
    strides, kernels, kernel = [], [], [1 for _ in axes]
    while depth is None or len(kernels) < depth - 1:
        large = [i for i in axes if size[i] >= 2 * _LEAST]
        pooled = [i for i in large if spacing[i] < 2 * min(spacing[j] for j in large)]
        if not pooled or (len(pooled) == 1 and size[pooled[0]] < 3 * _LEAST):
            break
        finest = min(spacing)
        kernel = [3 if spacing[i] < 2 * finest else kernel[i] for i in axes]
        stride = [2 if i in pooled else 1 for i in axes]
        strides.append(tuple(stride))
        kernels.append(tuple(kernel))
        spacing = [mm * n for mm, n in zip(spacing, stride, strict=True)]
        size = [-(-count // n) for count, n in zip(size, stride, strict=True)]
    return tuple(strides), (*kernels, (3,) * len(spacing))


def _by_axis(given):
    return tuple(given) if isinstance(given, Sequence) else (given,)
