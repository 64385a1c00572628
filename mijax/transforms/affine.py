"""Affine matrices of the plane and of space, their sampling and their exact inverse."""

import math

import jax
import jax.numpy as jnp
import numpy as np


def affine_matrix(
    *, rotation=0.0, shear=0.0, scale=1.0, flip=1.0, translation=0.0, spacing=None, dims=2
):
    """Matrices of the cascade flip → scale → shear → rotate → translate.

    Each argument is a scalar or (b,); those that differ by axis may be (b, dims), in the order of
    the array. In three dimensions, rotation and shear are those of each slice, in-plane, exactly
    as in two; three angles turn about depth first, then about rows, then about columns.

    Args:
      rotation: degrees; the picture turns by this angle, counter-clockwise on a screen: from
        rows towards columns. (b, 3) with three axes: about depth thus, about rows from depth
        towards columns, about columns from depth towards rows.
      shear: degrees; rows lean by its tangent.
      scale: > 1 magnifies.
      flip: 1 or −1 an axis.
      translation: pixels; the picture moves by it.
      spacing: sizes of a pixel, ``dims`` numbers: angles are those of millimetres then, not of
        pixels. None for square or cubic ones; in-plane, the size along depth is all the same.
      dims: spatial axes, 2 or 3.

    Returns:
      (b, dims + 1, dims + 1) float32, from output to input pixels (see the module).

    Raises:
      ValueError: for other shapes, or two numbers of images.
    """
    angles = {"rotation": rotation, "shear": shear}
    by_axis = {"scale": scale, "flip": flip, "translation": translation}
    in_space = dims == 3 and np.ndim(rotation) == 2 and np.shape(rotation)[1] > 1
    widths = {"rotation": 3 if in_space else 1, "shear": 1}
    rotation, shear = (jnp.deg2rad(_column(n, x, widths[n])) for n, x in angles.items())
    scale, flip, translation = (_column(n, x, dims) for n, x in by_axis.items())
    sizes = [x.shape[0] for x in (rotation, shear, scale, flip, translation)]
    size = max(sizes)
    if set(sizes) - {1, size}:
        named = ", ".join(f"{n} {s}" for n, s in zip(angles | by_axis, sizes, strict=True))
        raise ValueError(f"one number an image, or one for all: {named}")
    # (R H S F)⁻¹ of the forward cascade: unit pulls, no matrix is inverted.
    lean = jnp.tan(shear[:, 0])
    one, zero = jnp.ones_like(lean), jnp.zeros_like(lean)
    linear = _matmul(_block(one, -lean, zero, one), _turn(rotation[:, 0]))
    if dims == 3:
        linear = _about(0, linear)
        for axis in range(1, rotation.shape[1]):
            linear = _matmul(linear, _about(axis, _turn(rotation[:, axis])))
    linear = (flip / scale)[:, :, None] * linear
    if spacing is not None:
        linear = linear * _in_pixels(spacing, dims)
    linear = jnp.broadcast_to(linear, (size, dims, dims))
    shift = -_matmul(linear, jnp.broadcast_to(translation, (size, dims))[..., None])
    return _homogeneous(linear, shift)


def inverse_affine(matrix):
    """Exact inverses of affine matrices (b, 3, 3) or (b, 4, 4), in closed form."""
    if jnp.ndim(matrix) != 3 or matrix.shape[1:] not in ((3, 3), (4, 4)):
        raise ValueError(f"matrices are (b, 3, 3) or (b, 4, 4), not {jnp.shape(matrix)}")
    n = matrix.shape[-1] - 1
    if n == 2:
        a, b, c, d = (matrix[:, i, j] for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)))
        adjugate, determinant = _block(d, -b, -c, a), a * d - b * c
    else:
        x, y, z = (matrix[:, i, :3] for i in range(3))
        adjugate = jnp.stack([jnp.cross(y, z), jnp.cross(z, x), jnp.cross(x, y)], -1)
        determinant = jnp.sum(x * adjugate[..., 0], -1)
    linear = adjugate / determinant[:, None, None]
    return _homogeneous(linear, -_matmul(linear, matrix[:, :n, n:]))


