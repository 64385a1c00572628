"""Connected components of label maps."""

import numpy as np
from scipy import ndimage

_NEIGHBOURS = np.ones((3, 3, 3), bool)  # voxels that share a corner hang together


def largest_components(labels):
    """A label map with the largest component of each class; the others become background.

    For structures of which a patient has one: what lies apart from it is taken for a mistake.
    Components are three-dimensional, of voxels that share a face, an edge or a corner.

    Args:
      labels: (x, y, z) unsigned integers, 0 is the background; left as it is.

    Returns:
      The same with each class in one piece, of equally large ones the first.

    Raises:
      ValueError: for labels that are no volume of integers.

    >>> largest_components(np.array([[[1, 0, 1, 1, 2]]], np.uint8)).tolist()
    [[[0, 0, 1, 1, 2]]]
    """
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ValueError(f"labels are (x, y, z) integers, not {labels.shape} {labels.dtype}")
    kept = np.zeros_like(labels)
    for value, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is not None:
            parts, _ = ndimage.label(labels[box] == value, _NEIGHBOURS)
            largest = np.bincount(parts.ravel())[1:].argmax() + 1
            kept[box][parts == largest] = value
    return kept
