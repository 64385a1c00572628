"""Resampling of image batches through affine matrices, and where it stayed in the frame."""

import jax
import jax.numpy as jnp
import numpy as np

EDGE = 1e-3  # how much of a pixel may come from outside the frame and it still count as inside
GATHER_LIMIT = 2.0  # largest ‖inverse‖∞ for which the gathered gradient is exact


def warp(images, matrix, *, inverse=None, shape=None):
    """Bilinear resampling: out[u] = images[matrix · u], zero outside the frame.

    Linear in ``images``: probability maps stay probability maps inside the frame. Its exact
    gradient adds each pixel's cotangent to four others, a scatter, which is slow and, on a
    GPU, not deterministic. Given ``inverse`` the same sum is gathered instead, from the at
    most 16 output pixels around inverse · u. There is no gradient with respect to a matrix.

    Args:
      images: (b, h, w, c) float.
      matrix: (b, 3, 3), output to input pixels, from the image centres.
      inverse: (b, 3, 3) or None, the inverse of ``matrix``. The gradient is exact as long
        as the absolute row sums of its linear part are at most 2: any rotation with a scale
        of ``matrix`` (output over input) down to √2/2.
      shape: (height, width) of the output; that of ``images`` by default.

    Returns:
      (b, height, width, c), summed in float32 or wider.

    Raises:
      ValueError: for images of integers or without a batch axis, for other than one matrix an
        image, and where a concrete ``inverse`` exceeds the limit; traced ones are on trust.

    >>> image = jnp.array([[1.0, 2.0, 3.0]]).reshape(1, 1, 3, 1)
    >>> right = affine_matrix(translation=jnp.array([[0.0, 0.5]]))  # by half a pixel
    >>> warp(image, right)[0, 0, :, 0]
    Array([0.5, 1.5, 2.5], dtype=float32)
    """
    images = check_images(images)
    shape = check_frame(images.shape[1:3] if shape is None else shape)
    matrix = jax.lax.stop_gradient(_check_matrix(matrix, images))
    if inverse is None:
        return _bilinear(images, matrix, shape)
    if not isinstance(inverse, jax.core.Tracer):
        norm = float(np.abs(np.asarray(inverse)[..., :2, :2]).sum(-1).max())
        if norm > GATHER_LIMIT + 1e-5:
            raise ValueError(f"‖inverse‖∞ is {norm:.3f}, over {GATHER_LIMIT}: leave inverse out")
    inverse = jax.lax.stop_gradient(_check_matrix(inverse, images))
    return _warp_gathered(images, matrix, inverse, shape)


def warp_labels(labels, matrix, *, shape=None, fill=0):
    """Nearest-neighbour resampling of label maps.

    Args:
      labels: (b, h, w) integers.
      matrix, shape: see ``warp``.
      fill: the label outside the frame.

    Returns:
      (b, height, width).

    Raises:
      ValueError: for labels without a batch axis, or other than one matrix an image.
    """
    check_labels(labels)
    matrix = _check_matrix(matrix, labels)
    shape = check_frame(labels.shape[1:3] if shape is None else shape)
    rows, columns = _sources(matrix, shape, labels.shape[1:3])
    rows, columns = (jnp.round(x).astype(jnp.int32) for x in (rows, columns))
    values = _take(labels[..., None], rows, columns)[..., 0]
    return jnp.where(_inside(rows, columns, labels.shape[1:3]), values, fill)


def check_images(images):
    """The images as an array; raises ValueError for what is no batch of floats with channels."""
    images = jnp.asarray(images)
    if images.ndim != 4:
        raise ValueError(f"images are (b, h, w, c), not {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are floats, not {images.dtype}; see warp_labels for labels")
    return images


def check_labels(labels):
    """Raises ValueError for what is no batch of label maps."""
    if jnp.ndim(labels) != 3 or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(f"labels are (b, h, w) integers, not {jnp.shape(labels)} {labels.dtype}")


def check_frame(shape):
    """The height and the width as a tuple; raises ValueError for what is not these two."""
    if np.shape(shape) != (2,):
        raise ValueError(f"a shape is (height, width), not {shape}")
    return tuple(shape)


def wide(x):
    """``x`` in float32, or in float64 if it is."""
    x = jnp.asarray(x)
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def coverage(matrix, shape):
    """What ``warp`` makes of an image of ones, in closed form: (b, h, w), 1 well inside, 0 outside.

    Args:
      matrix: (b, 3, 3), see ``warp``.
      shape: (h, w) of input and output.
    """
    matrix, shape = wide(matrix), check_frame(shape)
    return _coverage(*_sources(matrix, shape, shape), shape)


def validity(matrix, inverse, shape):
    """Pixels that stay inside the frame through ``matrix`` and back: (b, h, w), 0 or 1.

    1 where warping an image by ``matrix`` and the result by ``inverse`` used no pixel from
    outside, so that the two maps may be compared there.
    """
    matrix, inverse, shape = wide(matrix), wide(inverse), check_frame(shape)
    rows, columns = _sources(inverse, shape, shape)
    there_and_back = 0.0
    for row, column, weight in _taps(rows, columns):
        there = _coverage(*_apply(matrix, row, column, shape, shape), shape)
        there_and_back += jnp.where(_inside(row, column, shape), weight, 0.0) * there
    return (there_and_back > 1 - EDGE).astype(jnp.float32)


