"""Resampling of image batches through affine matrices, and where it stayed in the frame."""

import functools
import itertools
import operator

import jax
import jax.numpy as jnp
import numpy as np

from mijax.transforms.checks import check_frame, check_images, check_labels, wide

EDGE = 1e-3  # how much of a pixel may come from outside the frame and it still count as inside
GATHER_LIMIT = 2.0  # largest ‖inverse‖∞ for which the gathered gradient is exact


def warp(images, matrix, *, inverse=None, shape=None, in_plane=False):
    """Bilinear or trilinear resampling: out[u] = images[matrix · u], zero outside the frame.

    Linear in ``images``: probability maps stay probability maps inside the frame. Its exact
    gradient adds each pixel's cotangent to 2ⁿ others, a scatter, which is slow and, on a
    GPU, not deterministic. Given ``inverse`` the same sum is gathered instead, from the at
    most 4ⁿ output pixels around inverse · u. (64 are many: on a CPU the scatter takes a quarter of
    the time then; ``in_plane`` about the same.) There is no gradient with respect to a matrix.

    Args:
      images: (b, h, w, c) or (b, d, h, w, c) float: n = 2 or 3.
      matrix: (b, n + 1, n + 1), output to input pixels, from the image centres.
      inverse: (b, n + 1, n + 1) or None, the inverse of ``matrix``. The gradient is exact as
        long as the absolute row sums of its linear part are at most 2: any rotation with a
        scale of ``matrix`` (output over input) down to √n/2.
      shape: of the output, (height, width) or (depth, height, width); that of ``images`` by
        default.
      in_plane: True where the slices of a volume stay slices, at most reversed or moved by whole
        ones, so that a pixel has 4 others in place of 8, and 16 of 64. Static, and on trust.

    Returns:
      (b, *shape, c), summed in float32 or wider.

    Raises:
      ValueError: for images of integers or without a batch axis, for other than one matrix an
        image, and where a concrete ``inverse`` exceeds the limit; traced ones are on trust.

    >>> image = jnp.array([[1.0, 2.0, 3.0]]).reshape(1, 1, 3, 1)
    >>> right = affine_matrix(translation=jnp.array([[0.0, 0.5]]))  # by half a pixel
    >>> warp(image, right)[0, 0, :, 0]
    Array([0.5, 1.5, 2.5], dtype=float32)
    """
    images = check_images(images)
    size = images.shape[1:-1]
    shape = check_frame(size if shape is None else shape, len(size))
    matrix = jax.lax.stop_gradient(_check_matrix(matrix, len(images), len(size)))
    if inverse is None:
        return _linear(images, matrix, shape, in_plane)
    if not isinstance(inverse, jax.core.Tracer):
        norm = float(np.abs(np.asarray(inverse)[..., :-1, :-1]).sum(-1).max())
        if norm > GATHER_LIMIT + 1e-5:
            raise ValueError(f"‖inverse‖∞ is {norm:.3f}, over {GATHER_LIMIT}: leave inverse out")
    inverse = jax.lax.stop_gradient(_check_matrix(inverse, len(images), len(size)))
    return _warp_gathered(images, matrix, inverse, shape, in_plane)


def warp_labels(labels, matrix, *, shape=None, fill=0):
    """Nearest-neighbour resampling of label maps.

    Args:
      labels: (b, h, w) or (b, d, h, w) integers.
      matrix, shape: see ``warp``.
      fill: the label outside the frame.

    Returns:
      (b, *shape).

    Raises:
      ValueError: for labels without a batch axis, or other than one matrix an image.
    """
    check_labels(labels)
    size = labels.shape[1:]
    matrix = _check_matrix(matrix, len(labels), len(size))
    shape = check_frame(size if shape is None else shape, len(size))
    pixel = [jnp.round(x).astype(jnp.int32) for x in _sources(matrix, shape, size)]
    return jnp.where(_inside(pixel, size), _take(labels[..., None], pixel)[..., 0], fill)


def coverage(matrix, shape):
    """What ``warp`` makes of an image of ones, in closed form: 1 well inside, 0 outside.

    Args:
      matrix: (b, n + 1, n + 1), see ``warp``.
      shape: of input and output.

    Returns:
      (b, *shape).
    """
    shape = check_frame(shape, matrix.shape[-1] - 1)
    return _coverage(_sources(wide(matrix), shape, shape), shape)


def validity(matrix, inverse, shape):
    """Pixels that stay inside the frame through ``matrix`` and back: (b, *shape), 0 or 1.

    1 where warping an image by ``matrix`` and the result by ``inverse`` used no pixel from
    outside, so that the two maps may be compared there.
    """
    shape = check_frame(shape, matrix.shape[-1] - 1)
    matrix, inverse = wide(matrix), wide(inverse)
    there_and_back = 0.0
    for pixel, weight in _taps(_sources(inverse, shape, shape)):
        there = _coverage(_apply(matrix, pixel, shape, shape), shape)
        there_and_back += jnp.where(_inside(pixel, shape), weight, 0.0) * there
    return (there_and_back > 1 - EDGE).astype(jnp.float32)


def _coverage(places, size):
    """The sum of the weights of those of the 2ⁿ pixels around a place that are in the frame."""
    return _product(
        jnp.clip(jnp.minimum(x + 1, n - x), 0, 1) for x, n in zip(places, size, strict=True)
    )


def _around(places, offsets, in_plane):
    """A pixel near each place, and all steps from there that make up its surroundings."""
    whole = 1 if in_plane and len(places) == 3 else 0  # axes with but one pixel near a place
    first = [jnp.round(x) if i < whole else jnp.floor(x) for i, x in enumerate(places)]
    steps = [(0,) if i < whole else offsets for i in range(len(places))]
    return first, list(itertools.product(*steps))


