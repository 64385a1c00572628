"""Affine matrices of the plane, their sampling and their exact inverse."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def affine_matrix(*, rotation=0.0, shear=0.0, scale=1.0, flip=1.0, translation=0.0):
    """Matrices of the cascade flip → scale → shear → rotate → translate.

    Each argument is a scalar or (b,); the two that differ by axis may be (b, 2), rows first.

    Args:
      rotation: degrees; the picture turns by this angle, counter-clockwise on a screen.
      shear: degrees; rows lean by its tangent.
      scale: > 1 magnifies.
      flip: 1 or −1 an axis.
      translation: pixels; the picture moves by it.

    Returns:
      (b, 3, 3) float32, from output to input pixels (see the module).

    Raises:
      ValueError: for other shapes, or two numbers of images.
    """
    angles = {"rotation": rotation, "shear": shear}
    by_axis = {"scale": scale, "flip": flip, "translation": translation}
    rotation, shear = (jnp.deg2rad(_column(n, x, 1)[:, 0]) for n, x in angles.items())
    scale, flip, translation = (_column(n, x, 2) for n, x in by_axis.items())
    sizes = [x.shape[0] for x in (rotation, shear, scale, flip, translation)]
    size = max(sizes)
    if set(sizes) - {1, size}:
        named = ", ".join(f"{n} {s}" for n, s in zip(angles | by_axis, sizes, strict=True))
        raise ValueError(f"one number an image, or one for all: {named}")
    cos, sin, lean = jnp.cos(rotation), jnp.sin(rotation), jnp.tan(shear)
    # (R H S F)⁻¹ of the forward cascade: unit pulls, no matrix is inverted.
    turn = jnp.stack([jnp.stack([cos, sin], -1), jnp.stack([-sin, cos], -1)], -2)
    one, zero = jnp.ones_like(lean), jnp.zeros_like(lean)
    unlean = jnp.stack([jnp.stack([one, -lean], -1), jnp.stack([zero, one], -1)], -2)
    linear = (flip / scale)[:, :, None] * _matmul(unlean, turn)
    linear = jnp.broadcast_to(linear, (size, 2, 2))
    shift = -_matmul(linear, jnp.broadcast_to(translation, (size, 2))[..., None])
    return _homogeneous(linear, shift)


def inverse_affine(matrix):
    """Exact inverses (b, 3, 3) of affine matrices (b, 3, 3), in closed form."""
    if jnp.ndim(matrix) != 3 or matrix.shape[1:] != (3, 3):
        raise ValueError(f"matrices are (b, 3, 3), not {jnp.shape(matrix)}")
    a, b, c, d = (matrix[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
    adjugate = jnp.stack([jnp.stack([d, -b], -1), jnp.stack([-c, a], -1)], -2)
    linear = adjugate / (a * d - b * c)[:, None, None]
    return _homogeneous(linear, -_matmul(linear, matrix[:, :2, 2:]))


def sample_affine(
    key,
    count,
    *,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=False,
    quarter_turns=False,
    translation=(0.0, 0.0),
):
    """Random matrices, one an image: rotation, shear, scale, flips of both axes, translation.

    Args:
      key: PRNG key.
      count: b.
      rotation: degrees; uniform in ±rotation.
      shear: degrees; uniform in ±shear, below 45.
      scale: (low, high), log-uniform, so that growing and shrinking are equally likely.
      flip: probability with which each axis is flipped; True for 1/2.
      quarter_turns: whether to turn by a random multiple of 90 degrees besides.
      translation: pixels along rows and columns; uniform in ± these.

    Returns:
      (b, 3, 3).

    Raises:
      ValueError: for a range that is not one.
    """
    check_ranges(rotation=rotation, shear=shear, scale=scale, flip=flip)
    if np.shape(translation) != (2,):
        raise ValueError(f"translation is pixels along (rows, columns), not {translation}")
    low, high = scale
    turn_key, lean_key, grow_key, flip_key, move_key, quarter_key = jax.random.split(key, 6)
    turn, lean, grow = (
        jax.random.uniform(k, (count,), jnp.float32, minval=-1.0)
        for k in (turn_key, lean_key, grow_key)
    )
    middle, half = math.log(low * high) / 2, math.log(high / low) / 2
    probability = jnp.float32(0.5 if flip is True else flip)
    signs = jnp.where(jax.random.bernoulli(flip_key, probability, (count, 2)), -1.0, 1.0)
    moves = jax.random.uniform(move_key, (count, 2), jnp.float32, minval=-1.0)
    angle = rotation * turn
    if quarter_turns:
        quarters = jax.random.randint(quarter_key, (count,), 0, 4, jnp.int32)
        angle = angle + 90.0 * quarters.astype(jnp.float32)
    return affine_matrix(
        rotation=angle,
        shear=shear * lean,
        scale=jnp.exp(middle + half * grow),
        flip=signs if flip else 1.0,
        translation=moves * jnp.array([translation], jnp.float32) if any(translation) else 0.0,
    )


def check_ranges(*, rotation, shear, scale, flip=False):
    """Raises ValueError where ``sample_affine`` could not draw from these ranges."""
    if not 0 <= rotation <= 180:
        raise ValueError(f"rotation is between 0 and 180 degrees, not {rotation}")
    if not 0 <= shear < 45:
        raise ValueError(f"shear is at least 0 and below 45 degrees, not {shear}")
    if np.shape(scale) != (2,) or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"scale is (low, high) with 0 < low <= high, not {scale}")
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is a probability, not {flip}")


def _column(name, x, width):
    x = jnp.asarray(x, jnp.float32)
    if x.ndim > 1 and x.shape[1:] not in ((1,), (width,)):
        raise ValueError(f"{name} is one number, (b,) or (b, {width}), not {x.shape}")
    x = x.reshape(-1, 1) if x.ndim < 2 else x
    return jnp.broadcast_to(x, (x.shape[0], width))


def _homogeneous(linear, shift):
    bottom = jnp.broadcast_to(jnp.array([[0.0, 0.0, 1.0]], linear.dtype), (linear.shape[0], 1, 3))
    return jnp.concatenate([jnp.concatenate([linear, shift], -1), bottom], -2)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
