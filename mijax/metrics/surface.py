"""Distances between the surfaces of two masks, in millimetres, and what overlaps at a tolerance.

There are two surfaces. HD95 and ASSD are of border voxels, those with one of their six neighbours
outside the mask, each counted once, as in MedPy. The NSD is of surface elements between the voxels,
by marching cubes, each counted with its area in mm², as in its definition: where a tolerance is
about as large as a voxel, and voxels are longer one way, a count of voxels would depend on which
way a surface faces.

A volume of a single slice is an image of two axes: its masks have contours, and their insides are
no surface.
"""

import math

import numpy as np
from scipy import ndimage

_ROUNDING = 1e-6  # mm; a distance of exactly the tolerance is within


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
      ValueError: for masks that are not boolean or of different shapes, or a spacing of another
        number of axes.

    >>> mask = np.zeros((8, 8, 8), bool)
    >>> mask[2:5, 2:5, 2:5] = True
    >>> surface_distances(np.roll(mask, 1, axis=0), mask, spacing=(2.0, 1.0, 1.0))[0]
    2.0
    """
    _check(prediction, label, spacing)
    if not prediction.any() or not label.any():
        undefined = math.nan if prediction.any() or label.any() else 0.0
        return undefined, undefined
    prediction, label, spacing = _without_single(prediction, label, spacing)
    box = _bounding_box(prediction | label)
    borders = [mask ^ ndimage.binary_erosion(mask) for mask in (prediction[box], label[box])]
    distances = np.concatenate(_directed(*borders, spacing))
    return float(np.percentile(distances, 95)), float(distances.mean())


def surface_dice(prediction, label, *, spacing, tolerance):
    """Normalised surface Dice (NSD): the part of both surfaces that is close to the other one.

        NSD = (|S_τ| + |G_τ|) / (|S| + |G|)

    |S| is the area of the surface S, and S_τ what of it is at most τ from the surface G; of a
    single slice the length of a contour. The values are those of ``surface-distance`` (0.1), which
    has the areas of the elements.

    Args:
      prediction: boolean mask (x, y, z).
      label: boolean mask of the same shape.
      spacing: mm between voxel centres along each axis.
      tolerance: τ in mm, such as how far two people differ who draw the same structure.

    Returns:
      A float in [0, 1], the higher the better; 1 where both masks are empty, 0 where one is.

    Raises:
      ValueError: as ``surface_distances``; or for masks that are no volumes, or a tolerance below
        0.

    Reference: Nikolov et al., J Med Internet Res 23, 2021; Maier-Hein et al., "Metrics reloaded",
    Nature Methods 21, 2024.

    >>> mask = np.zeros((8, 8, 8), bool)
    >>> mask[2:5, 2:5, 2:5] = True
    >>> moved = np.roll(mask, 1, axis=0)
    >>> surface_dice(moved, mask, spacing=(2.0, 1.0, 1.0), tolerance=2.0)
    1.0
    """
    from surface_distance import lookup_tables  # an extra

    _check(prediction, label, spacing)
    if label.ndim != 3:
        raise ValueError(f"masks are (x, y, z), not {label.shape}")
    if not tolerance >= 0:
        raise ValueError(f"a tolerance is 0 mm or more, not {tolerance}")
    if not prediction.any() or not label.any():
        return float(not prediction.any() and not label.any())
    prediction, label, spacing = _without_single(prediction, label, spacing)
    box = _bounding_box(prediction | label)
    if label.ndim == 3:
        kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_3D_KERNEL
        areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    else:
        kernel = lookup_tables.ENCODE_NEIGHBOURHOOD_2D_KERNEL
        areas = lookup_tables.create_table_neighbour_code_to_contour_length(spacing)
    codes = [_neighbour_codes(mask[box], kernel) for mask in (prediction, label)]
    surfaces = [(code > 0) & (code < kernel.sum()) for code in codes]
    near = total = 0.0
    distances = _directed(*surfaces, spacing, within=tolerance + _ROUNDING)
    for code, surface, distance in zip(codes, surfaces, distances, strict=True):
        area = areas[code[surface]]
        near += area[distance <= tolerance + _ROUNDING].sum()
        total += area.sum()
    return float(near / total)


def _check(prediction, label, spacing):
    if not prediction.dtype == label.dtype == bool:
        raise ValueError(f"masks are boolean, not {prediction.dtype} and {label.dtype}")
    if prediction.shape != label.shape:
        raise ValueError(f"masks of one shape, not {prediction.shape} and {label.shape}")
    if len(spacing) != label.ndim:
        raise ValueError(f"spacing is one number an axis of {label.shape}, not {tuple(spacing)}")


def _without_single(prediction, label, spacing):
    """Two masks and a spacing without the axes of a single voxel, as long as two are left."""
    axes = sorted(range(label.ndim), key=lambda axis: label.shape[axis] > 1)
    axes = [axis for axis in axes[:-2] if label.shape[axis] == 1]
    kept = tuple(mm for axis, mm in enumerate(spacing) if axis not in axes)
    return *(mask.squeeze(tuple(axes)) for mask in (prediction, label)), kept


def _neighbour_codes(mask, kernel):
    """(x + 1, y + 1, …) uint8: which of the voxels around each corner are in the mask."""
    padded = np.pad(mask, 1).astype(np.uint8)
    codes = np.zeros([n + 1 for n in mask.shape], np.uint8)
    for place, bit in np.ndenumerate(kernel):
        window = (slice(p, p + n) for p, n in zip(place, codes.shape, strict=True))
        codes |= np.uint8(bit) * padded[tuple(window)]
    return codes


def _directed(first, second, spacing, *, within=np.inf):
    """Distances in mm of each point of two masks to the other one; infinite from ``within`` on.

    By k-d trees of the points, in double precision, which is faster on a CT than to transform the
    volume.
    """
    from scipy.spatial import KDTree  # a fifth of a second to import

    found = []
    for mine, other in ((first, second), (second, first)):
        distances = np.zeros(np.count_nonzero(mine))
        apart = ~other[mine]
        tree = KDTree(np.argwhere(other) * spacing, balanced_tree=False, compact_nodes=False)
        points = (np.argwhere(mine) * spacing)[apart]
        distances[apart], _ = tree.query(points, distance_upper_bound=within)
        found.append(distances)
    return found


def _bounding_box(mask):
    axes = range(mask.ndim)
    spans = (np.flatnonzero(mask.any(tuple(a for a in axes if a != axis))) for axis in axes)
    return tuple(slice(s[0], s[-1] + 1) for s in spans)
