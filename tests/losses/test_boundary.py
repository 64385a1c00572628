"""Edges, uncertainty and their local correlation, pixel by pixel in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax import losses

# Compiled once a shape: op by op, the tests would take several times as long.
edge_strength = jax.jit(losses.edge_strength, static_argnames=("gamma", "spacing"))
pixel_entropy = jax.jit(losses.pixel_entropy)
boundary_correlation = jax.jit(losses.boundary_correlation, static_argnames="window")

B, H, W, C = 2, 9, 8, 3
both_dims = pytest.mark.parametrize("space", [(H, W), (4, 5, 6)], ids=["2-D", "3-D"])


def arrays(seed, space=(H, W)):
    """Images with a step, class maps, two maps in [0, 1] and a mask."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(B, *space, C)) + 3 * (np.arange(space[-1]) > 3)[:, None]
    probs = rng.dirichlet(np.ones(4), size=(B, *space))
    maps = rng.uniform(size=(2, B, *space))
    mask = rng.uniform(size=(B, *space)) > 0.2
    return tuple(x.astype(np.float32) for x in (images, probs, *maps, mask))


def stretched64(x, valid):
    out = np.zeros(x.shape)
    for n in range(len(x)):
        low, high = x[n][valid[n]].min(), x[n][valid[n]].max()
        out[n][valid[n]] = (x[n][valid[n]] - low) / (high - low)
    return out


def edge_strength64(images, gamma, mask, spacing=(1, 1, 1)):
    images, edges = np.asarray(images, np.float64), np.zeros(images.shape[:-1])
    valid = np.ones(edges.shape, bool) if mask is None else mask > 0
    usable = valid.copy()
    for n, *i in np.ndindex(edges.shape):
        for axis in range(len(i)):
            before = n, *np.maximum(np.array(i) - np.eye(len(i), dtype=int)[axis], 0)
            step = (images[n, *i] - images[before]) / spacing[axis]
            edges[n, *i] += (step**2).sum()
            usable[n, *i] &= valid[before]
    return stretched64(np.sqrt(edges), usable) ** gamma


def boundary_correlation64(edges, uncertainty, window, mask=None):
    weights = np.ones(edges.shape) if mask is None else np.asarray(mask, np.float64)
    r, n = window // 2, window ** (edges.ndim - 1)
    frame = ((0, 0), *[(r, r)] * (edges.ndim - 1))
    g, e = (np.pad(x * (weights > 0.0), frame) for x in (edges, uncertainty))
    total = count = 0.0
    for b, *i in np.ndindex(edges.shape):
        around = b, *(slice(s, s + window) for s in i)
        x, y = (m[around].astype(np.float64).ravel() for m in (g, e))
        var_g, var_e = n * x.var(), n * y.var()
        if var_g >= 1e-5:
            cross = ((x - x.mean()) * (y - y.mean())).sum()
            total += weights[b, *i] * cross**2 / (var_g * max(var_e, 1e-5))
            count += weights[b, *i]
    return total / count


# Edges and uncertainty -----------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.5, 1.0])
@pytest.mark.parametrize("masking", [False, True])
@both_dims
def test_edge_strength_is_that_of_the_backward_differences(gamma, masking, space):
    images, *_, mask = arrays(0, space)
    mask = mask if masking else None
    edges = np.asarray(edge_strength(images, gamma=gamma, mask=mask))
    assert_allclose(edges, edge_strength64(images, gamma, mask), rtol=1e-5, atol=1e-3)
    assert edges.min() == 0 and edges.max() == 1


def test_a_step_is_one_edge_and_nothing_wraps_round():
    images, valid = np.zeros((B, H, W, C), np.float32), np.ones((B, H, W), np.float32)
    images[:, :, 5:, 0] = 7
    assert_allclose(edge_strength(images)[0], np.eye(W)[5] * np.ones((H, 1)))
    # The frame of a warp: what is masked out is an edge neither inside nor outside.
    valid[:, :, :2] = 0
    framed = np.where(valid[..., None] > 0, images + 1, np.float32(np.nan))
    assert_allclose(edge_strength(framed, mask=valid), edge_strength(images))


@pytest.mark.parametrize("spacing", [(10.0, 1.5, 0.5), (np.float32(5), 1, 1)])
def test_differences_are_per_unit_of_length(spacing):
    images, *_, mask = arrays(10, (4, 5, 6))
    edges = edge_strength(images, spacing=spacing, mask=mask)
    expected = edge_strength64(images, 0.5, mask, spacing)
    assert_allclose(edges, expected, rtol=1e-5, atol=1e-3)
    # The unit is taken away by the stretch.
    metres = tuple(s / 1024 for s in spacing)
    assert_allclose(edge_strength(images, spacing=metres, mask=mask), edges, atol=1e-5)
    plane = images[:, 0], mask[:, 0]
    expected = edge_strength64(plane[0], 0.5, plane[1], (2, 1))
    assert_allclose(edge_strength(plane[0], spacing=(2, 1), mask=plane[1]), expected, atol=1e-3)


