"""Edges of an image, uncertainty of its clusters, and how well the two correlate."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mijax.losses.pointwise import TINY, check_mask, counted, masked, sum_over, wide

FLAT = 1e-5  # the range of an image, or the variance of a window, below which it counts as flat


def edge_strength(images, *, gamma=0.5, spacing=None, mask=None):
    """Strength of the edge at each pixel, stretched to [0, 1] within each slice or volume.

        g = (Σ_a (d_a / s_a)²)^½, backward differences;   ((g − min g) / (max g − min g))^γ

    over the axes of space. Differences are Euclidean over the channels. Those of the first slice,
    row and column along their axis are 0: nothing wraps round. So of the two pixels that an edge
    lies between, g is that of the later one, as the authors have it. An image whose g spans less
    than 1e-5 is flat, and is not stretched to the full range.

    Args:
      images: (b, *space, c) intensities, of 2 or 3 axes of space.
      gamma: γ > 0; below 1 lifts the faint edges. 0.75 for ACDC, 0.5 for Prostate and Spleen.
      spacing: s, the distance of neighbours along each axis of space, in any unit; None for 1
        each. Without it the step from one thick slice to the next, in which more changes than
        from row to row, counts as much as that.
      mask: (b, *space) or None. A pixel that is masked out, or whose neighbour before it along
        any axis is, has strength 0 and no part in min and max: the frame of a warp is no edge.

    Returns:
      (b, *space) in float32 or wider. A target: no gradient flows back to the images.

    Raises:
      ValueError: for images of another rank, a gamma that is not positive, or a spacing that is
        not one positive number an axis.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if images.ndim not in (4, 5):
        raise ValueError(f"images are (b, h, w, c) or (b, d, h, w, c), not {images.shape}")
    if not gamma > 0:
        raise ValueError(f"gamma is positive, not {gamma}")
    axes = range(1, images.ndim - 1)
    spacing = tuple(map(float, np.ravel([1] * len(axes) if spacing is None else spacing)))
    if len(spacing) != len(axes) or not all(0 < s < math.inf for s in spacing):
        raise ValueError(f"spacing is {len(axes)} positive numbers here, not {spacing}")
    images = jax.lax.stop_gradient(wide(masked(images, mask)))
    squares = (
        ((images - _before(images, axis)) / s) ** 2 for axis, s in zip(axes, spacing, strict=True)
    )
    edges = jnp.sqrt(jnp.sum(functools.reduce(jnp.add, squares), axis=-1))
    valid = _validity(mask, edges)
    whole = functools.reduce(jnp.logical_and, (_before(valid, axis) for axis in axes), valid)
    return _stretched(edges, whole) ** gamma


