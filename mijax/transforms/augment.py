"""Augmentation of training images: one affine warp that also crops, and intensity changes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mijax.transforms.affine import affine_matrix, sample_affine
from mijax.transforms.checks import check_frame, check_images, wide
from mijax.transforms.warp import warp, warp_labels


def augment(
    key,
    images,
    labels=None,
    *,
    crop=None,
    centres=None,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=0.0,
    quarter_turns=False,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    noise=0.0,
    blur=0.0,
    spacing=None,
):
    """Randomly crops, turns and recolours images, and their labels alike.

    Args:
      key: PRNG key.
      images: (b, *space, c), with two or three axes of space.
      labels: (b, *space) integers or None; background (0) enters from outside the frame.
      crop: (height, width) or (depth, height, width), at a random place of the frame; None keeps
        the frame. What exceeds it is 0, behind, below and to the right.
      centres: (b, axes of space) pixels that crops are centred on, as far as the frame allows, or
        NaN for a random place; None for random places.
      rotation, shear, scale, flip, quarter_turns, spacing: see ``sample_affine``.
      brightness, contrast, gamma, noise, blur: see ``jitter_intensity``.

    Returns:
      Images (b, *crop, c) and labels (b, *crop) or None, each of its type.

    Raises:
      ValueError: for images without a batch axis, labels of another shape, or a range that is
        not one.

    >>> labels = jnp.arange(2 * 9 * 9).reshape(2, 9, 9) % 4
    >>> images = labels[..., None].astype(jnp.float32)
    >>> options = {"crop": (8, 8), "flip": 0.5}
    >>> moved, moved_labels = augment(jax.random.key(0), images, labels, **options)
    >>> moved.shape, bool((moved[..., 0].astype(int) == moved_labels).all())
    ((2, 8, 8, 1), True)
    """
    images = check_images(images)
    if labels is not None and jnp.shape(labels) != images.shape[:-1]:
        raise ValueError(
            f"images {images.shape} have labels {images.shape[:-1]}, not {jnp.shape(labels)}"
        )
    affine_key, crop_key, intensity_key = jax.random.split(key, 3)
    count, *size = images.shape[:-1]
    dims = len(size)
    shape = check_frame(crop or size, dims)
    slack = np.subtract(size, shape)
    # Whole pixels, so that a crop without a rotation copies the image.
    corner = jax.random.randint(crop_key, (count, dims), 0, slack[None] + 1, jnp.int32)
    if centres is not None:
        if jnp.shape(centres) != (count, dims):
            raise ValueError(f"centres are {count, dims}, not {jnp.shape(centres)}")
        around = jnp.round(centres).astype(jnp.int32) - np.int32(shape)[None] // 2
        around = jnp.clip(around, 0, np.int32(np.maximum(slack, 0))[None])
        corner = jnp.where(jnp.isnan(centres), corner, around)
    shift = jnp.float32(slack[None] / 2) - corner.astype(jnp.float32)
    place = affine_matrix(translation=shift, dims=dims)
    turn = sample_affine(
        affine_key,
        count,
        rotation=rotation,
        shear=shear,
        scale=scale,
        flip=flip,
        quarter_turns=quarter_turns,
        spacing=spacing,
        dims=dims,
    )
    matrix = jnp.matmul(place, turn, precision=jax.lax.Precision.HIGHEST)
    images = jitter_intensity(
        intensity_key,
        warp(images, matrix, shape=shape, in_plane=np.ndim(rotation) == 0),
        brightness=brightness,
        contrast=contrast,
        gamma=gamma,
        noise=noise,
        blur=blur,
    )
    return images, None if labels is None else warp_labels(labels, matrix, shape=shape)


def jitter_intensity(key, images, *, brightness=0.0, contrast=0.0, gamma=0.0, noise=0.0, blur=0.0):
    """Random brightness, contrast, gamma, noise and blur, one draw an image.

    Args:
      key: PRNG key.
      images: (b, *space, c), with two or three axes of space.
      brightness: added, uniform in ±brightness.
      contrast: factor about the mean of each channel, log-uniform in exp(±contrast).
      gamma: exponent, log-uniform in exp(±gamma), on each channel stretched to [0, 1] between its
        own extremes, and back: as nnU-Net, which draws one a channel.
      noise: standard deviation of Gaussian noise, uniform in [0, noise].
      blur: standard deviation of a Gaussian blur in pixels, uniform in [0, blur]; after the noise.
        In 3-D it is that of all three axes, thick slices or not: nnU-Net blurs all of them too.

    Returns:
      (b, *space, c), not clipped. Of their type, and computed in float32 or wider.

    A strength of 0 leaves that change out. Under ``jit`` all but ``blur`` may be traced, and are
    then applied whatever they are.

    Raises:
      ValueError: for images without a batch axis, a strength below 0, or a traced ``blur``.
    """
    given = check_images(images)
    strengths = {"brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise}
    applied = {name: _is_applied(name, x) for name, x in strengths.items()}
    if isinstance(blur, jax.core.Tracer):
        raise ValueError("blur sets how many pixels are summed: a number, static under jit")
    images = wide(given)
    keys = jax.random.split(key, 6)
    space = tuple(range(1, images.ndim - 1))

    def draw(k, strength, low=-1.0):
        shape = len(images), *[1] * (images.ndim - 1)
        uniform = jax.random.uniform(k, shape, jnp.float32, minval=low)
        return (strength * uniform).astype(images.dtype)

    if applied["gamma"]:
        low, high = (f(images, axis=space, keepdims=True) for f in (jnp.min, jnp.max))
        span = jnp.maximum(high - low, 1e-7)
        stretched = (images - low) / span
        # Not of 0, where the slope of a power may be infinite and the gradient NaN.
        above = stretched > 0
        power = jnp.where(above, stretched, 1.0) ** jnp.exp(draw(keys[0], gamma))
        images = low + span * jnp.where(above, power, 0.0)
    if applied["contrast"]:
        mean = jnp.mean(images, axis=space, keepdims=True)
        images = mean + (images - mean) * jnp.exp(draw(keys[1], contrast))
    if applied["brightness"]:
        images = images + draw(keys[2], brightness)
    if applied["noise"]:
        normal = jax.random.normal(keys[3], images.shape, images.dtype)
        images = images + draw(keys[4], noise, low=0.0) * normal
    if _is_applied("blur", blur):
        deviation = draw(keys[5], blur, low=0.0).ravel()
        images = gaussian_blur(images, deviation, radius=math.ceil(3 * blur))
    return images.astype(given.dtype)


def gaussian_blur(images, deviation, *, radius):
    """Blurs each image by a Gaussian of its own; beyond its border an image goes on unchanged.

    Args:
      images: (b, *space, c), with two or three axes of space.
      deviation: (b,) standard deviations in pixels, the same along all axes of
        space; 0 leaves an image as it is.
      radius: pixels at which the Gaussian is cut off, the same for all.

    Returns:
      (b, *space, c), of the type of the images.

    Raises:
      ValueError: for images without a batch axis, other than one deviation an image, or a
        negative radius.
    """
    given = check_images(images)
    if jnp.shape(deviation) != given.shape[:1]:
        raise ValueError(f"deviation is {given.shape[:1]}, not {jnp.shape(deviation)}")
    if radius < 0:
        raise ValueError(f"radius is at least 0, not {radius}")
    images = wide(given)
    offsets = jnp.arange(-radius, radius + 1, dtype=images.dtype)[None]
    deviation = jnp.maximum(jnp.asarray(deviation, images.dtype)[:, None], 1e-3)
    exponent = -0.5 * (offsets / deviation) ** 2
    weights = jax.nn.softmax(exponent, axis=-1)
    weights = weights[(..., *[None] * (images.ndim - 1))]
    for axis in range(1, images.ndim - 1):
        length = images.shape[axis]
        padding = [(radius, radius) if a == axis else (0, 0) for a in range(images.ndim)]
        padded = jnp.pad(images, padding, mode="edge")
        shifted = (
            jax.lax.slice_in_dim(padded, i, i + length, axis=axis) for i in range(2 * radius + 1)
        )
        images = sum(weights[:, i] * x for i, x in enumerate(shifted))
    return images.astype(given.dtype)


def _is_applied(name, strength):
    """Whether a change is made: not where its strength is known to be 0."""
    if isinstance(strength, jax.core.Tracer):
        return True
    if not strength >= 0:
        raise ValueError(f"{name} is at least 0, not {strength}")
    return strength > 0
