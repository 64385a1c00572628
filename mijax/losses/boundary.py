"""Edges of an image, uncertainty of its clusters, and how well the two correlate."""

import jax
import jax.numpy as jnp

from mijax.losses.pointwise import TINY, check_mask, counted, masked, sum_over, wide

FLAT = 1e-5  # the range of a slice, or the variance of a window, below which it counts as flat


def edge_strength(images, *, gamma=0.5, mask=None):
    """Strength of the edge at each pixel, stretched to [0, 1] within each slice.

        g = (dx² + dy²)^½, backward differences;   ((g − min g) / (max g − min g))^γ

    Differences are Euclidean over the channels. The first column has dx = 0 and the first row
    dy = 0: nothing wraps round. A slice whose g spans less than 1e-5 is flat, and is not
    stretched to the full range.

    Args:
      images: (b, h, w, c) intensities.
      gamma: γ > 0; below 1 lifts the faint edges. 0.75 for ACDC, 0.5 for Prostate and Spleen.
      mask: (b, h, w) or None. A pixel that is masked out, or whose left or upper neighbour is,
        has strength 0 and no part in min and max: the frame of a warp is no edge.

    Returns:
      (b, h, w) in float32 or wider. A target: no gradient flows back to the images.

    Raises:
      ValueError: for images of another rank, or a gamma that is not positive.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if images.ndim != 4:
        raise ValueError(f"images are (b, h, w, c), not {images.shape}")
    if not gamma > 0:
        raise ValueError(f"gamma is positive, not {gamma}")
    images = jax.lax.stop_gradient(wide(masked(images, mask)))
    dy, dx = images - _above(images), images - _left(images)
    edges = jnp.sqrt(jnp.sum(dy**2 + dx**2, axis=-1))
    valid = _validity(mask, edges)
    return _stretched(edges, valid & _above(valid) & _left(valid)) ** gamma


def pixel_entropy(probs, *, mask=None):
    """Shannon entropy of each pixel, stretched to [0, 1] within each slice: its uncertainty.

    The minimum and the maximum of a slice are constants to the gradient, as the authors have
    them. A slice whose entropies span less than 1e-5 nats is flat, and is not stretched to the
    full range: what is there is rounding.

    Args:
      probs: (b, h, w, k) soft assignment to classes or clusters.
      mask: (b, h, w) or None; pixels of weight 0 are 0 and have no part in min and max.

    Returns:
      (b, h, w) in float32 or wider.

    Raises:
      ValueError: for probs of another rank.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if probs.ndim != 4:
        raise ValueError(f"probs are (b, h, w, k), not {probs.shape}")
    probs = wide(masked(probs, mask))
    entropy = -jnp.sum(probs * jnp.log(jnp.maximum(probs, TINY)), axis=-1)
    return _stretched(entropy, _validity(mask, entropy))


def boundary_correlation(edges, uncertainty, *, window=5, mask=None, axis_name=None):
    """Mean squared local correlation of edges g and uncertainty e, over windows with an edge.

        cc = cross² / (var_g var_e),   n = window²
        var_g = Σ g² − (Σ g)²/n,   var_e = Σ e² − (Σ e)²/n,   cross = Σ g e − Σ g Σ e / n

    with sums over the window round each pixel; both variances are at least 1e-5.

    **Sign.** To be maximised: subtract it from a loss. It does not tell a correlation of +1
    from one of −1.

    Windows where the edges are flat, var_g < 1e-5, are left out of the mean. The authors count
    them, and their clamped quotient can score an empty background as perfect. The image alone
    decides which windows count, so that a network cannot leave the mean by flattening its
    uncertainty: where that is flat and the edges are not, cc is 0.

    Args:
      edges: (b, h, w) in [0, 1], of ``edge_strength``.
      uncertainty: (b, h, w) in [0, 1], of ``pixel_entropy``.
      window: its side in pixels, odd and at least 3.
      mask: (b, h, w) or None; weights of the windows, by their centre. Pixels of weight 0 are
        0 in both maps, like those beyond the frame.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar between 0 and 1; 0 where no window counts.

    Raises:
      ValueError: for maps of different shapes or of another rank, or an even or too small
        window.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if edges.shape != uncertainty.shape or edges.ndim != 3:
        raise ValueError(
            "edges and uncertainty are two (b, h, w) maps of one shape, not "
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
    var_g = sum_gg - sum_g**2 / window**2
    var_e = jnp.maximum(sum_ee - sum_e**2 / window**2, FLAT)
    cross = sum_ge - sum_g * sum_e / window**2
    sharp = var_g >= FLAT
    # Rounding, but nothing else, takes the quotient over 1.
    cc = jnp.minimum(cross**2 / (jnp.where(sharp, var_g, 1.0) * var_e), 1.0)
    weights = jnp.ones_like(cc) if mask is None else mask.astype(cc.dtype)
    weights = jnp.where(sharp, weights, 0.0)
    total, count = sum_over((jnp.sum(weights * cc), jnp.sum(weights)), axis_name)
    return total / jnp.where(count > 0, count, 1.0)


def _above(x):
    """The upper neighbour of each pixel; in the first row, the pixel itself."""
    return jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)


def _left(x):
    return jnp.concatenate([x[:, :, :1], x[:, :, :-1]], axis=2)


def _validity(mask, like):
    return jnp.ones(like.shape, bool) if mask is None else counted(mask)


def _stretched(x, valid):
    """``x`` (b, h, w) with the valid pixels of each slice stretched to [0, 1], the others 0."""
    constant = jax.lax.stop_gradient(x)
    options = {"axis": (1, 2), "keepdims": True, "where": valid}
    low = jnp.min(constant, initial=jnp.inf, **options)
    high = jnp.max(constant, initial=-jnp.inf, **options)
    return jnp.where(valid, (x - low) / jnp.maximum(high - low, FLAT), 0.0)


def _padded(x, mask, radius):
    x = x if mask is None else jnp.where(counted(mask), x, 0.0)
    # A shift leaves variances as they are, and about ½ their sums round less.
    return jnp.pad(x, ((0, 0), (radius, radius), (radius, radius))) - 0.5


def _window_sums(x, window):
    # Rows, then columns: 2w additions rather than w². Not a convolution, which may round its
    # inputs on an accelerator.
    for shape in ((1, window, 1), (1, 1, window)):
        x = jax.lax.reduce_window(x, 0.0, jax.lax.add, shape, (1, 1, 1), "VALID")
    return x