def sample_affine(
    key,
    count,
    *,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=0.0,
    quarter_turns=False,
    translation=None,
    spacing=None,
    dims=2,
):
    """Random matrices, one an image: rotation, shear, scale, flips of all axes, translation.

    In three dimensions, one number for ``rotation`` keeps slices slices: all of one volume are
    turned, sheared and scaled in-plane, alike, which is right for thick ones, and depth is but
    flipped. This is nnU-Net's choice for anisotropic voxels. Three numbers turn about (depth,
    rows, columns), and scale all axes alike.

    Args:
      key: PRNG key.
      count: b.
      rotation: degrees; uniform in ±rotation.
      shear: degrees; uniform in ±shear, below 45; in-plane.
      scale: (low, high), log-uniform, so that growing and shrinking are equally likely.
      flip: probability with which each axis is flipped; or ``dims`` of them.
      quarter_turns: whether to turn in-plane by a random multiple of 90 degrees besides.
      translation: pixels along each axis; uniform in ± these. None for none.
      spacing: see ``affine_matrix``.
      dims: spatial axes, 2 or 3.

    Returns:
      (b, dims + 1, dims + 1).

    Raises:
      ValueError: for a range that is not one.
    """
    check_ranges(rotation=rotation, shear=shear, scale=scale, flip=flip, dims=dims)
    if translation is not None and np.shape(translation) != (dims,):
        raise ValueError(f"translation is pixels along each of {dims} axes, not {translation}")
    in_plane = np.ndim(rotation) == 0
    low, high = scale
    turn_key, lean_key, grow_key, flip_key, move_key, quarter_key = jax.random.split(key, 6)
    turn, lean, grow = (
        jax.random.uniform(k, (count, *width), jnp.float32, minval=-1.0)
        for k, width in ((turn_key, np.shape(rotation)), (lean_key, ()), (grow_key, ()))
    )
    middle, half = math.log(low * high) / 2, math.log(high / low) / 2
    probability = jnp.float32([flip] if np.ndim(flip) else flip)
    signs = jnp.where(jax.random.bernoulli(flip_key, probability, (count, dims)), -1.0, 1.0)
    moves = jax.random.uniform(move_key, (count, dims), jnp.float32, minval=-1.0)
    angle = (rotation if in_plane else jnp.array([rotation], jnp.float32)) * turn
    if quarter_turns:
        quarters = jax.random.randint(quarter_key, (count,), 0, 4, jnp.int32)
        quarters = 90.0 * quarters.astype(jnp.float32)
        angle = angle + quarters if in_plane else angle.at[:, 0].add(quarters)
    size = jnp.exp(middle + half * grow)
    if dims == 3 and in_plane:
        size = jnp.stack([jnp.ones_like(size), size, size], -1)
    return affine_matrix(
        rotation=angle,
        shear=shear * lean,
        scale=size,
        flip=signs if np.any(flip) else 1.0,
        translation=moves * jnp.array([translation], jnp.float32) if np.any(translation) else 0.0,
        spacing=spacing,
        dims=dims,
    )


def reach(shape, *, rotation=0.0, shear=0.0, scale=(1.0, 1.0), quarter_turns=False, spacing=None):
    """Size of the part of an image that a warp to a smaller frame can sample.

    Args:
      shape: of the frame, (height, width) or (depth, height, width).
      rotation, shear, scale, quarter_turns, spacing: see ``sample_affine``.

    Returns:
      Pixels along each axis, about the same centre; as many more than ``shape`` on both sides.
    """
    half = (np.array(shape) - 1) / 2
    check_ranges(rotation=rotation, shear=shear, scale=scale, dims=len(half))
    shrunk = np.full(len(half), scale[0])
    if len(half) == 3 and np.ndim(rotation) == 0:
        shrunk[0] = 1.0
    size = np.ones(len(half)) if spacing is None else np.float64(spacing)
    found = half * size  # then as the matrix does: turns about columns, rows, depth; lean, scale
    angles = np.atleast_1d(rotation)
    for axis in reversed(range(len(angles))):
        a, b = (-2, -1) if axis == 0 else np.delete(range(3), axis)
        pairs = [(found[a], found[b])]
        if quarter_turns and axis == 0:
            pairs += [pairs[0][::-1]]
        turned = [[_farthest(x, y, angles[axis]), _farthest(y, x, angles[axis])] for x, y in pairs]
        found[[a, b]] = np.max(turned, 0)
    found[-2] += np.tan(np.deg2rad(shear)) * found[-1]
    more = np.ceil(found / size / shrunk - half).astype(int) + 1  # and a pixel to interpolate with
    return tuple(int(n + 2 * max(m, 0)) for n, m in zip(shape, more, strict=True))


