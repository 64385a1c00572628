"""What is wrong with an argument is said in its name, with the shape wanted and the one given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mijax import metrics, transforms

KEY = jax.random.key(0)
IMAGES, LABELS = np.ones((2, 4, 5, 1), np.float32), np.ones((2, 4, 5), np.int32)
SPACE, IN_SPACE = np.ones((2, 3, 4, 5, 1), np.float32), np.tile(np.eye(4), (2, 1, 1))
BYTES = np.ones((2, 4, 5, 1), np.uint8)
TWO = transforms.affine_matrix(rotation=np.zeros(2))
VIEW = transforms.sample_view(KEY, 2)
VOLUME = np.ones((3, 3, 3), np.uint8)

MISTAKES = {
    "warp, matrix": (
        lambda: transforms.warp(IMAGES, TWO[:1]),
        r"matrix \(b, 3, 3\) of 2 images, not \(1, 3, 3\)",
    ),
    "warp, inverse": (
        lambda: transforms.warp(IMAGES, TWO, inverse=TWO[0]),
        r"of 2 images, not \(3, 3\)",
    ),
    "warp, shape": (
        lambda: transforms.warp(IMAGES, TWO, shape=4),
        r"a shape is \(height, width\), not 4",
    ),
    "warp_labels": (
        lambda: transforms.warp_labels(LABELS[0], TWO),
        r"labels are \(b, h, w\) or \(b, d, h, w\) integers, not \(4, 5\) int32",
    ),
    "warp_labels, matrix": (
        lambda: transforms.warp_labels(LABELS, TWO[:1]),
        r"of 2 images, not \(1, 3, 3\)",
    ),
    "validity": (lambda: transforms.validity(TWO, TWO, 4), "a shape is .*, not 4"),
    "view, images": (
        lambda: VIEW.apply(IMAGES[:1]),
        r"of 1 images, not \(2, 3, 3\)",
    ),
    "view, mask": (lambda: VIEW.mask((4, 5, 1)), r"a shape is .*, not \(4, 5, 1\)"),
    "sample_view, scale": (
        lambda: transforms.sample_view(KEY, 2, scale=1.1),
        r"scale is \(low, high\) with 0 < low <= high, not 1.1",
    ),
    "sample_view, translation": (
        lambda: transforms.sample_view(KEY, 2, translation=(0.1, 0.1), shape=(4, 5)),
        r"translation is one part of the sides of the frame, not \(0.1, 0.1\)",
    ),
    "sample_view, shape": (
        lambda: transforms.sample_view(KEY, 2, translation=0.1, shape=4),
        "a shape is .*, not 4",
    ),
    "sample_affine": (
        lambda: transforms.sample_affine(KEY, 2, translation=3.0),
        "translation is pixels along each of 2 axes, not 3.0",
    ),
    "affine_matrix, shape": (
        lambda: transforms.affine_matrix(scale=np.ones((2, 3))),
        r"scale is one number, \(b,\) or \(b, 2\), not \(2, 3\)",
    ),
    "affine_matrix, count": (
        lambda: transforms.affine_matrix(scale=np.ones(2), rotation=np.ones(3)),
        "one number an image, or one for all: rotation 3, shear 1, scale 2",
    ),
    "inverse_affine": (
        lambda: transforms.inverse_affine(TWO[0]),
        r"matrices are \(b, 3, 3\) or \(b, 4, 4\), not \(3, 3\)",
    ),
    "augment, crop": (
        lambda: transforms.augment(KEY, IMAGES, crop=4),
        "a shape is .*, not 4",
    ),
    "augment, labels": (
        lambda: transforms.augment(KEY, IMAGES, LABELS[:1]),
        r"have labels \(2, 4, 5\), not \(1, 4, 5\)",
    ),
    "jitter_intensity, integers": (
        lambda: transforms.jitter_intensity(KEY, BYTES, noise=0.1),
        "images are floats, not uint8",
    ),
    "jitter_intensity, strength": (
        lambda: transforms.jitter_intensity(KEY, IMAGES, noise=-0.1),
        "noise is at least 0, not -0.1",
    ),
    "gaussian_blur, images": (
        lambda: transforms.gaussian_blur(IMAGES[0], jnp.ones(2), radius=1),
        r"images are \(b, h, w, c\) or \(b, d, h, w, c\), not \(4, 5, 1\)",
    ),
    "gaussian_blur, deviation": (
        lambda: transforms.gaussian_blur(IMAGES, 1.0, radius=1),
        r"deviation is \(2,\), not \(\)",
    ),
    "gaussian_blur, radius": (
        lambda: transforms.gaussian_blur(IMAGES, jnp.ones(2), radius=-1),
        "radius is at least 0, not -1",
    ),
    "largest_components": (
        lambda: transforms.largest_components(LABELS[0], 2),
        r"labels are \(b, h, w\) or \(b, d, h, w\) integers, not \(4, 5\)",
    ),
    "place_boxes, sides": (
        lambda: transforms.place_boxes(KEY, jnp.ones(2), (4, 5)),
        r"sides are \(b, 2\), not \(2,\)",
    ),
    "sample_boxes, shape": (lambda: transforms.sample_boxes(KEY, 2, 4), "a shape is .*, not 4"),
    "paste, others": (
        lambda: transforms.paste(LABELS, IMAGES, IMAGES[:1]),
        r"images and others of one shape, not \(2, 4, 5, 1\), \(1, 4, 5, 1\)",
    ),
    "paste, boxes": (
        lambda: transforms.paste(LABELS[:, :3], IMAGES, IMAGES),
        r"have boxes \(2, 4, 5\), not \(2, 3, 5\)",
    ),
    "warp, a volume by a matrix of the plane": (
        lambda: transforms.warp(SPACE, TWO),
        r"a matrix \(b, 4, 4\) of 2 images, not \(2, 3, 3\)",
    ),
    "warp, a volume to a shape of the plane": (
        lambda: transforms.warp(SPACE, IN_SPACE, shape=(4, 5)),
        r"a shape is \(depth, height, width\), not \(4, 5\)",
    ),
    "warp, four axes of space": (
        lambda: transforms.warp(SPACE[:, None], IN_SPACE),
        r"\(b, d, h, w, c\), not \(2, 1, 3, 4, 5, 1\)",
    ),
    "warp_labels, a volume": (
        lambda: transforms.warp_labels(SPACE[..., 0].astype(int), TWO),
        r"a matrix \(b, 4, 4\) of 2 images, not \(2, 3, 3\)",
    ),
    "validity, a volume": (
        lambda: transforms.validity(IN_SPACE, IN_SPACE, (4, 5)),
        r"a shape is \(depth, height, width\), not \(4, 5\)",
    ),
    "view, a volume": (
        lambda: VIEW.apply(SPACE),
        r"a shape is \(height, width\), not \(3, 4, 5\)",
    ),
    "affine_matrix, a volume": (
        lambda: transforms.affine_matrix(rotation=np.ones((2, 2)), dims=3),
        r"rotation is one number, \(b,\) or \(b, 3\), not \(2, 2\)",
    ),
    "augment, crop of the plane": (
        lambda: transforms.augment(KEY, SPACE, crop=(4, 4)),
        r"a shape is \(depth, height, width\), not \(4, 4\)",
    ),
    "augment, labels of the plane": (
        lambda: transforms.augment(KEY, SPACE, LABELS),
        r"have labels \(2, 3, 4, 5\), not \(2, 4, 5\)",
    ),
    "place_boxes, a volume": (
        lambda: transforms.place_boxes(KEY, jnp.ones((2, 2)), (3, 4, 5)),
        r"sides are \(b, 3\), not \(2, 2\)",
    ),
    "paste, boxes of the plane": (
        lambda: transforms.paste(LABELS, SPACE, SPACE),
        r"have boxes \(2, 3, 4\), not \(2, 4, 5\)",
    ),
    "metrics.largest_components": (
        lambda: metrics.largest_components(VOLUME[0]),
        r"labels are \(x, y, z\) integers, not \(3, 3\) uint8",
    ),
    "metrics.dice": (
        lambda: metrics.dice(VOLUME.astype(float), VOLUME, classes=2),
        "prediction is integers from 0 on, not float64",
    ),
    "metrics.surface_distances": (
        lambda: metrics.surface_distances(VOLUME > 0, VOLUME > 0, spacing=(1.0, 1.0)),
        r"spacing is one number an axis of \(3, 3, 3\), not \(1.0, 1.0\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_message_names_what_was_wanted_and_what_was_given(mistake):
    call, message = MISTAKES[mistake]
    with pytest.raises(ValueError, match=message):
        call()
