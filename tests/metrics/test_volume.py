"""Volumes in ml, by hand."""

import numpy as np

from mijax.metrics import class_volumes


def test_voxels_of_a_sheared_grid_are_parallelepipeds():
    labels = np.zeros((10, 10, 20), np.uint8)
    labels[:5], labels[5] = 1, 3
    affine = np.array([[-1, 0, 0.5, 7], [0, 2, 0.5, 0], [0, 0, 3, 0], [0, 0, 0, 1]], float)
    found = class_volumes(labels, affine=affine, classes=5)  # the determinant is −6
    np.testing.assert_allclose(found, [6.0, 0, 1.2, 0])
