"""Spatial and intensity transformations of image batches, on the device, differentiable.

Images are (b, h, w, c) float and volumes (b, d, h, w, c); label maps are (b, h, w) or (b, d, h, w)
integer. A spatial transformation is a batch of matrices (b, 3, 3) or (b, 4, 4) that send a pixel of
the *output* to the place in the *input* it is sampled from, in pixels from the image centre, axes
in the order of the array. In-plane is along rows and columns. Angles are in degrees, intensities
are expected in about [0, 1]. Random functions take ``key`` first.
"""

from mijax.transforms.affine import (
    affine_matrix,
    check_ranges,
    inverse_affine,
    reach,
    sample_affine,
)
from mijax.transforms.augment import augment, gaussian_blur, jitter_intensity
from mijax.transforms.components import largest_components
from mijax.transforms.mix import check_boxes, paste, place_boxes, sample_boxes
from mijax.transforms.view import View, sample_view
from mijax.transforms.warp import validity, warp, warp_labels

__all__ = [
    "View",
    "affine_matrix",
    "augment",
    "check_boxes",
    "check_ranges",
    "gaussian_blur",
    "inverse_affine",
    "jitter_intensity",
    "largest_components",
    "paste",
    "place_boxes",
    "reach",
    "sample_affine",
    "sample_boxes",
    "sample_view",
    "validity",
    "warp",
    "warp_labels",
]