def _moved(first, step):
    return [x + i for x, i in zip(first, step, strict=True)]


def _taps(places, in_plane=False):
    """The 2ⁿ pixels around each place, as n coordinates and a weight, all (b, *shape)."""
    first, steps = _around(places, (0, 1), in_plane)
    for step in steps:
        pixel = _moved(first, step)
        yield pixel, _product(1 - jnp.abs(x - p) for x, p in zip(places, pixel, strict=True))


def _linear(images, matrix, shape, in_plane):
    out = 0.0
    for pixel, weight in _taps(_sources(matrix, shape, images.shape[1:-1]), in_plane):
        out = out + _weighted_take(images, pixel, weight)
    return out.astype(images.dtype)


def _warp_gathered(images, matrix, inverse, shape, in_plane):
    """``_linear`` with its transpose gathered, for derivatives either way and of any order."""
    size = images.shape[1:-1]
    frame = tuple(max(n) for n in zip(size, shape, strict=True))

    def forward(_, x):
        return _fit(_linear(_fit(x, size), matrix, shape, in_plane), frame)

    def transpose(_, x):
        return _fit(_gather(_fit(x, shape), matrix, inverse, size, in_plane), frame)

    # No system is solved: of all that takes a linear function with a transpose of one's own, this
    # alone has forward mode, reverse mode and vmap. It asks for one shape of input and output.
    warped = jax.lax.custom_linear_solve(lambda x: x, _fit(images, frame), forward, transpose)
    return _fit(warped, shape)


def _gather(cotangent, matrix, inverse, size, in_plane):
    """The transpose of ``_linear``: to images of that size."""
    # d out[o] / d images[i] is the hat Π max(0, 1 − |x|) of x = M·o − i. It vanishes unless
    # ‖o − M⁻¹ i‖∞ < ‖M⁻¹‖∞ ≤ 2, so four pixels an axis hold all o.
    # After it is known: otherwise XLA prepares weights of all taps, far larger than it, and keeps
    # them from the forward pass on.
    matrix, inverse, cotangent = jax.lax.optimization_barrier((matrix, inverse, cotangent))
    shape = cotangent.shape[1:-1]
    places, own = _sources(inverse, size, shape), _grid(size, matrix.dtype)
    first, steps = _around(places, (-1, 0, 1, 2), in_plane)

    @jax.jit  # so that it is traced once, not for each tap
    def tap(*pixel):
        source = _apply(matrix, pixel, shape, size)
        hats = (jax.nn.relu(1 - jnp.abs(x - i)) for x, i in zip(source, own, strict=True))
        return _weighted_take(cotangent, pixel, _product(hats))

    total = 0.0
    if len(steps) <= 16:
        for step in steps:
            total = total + tap(*_moved(first, step))
    else:  # 64 in a row take half a minute to compile, and more memory
        total = tap(*_moved(first, steps[0]))
        steps = jnp.array(steps[1:], matrix.dtype)
        total, _ = jax.lax.scan(
            lambda sofar, step: (sofar + tap(*_moved(first, step)), None), total, steps, unroll=3
        )
    return total.astype(cotangent.dtype)


def _fit(x, shape):
    """``x`` (b, *space, c) cut to the shape, or zero-padded to it, below and to the right."""
    more = [(0, n - m, 0) for n, m in zip(shape, x.shape[1:-1], strict=True)]  # or less
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *more, (0, 0, 0)])


def _check_matrix(matrix, count, dims):
    if jnp.shape(matrix) != (count, dims + 1, dims + 1):
        given = f"{count} images, not {jnp.shape(matrix)}"
        raise ValueError(f"a matrix (b, {dims + 1}, {dims + 1}) of {given}")
    return wide(matrix)


def _grid(shape, dtype):
    """Coordinates of the pixels of a frame, each (1, 1, …, n, …, 1)."""
    axes = range(len(shape) + 1)
    return [
        jnp.arange(n, dtype=dtype)[tuple(slice(None) if a == i else None for a in axes)]
        for i, n in enumerate(shape, 1)
    ]


def _sources(matrix, shape, size):
    """Where in a ``size`` frame each pixel of a ``shape`` frame is from: n times (b, *shape)."""
    return _apply(matrix, _grid(shape, matrix.dtype), shape, size)


def _apply(matrix, pixel, shape, size):
    centred = [x - (n - 1) / 2 for x, n in zip(pixel, shape, strict=True)]
    m = matrix[(..., *[None] * len(shape))]
    return [
        functools.reduce(operator.add, (m[:, i, j] * x for j, x in enumerate(centred)))
        + m[:, i, -1]
        + (n - 1) / 2
        for i, n in enumerate(size)
    ]


def _weighted_take(images, pixel, weight):
    inside = _inside(pixel, images.shape[1:-1])
    values = wide(_take(images, [x.astype(jnp.int32) for x in pixel]))
    return jnp.where(inside, weight, 0.0)[..., None].astype(values.dtype) * values


def _inside(pixel, size):
    sides = ((x >= 0) & (x < n) for x, n in zip(pixel, size, strict=True))
    return functools.reduce(operator.and_, sides)


def _take(images, pixel):
    b, *size, c = images.shape
    index, *others = (jnp.clip(x, 0, n - 1) for x, n in zip(pixel, size, strict=True))
    for x, n in zip(others, size[1:], strict=True):
        index = index * n + x
    flat = jnp.take_along_axis(
        images.reshape(b, -1, c), index.reshape(b, -1, 1), axis=1, mode="promise_in_bounds"
    )
    return flat.reshape(*index.shape, c)


def _product(factors):
    return functools.reduce(operator.mul, factors)
