"""Volumes of the classes of a label map."""

import numpy as np


def class_volumes(labels, *, affine, classes):
    """Volume of each foreground class, in ml.

    Args:
      labels: (x, y, z) integers from 0 on.
      affine: (4, 4), voxels to millimetres.
      classes: k, background included.

    Returns:
      (k − 1,) float64. The error of a prediction is its volumes less those of the annotation:
      positive where too much was found, and defined where both are empty.

    >>> labels = np.zeros((10, 10, 10), np.uint8)
    >>> labels[2:7] = 1  # 500 voxels of 2 mm³
    >>> class_volumes(labels, affine=np.diag([1.0, 1.0, 2.0, 1.0]), classes=2)
    array([1.])
    """
    counts = np.bincount(labels.ravel(), minlength=classes)[1:classes]
    return counts * abs(np.linalg.det(affine[:3, :3])) / 1000
