"""Distances between the surfaces of two masks, in millimetres."""

import math

import numpy as np


def surface_distances(prediction, label, *, spacing):
    """95th percentile Hausdorff distance and average symmetric surface distance, in mm.

    The values are MedPy's (0.5.2): HD95 is the 95th percentile and ASSD the mean of both
    directed distance sets pooled. (Older versions of it, and some tools, average the two
    directed averages; the larger of the two percentiles is at least as high as this HD95.)

    Args:
      prediction: boolean mask (x, y, z).
      label: boolean mask of the same shape.
      spacing: mm between voxel centres along each axis.

    Returns:
      (hd95, assd); (0, 0) where both masks are empty, (NaN, NaN) where one is.

    Raises:
      ValueError: for masks of different shapes, or a spacing of another number of axes.

    >>> mask = np.zeros((8, 8, 8), bool)
    >>> mask[2:5, 2:5, 2:5] = True
    >>> surface_distances(np.roll(mask, 1, axis=0), mask, spacing=(2.0, 1.0, 1.0))[0]
    2.0
    """
    from medpy.metric.binary import assd, hd95  # a quarter of a second to import

    if prediction.shape != label.shape:
        raise ValueError(f"masks of one shape, not {prediction.shape} and {label.shape}")
    if len(spacing) != label.ndim:
        raise ValueError(f"spacing is one number an axis of {label.shape}, not {tuple(spacing)}")
    if not prediction.any() or not label.any():
        undefined = math.nan if prediction.any() or label.any() else 0.0
        return undefined, undefined
    # MedPy transforms the whole array; inside the box of both masks the values are the same.
    box = _bounding_box(prediction | label)
    masks = prediction[box], label[box]
    return tuple(float(f(*masks, voxelspacing=tuple(spacing))) for f in (hd95, assd))


def _bounding_box(mask):
    axes = range(mask.ndim)
    spans = (np.flatnonzero(mask.any(tuple(a for a in axes if a != axis))) for axis in axes)
    return tuple(slice(s[0], s[-1] + 1) for s in spans)