@both_dims
def test_pixel_entropy_is_stretched_within_each_image(space):
    _, probs, _, _, mask = arrays(1, space)
    entropy = -(probs * np.log(probs.astype(np.float64))).sum(-1)
    for m in (None, mask):
        valid = np.ones(entropy.shape, bool) if m is None else m > 0
        assert_allclose(pixel_entropy(probs, mask=m), stretched64(entropy, valid), atol=1e-5)


def test_minimum_and_maximum_are_constants_to_the_gradient():
    _, probs, *_ = arrays(2)
    entropy = -(probs * np.log(probs)).sum(-1)
    scale = np.ptp(entropy, axis=(1, 2))[:, None, None, None]
    gradient = jax.jit(jax.grad(lambda p: jnp.sum(losses.pixel_entropy(p))))(probs)
    assert_allclose(gradient, -(np.log(probs) + 1) / scale, rtol=1e-4, atol=1e-5)


def test_flat_slices_and_empty_masks_are_zero():
    images, probs, *_ = arrays(3)
    flat, empty = np.full_like(probs, 1 / 4), np.zeros((B, H, W), np.float32)
    for f, maps, even in ((edge_strength, images, flat[..., :C]), (pixel_entropy, probs, flat)):
        assert not np.any(f(even)) and not np.any(f(maps, mask=empty))


# Correlation ---------------------------------------------------------------------------


@pytest.mark.parametrize("window", [3, 5])
@pytest.mark.parametrize("masking", [None, "binary", "fractional"])
@pytest.mark.parametrize("space", [(H, W), (3, 4, 8)], ids=["2-D", "3-D"])
def test_correlation_equals_the_mean_over_windows(window, masking, space):
    *_, edges, uncertainty, mask = arrays(4, space)
    edges[..., 2:] = 0  # windows that are flat, and do not count
    draws = mask * np.random.default_rng(4).uniform(size=mask.shape).astype(np.float32)
    mask = {None: None, "binary": mask, "fractional": draws}[masking]
    ours = boundary_correlation(edges, uncertainty, window=window, mask=mask)
    expected = boundary_correlation64(edges, uncertainty, window, mask)
    assert_allclose(ours, expected, rtol=1e-5)
    assert 0 < ours < 1


def test_proportional_maps_correlate_wholly_whatever_the_sign():
    *_, edges, _, _ = arrays(5)
    for factor in (1, 0.3, -1):
        assert_allclose(boundary_correlation(edges, factor * edges), 1, rtol=1e-5)


def test_an_empty_background_neither_counts_nor_can_be_made_by_the_network():
    *_, edges, uncertainty, _ = arrays(6)
    # The windows that look over the border count, all others of the background do not.
    value, *wider = (
        boundary_correlation(*(np.pad(x, ((0, 0), (0, 0), (0, n))) for x in (edges, uncertainty)))
        for n in (2, 20, 40)
    )
    assert_allclose(wider, value, rtol=1e-5)
    assert boundary_correlation(0 * edges, 0 * edges) == 0
    # What is left of the uncertainty scores by its variance, down to nothing.
    assert boundary_correlation(edges, 1e-4 * uncertainty) < 0.01 * value
    assert boundary_correlation(edges, 0 * uncertainty) < 1e-8


@pytest.mark.parametrize("level", [0.1, 0.3, 0.7, 1.0])
@pytest.mark.parametrize("space", [(30, 30), (8, 9, 10)], ids=["2-D", "3-D"])
def test_what_is_flat_or_nearly_so_is_no_less_so_in_float32(level, space):
    # The variances are differences of sums a million times their size.
    varied = np.random.default_rng(7).uniform(size=(1, *space)).astype(np.float32)
    flat, nearly = np.full_like(varied, level), level - 0.003 * varied
    for edges, uncertainty in ((flat, varied), (varied, nearly)):
        expected = boundary_correlation64(edges, uncertainty, 5)
        assert_allclose(boundary_correlation(edges, uncertainty), expected, rtol=0.03)