def _farthest(along, across, degrees):
    """Largest coordinate of a rectangle of these half sizes, turned by at most an angle."""
    angle = min(np.arctan2(across, along), np.deg2rad(degrees))
    return along * np.cos(angle) + across * np.sin(angle)


def check_ranges(*, rotation, shear, scale, flip=0.0, dims=None):
    """Raises ValueError where ``sample_affine`` could not draw from these ranges.

    Without ``dims``, where it could neither in two dimensions nor in three.
    """
    if np.ndim(rotation) and (dims == 2 or np.shape(rotation) != (3,)):
        wanted = "degrees in the plane" if dims == 2 else "degrees in-plane or about each of 3 axes"
        raise ValueError(f"rotation is {wanted}, not {rotation}")
    if not all(0 <= angle <= 180 for angle in np.ravel(rotation)):
        raise ValueError(f"rotation is between 0 and 180 degrees, not {rotation}")
    if not 0 <= shear < 45:
        raise ValueError(f"shear is at least 0 and below 45 degrees, not {shear}")
    if np.shape(scale) != (2,) or not 0 < scale[0] <= scale[1]:
        raise ValueError(f"scale is (low, high) with 0 < low <= high, not {scale}")
    if np.ndim(flip) and np.shape(flip) not in ([(dims,)] if dims else [(2,), (3,)]):
        raise ValueError(f"flip is one probability or that of each axis, not {flip}")
    chances = flip if np.ndim(flip) else [flip]
    if not all(0 <= p <= 1 and not isinstance(p, bool | np.bool_) for p in chances):
        raise ValueError(f"flip is a probability, not {flip}")


def _column(name, x, width):
    x = jnp.asarray(x, jnp.float32)
    if x.ndim > 1 and x.shape[1:] not in ((1,), (width,)):
        raise ValueError(f"{name} is one number, (b,) or (b, {width}), not {x.shape}")
    x = x.reshape(-1, 1) if x.ndim < 2 else x
    return jnp.broadcast_to(x, (x.shape[0], width))


def _turn(angle):
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return _block(cos, sin, -sin, cos)


def _block(a, b, c, d):
    """(b, 2, 2) of its rows, one after the other."""
    return jnp.stack([jnp.stack([a, b], -1), jnp.stack([c, d], -1)], -2)


def _about(axis, block):
    """(b, 3, 3) that does what the block does to the two axes other than this one."""
    others = np.float32(np.delete(np.eye(3), axis, 0)[None])
    itself = np.float32(np.diag(np.arange(3) == axis)[None])
    return _matmul(_matmul(others.swapaxes(1, 2), block), others) + itself


def _in_pixels(spacing, dims):
    """Factors that make a linear map of millimetres one of pixels: D⁻¹ L D of spacings D."""
    if np.shape(spacing) != (dims,):
        raise ValueError(f"spacing is the size of a pixel along each of {dims} axes, not {spacing}")
    spacing = np.float64(spacing)
    return np.float32(spacing[None] / spacing[:, None])[None]


def _homogeneous(linear, shift):
    count, n, _ = linear.shape
    bottom = jnp.array([[*[0.0] * n, 1.0]], linear.dtype)
    bottom = jnp.broadcast_to(bottom, (count, 1, n + 1))
    return jnp.concatenate([jnp.concatenate([linear, shift], -1), bottom], -2)


def _matmul(a, b):
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