def _coverage(rows, columns, size):
    """The sum of the weights of those of the four pixels around a place that are in the frame."""
    row, column = (
        jnp.clip(jnp.minimum(x + 1, n - x), 0, 1) for x, n in ((rows, size[0]), (columns, size[1]))
    )
    return row * column


def _taps(rows, columns):
    """The four pixels around each place, as rows, columns and weights (b, h, w)."""
    top, left = jnp.floor(rows), jnp.floor(columns)
    for row in (top, top + 1):
        for column in (left, left + 1):
            yield row, column, (1 - jnp.abs(rows - row)) * (1 - jnp.abs(columns - column))


def _bilinear(images, matrix, shape):
    out = 0.0
    for row, column, weight in _taps(*_sources(matrix, shape, images.shape[1:3])):
        out = out + _weighted_take(images, row, column, weight)
    return out.astype(images.dtype)


def _warp_gathered(images, matrix, inverse, shape):
    """``_bilinear`` with its transpose gathered, for derivatives either way and of any order."""
    size = images.shape[1:3]
    frame = tuple(max(n) for n in zip(size, shape, strict=True))

    def forward(_, x):
        return _fit(_bilinear(_fit(x, size), matrix, shape), frame)

    def transpose(_, x):
        return _fit(_gather(_fit(x, shape), matrix, inverse, size), frame)

    # No system is solved: of all that takes a linear function with a transpose of one's own, this
    # alone has forward mode, reverse mode and vmap. It asks for one shape of input and output.
    warped = jax.lax.custom_linear_solve(lambda x: x, _fit(images, frame), forward, transpose)
    return _fit(warped, shape)


def _gather(cotangent, matrix, inverse, size):
    """The transpose of ``_bilinear``: to images of that size."""
    # d out[o] / d images[i] is the hat max(0, 1 − |row|) · max(0, 1 − |column|) of M·o − i. It
    # vanishes unless |o − M⁻¹ i| < ‖M⁻¹‖∞ ≤ 2, so four rows and four columns hold all o.
    # After it is known: otherwise XLA prepares weights of all taps, far larger than it, and keeps
    # them from the forward pass on.
    matrix, inverse, cotangent = jax.lax.optimization_barrier((matrix, inverse, cotangent))
    shape = cotangent.shape[1:3]
    rows, columns = _sources(inverse, size, shape)
    own_rows, own_columns = _grid(size, matrix.dtype)

    @jax.jit  # so that it is traced once, not for each tap
    def tap(row, column):
        source_rows, source_columns = _apply(matrix, row, column, shape, size)
        weight = jax.nn.relu(1 - jnp.abs(source_rows - own_rows)) * jax.nn.relu(
            1 - jnp.abs(source_columns - own_columns)
        )
        return _weighted_take(cotangent, row, column, weight)

    total = 0.0
    for i in range(-1, 3):
        for j in range(-1, 3):
            total = total + tap(jnp.floor(rows) + i, jnp.floor(columns) + j)
    return total.astype(cotangent.dtype)


def _fit(x, shape):
    """``x`` (b, h, w, c) cut to the shape, or zero-padded to it, below and to the right."""
    more = [(0, n - m, 0) for n, m in zip(shape, x.shape[1:3], strict=True)]  # or less
    return jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *more, (0, 0, 0)])


def _check_matrix(matrix, images):
    if jnp.shape(matrix) != (images.shape[0], 3, 3):
        raise ValueError(f"a matrix (b, 3, 3) of {images.shape[0]} images, not {jnp.shape(matrix)}")
    return wide(matrix)


def _grid(shape, dtype):
    rows, columns = (jnp.arange(n, dtype=dtype) for n in shape)
    return rows[None, :, None], columns[None, None, :]


def _sources(matrix, shape, size):
    """Rows and columns (b, h, w), in a ``size`` frame, of each pixel of a ``shape`` frame."""
    rows, columns = _grid(shape, matrix.dtype)
    return _apply(matrix, rows, columns, shape, size)


def _apply(matrix, rows, columns, shape, size):
    y, x = rows - (shape[0] - 1) / 2, columns - (shape[1] - 1) / 2
    m = matrix[:, :2, :, None, None]
    return tuple(m[:, i, 0] * y + m[:, i, 1] * x + m[:, i, 2] + (size[i] - 1) / 2 for i in range(2))


def _weighted_take(images, rows, columns, weight):
    inside = _inside(rows, columns, images.shape[1:3])
    values = wide(_take(images, rows.astype(jnp.int32), columns.astype(jnp.int32)))
    return jnp.where(inside, weight, 0.0)[..., None].astype(values.dtype) * values


def _inside(rows, columns, size):
    return (rows >= 0) & (rows < size[0]) & (columns >= 0) & (columns < size[1])


def _take(images, rows, columns):
    b, h, w, c = images.shape
    index = jnp.clip(rows, 0, h - 1) * w + jnp.clip(columns, 0, w - 1)
    flat = jnp.take_along_axis(
        images.reshape(b, h * w, c), index.reshape(b, -1, 1), axis=1, mode="promise_in_bounds"
    )
    return flat.reshape(b, *index.shape[1:], c)