def pixel_entropy(probs, *, mask=None):
    """Shannon entropy of each pixel, stretched to [0, 1] within each image: its uncertainty.

    An image is a slice, or a volume. Its minimum and its maximum are constants to the gradient,
    as the authors have them. One whose entropies span less than 1e-5 nats is flat, and is not
    stretched to the full range: what is there is rounding.

    Args:
      probs: (b, *space, k) soft assignment to classes or clusters, of 2 or 3 axes of space.
      mask: (b, *space) or None; pixels of weight 0 are 0 and have no part in min and max.

    Returns:
      (b, *space) in float32 or wider.

    Raises:
      ValueError: for probs of another rank.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if probs.ndim not in (4, 5):
        raise ValueError(f"probs are (b, h, w, k) or (b, d, h, w, k), not {probs.shape}")
    probs = wide(masked(probs, mask))
    entropy = -jnp.sum(probs * jnp.log(jnp.maximum(probs, TINY)), axis=-1)
    return _stretched(entropy, _validity(mask, entropy))


def boundary_correlation(edges, uncertainty, *, window=5, mask=None, axis_name=None):
    """Mean squared local correlation of edges g and uncertainty e, over windows with an edge.

        cc = cross² / (var_g var_e),   n = window², in 3-D window³
        var_g = Σ g² − (Σ g)²/n,   var_e = Σ e² − (Σ e)²/n,   cross = Σ g e − Σ g Σ e / n

    with sums over the window round each pixel; both variances are at least 1e-5.

    **Sign.** To be maximised: subtract it from a loss. It does not tell a correlation of +1
    from one of −1.

    Windows where the edges are flat, var_g < 1e-5, are left out of the mean. The authors count
    them, and their clamped quotient can score an empty background as perfect. The image alone
    decides which windows count, so that a network cannot leave the mean by flattening its
    uncertainty: where that is flat and the edges are not, cc is 0.

    Args:
      edges: (b, *space) in [0, 1], of ``edge_strength``.
      uncertainty: (b, *space) in [0, 1], of ``pixel_entropy``.
      window: its side in pixels, the same along each axis of space, odd and at least 3.
      mask: (b, *space) or None; weights of the windows, by their centre. Pixels of weight 0 are
        0 in both maps, like those beyond the frame.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar between 0 and 1; 0 where no window counts.

    Raises:
      ValueError: for maps of different shapes or of another rank, or an even or too small
        window.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if edges.shape != uncertainty.shape or edges.ndim not in (3, 4):
        raise ValueError(
            "edges and uncertainty are two maps of one shape, (b, h, w) or (b, d, h, w), not "
            f"{edges.shape}, {uncertainty.shape}"
        )
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window is an odd number of pixels from 3 on, not {window}")
    if mask is not None:
        check_mask(mask, edges.shape)
    g, e = (_padded(wide(x), mask, window // 2) for x in (edges, uncertainty))
    sum_g, sum_e, sum_gg, sum_ee, sum_ge = (
        _window_sums(x, window) for x in (g, e, g * g, e * e, g * e)
    )
    n = window ** (edges.ndim - 1)
    flat = max(FLAT, n * float(jnp.finfo(sum_gg.dtype).eps))  # what a sum's rounding makes of it
    var_g = sum_gg - sum_g**2 / n
    var_e = jnp.maximum(sum_ee - sum_e**2 / n, flat)
    cross = sum_ge - sum_g * sum_e / n
    sharp = var_g >= flat
    # Rounding, but nothing else, takes the quotient over 1.
    cc = jnp.minimum(cross**2 / (jnp.where(sharp, var_g, 1.0) * var_e), 1.0)
    weights = jnp.ones_like(cc) if mask is None else mask.astype(cc.dtype)
    weights = jnp.where(sharp, weights, 0.0)
    total, count = sum_over((jnp.sum(weights * cc), jnp.sum(weights)), axis_name)
    return total / jnp.where(count > 0, count, 1.0)


def _before(x, axis):
    """The neighbour of each pixel one step back along the axis; of the first, the pixel itself."""
    first, others = (jax.lax.slice_in_dim(x, 0, n, axis=axis) for n in (1, x.shape[axis] - 1))
    return jnp.concatenate([first, others], axis=axis)


def _validity(mask, like):
    return jnp.ones(like.shape, bool) if mask is None else counted(mask)


def _stretched(x, valid):
    """``x`` (b, *space), the valid pixels of each image stretched to [0, 1], the others 0."""
    constant = jax.lax.stop_gradient(x)
    options = {"axis": tuple(range(1, x.ndim)), "keepdims": True, "where": valid}
    low = jnp.min(constant, initial=jnp.inf, **options)
    high = jnp.max(constant, initial=-jnp.inf, **options)
    return jnp.where(valid, (x - low) / jnp.maximum(high - low, FLAT), 0.0)


def _padded(x, mask, radius):
    x = x if mask is None else jnp.where(counted(mask), x, 0.0)
    # A shift leaves variances as they are, and about ½ their sums round less.
    return jnp.pad(x, ((0, 0), *[(radius, radius)] * (x.ndim - 1))) - 0.5


def _window_sums(x, window):
    # One axis after another: nw additions rather than wⁿ. Not a convolution, which may round
    # its inputs on an accelerator.
    strides = (1,) * x.ndim
    for axis in range(1, x.ndim):
        shape = tuple(window if a == axis else 1 for a in range(x.ndim))
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, shape, strides, "VALID")
    return x