@pytest.mark.parametrize(("space", "window"), [((44, 44), 21), ((16, 16, 16), 9)])
def test_large_windows_take_no_rounding_for_an_edge(space, window):
    levels = np.linspace(0, 1, 34, dtype=np.float32).reshape(34, *[1] * len(space))
    flat = np.broadcast_to(levels, (34, *space))
    varied = np.random.default_rng(8).uniform(size=flat.shape).astype(np.float32)
    compiled = jax.jit(functools.partial(losses.boundary_correlation, window=window))
    with jax.enable_x64(True):
        exact = compiled(*(jnp.asarray(x, jnp.float64) for x in (flat, varied)))
    assert_allclose(compiled(flat, varied), exact, rtol=1e-3)


def test_what_stands_outside_the_mask_reaches_neither_value_nor_gradient():
    images, probs, *_, mask = arrays(7)

    @jax.jit
    def value_and_gradient(images, probs):
        def value(probs):
            edges = losses.edge_strength(images, mask=mask)
            uncertainty = losses.pixel_entropy(probs, mask=mask)
            return losses.boundary_correlation(edges, uncertainty, mask=mask)

        return jax.value_and_grad(value)(probs)

    def results(fill):
        inside = mask[..., None] > 0
        return value_and_gradient(*(np.where(inside, x, np.float32(fill)) for x in (images, probs)))

    (value, gradient), (expected, other) = results(np.nan), results(0.25)
    assert value == expected and np.isfinite(gradient).all()
    assert_allclose(gradient, other)


@both_dims
def test_gradient_of_the_correlation(space):
    *_, edges, uncertainty, mask = arrays(8, space)
    direction = np.random.default_rng(8).normal(size=edges.shape)
    gradient = jax.jit(jax.grad(losses.boundary_correlation, argnums=1))(
        edges, uncertainty, mask=mask
    )
    step = 1e-4
    high, low = (
        boundary_correlation64(edges, uncertainty + s * direction, 5, mask) for s in (step, -step)
    )
    assert_allclose((gradient * direction).sum(), (high - low) / (2 * step), rtol=1e-3)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=1)
def correlation_and_gradient(images, logits, mask):
    uncertainty = losses.pixel_entropy(jax.nn.softmax(logits), mask=mask)
    edges = losses.edge_strength(images, mask=mask)
    return losses.boundary_correlation(edges, uncertainty, mask=mask)


@pytest.mark.parametrize("case", ["flat entropy", "flat edges", "saturated", "empty mask"])
def test_gradients_are_finite_where_nothing_is_to_be_had(case):
    images, *_ = arrays(9)
    logits = np.random.default_rng(9).normal(size=(B, H, W, 4)) * (case != "flat entropy")
    logits = (1e4 * logits if case == "saturated" else logits).astype(np.float32)
    images = images * np.float32(case != "flat edges")
    mask = np.full((B, H, W), case != "empty mask")
    result, gradient = correlation_and_gradient(images, logits, mask)
    assert 0 <= result <= 1 and np.isfinite(gradient).all()


def test_bad_arguments_are_refused():
    image, maps = np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4))
    for other in (maps, np.zeros((1, 2, 2, 4, 4, 2))):
        with pytest.raises(ValueError, match=r"\(b, h, w, c\) or \(b, d, h, w, c\), not \(1,"):
            losses.edge_strength(other)
        with pytest.raises(ValueError, match=r"\(b, h, w, k\) or \(b, d, h, w, k\), not \(1,"):
            losses.pixel_entropy(other)
    with pytest.raises(ValueError, match="gamma is positive, not 0"):
        losses.edge_strength(image, gamma=0)
    for spacing in ((1, 1, 1), (), (1, 0), (1, -2), (np.inf, 1), (1, np.nan), 2.0):
        with pytest.raises(ValueError, match="spacing is 2 positive numbers here, not"):
            losses.edge_strength(image, spacing=spacing)
    for other in (image, np.zeros((1, 4, 5)), np.zeros((1, 2, 4, 4))):
        with pytest.raises(ValueError, match="one shape"):
            losses.boundary_correlation(maps, other)
    for other in (maps[0], np.zeros((1, 2, 2, 4, 4))):
        with pytest.raises(ValueError, match=r"one shape, \(b, h, w\) or \(b, d, h, w\), not"):
            losses.boundary_correlation(other, other)
    for f in (losses.edge_strength, losses.pixel_entropy):
        with pytest.raises(ValueError, match=r"a mask of these maps is \(1, 4, 4\)"):
            f(image, mask=np.ones((1, 2, 4, 4)))
    for window in (1, 4, -5):
        with pytest.raises(ValueError, match=f"not {window}"):
            losses.boundary_correlation(maps, maps, window=window)
