"""What holds of every loss, whatever the maps: limits, finite gradients, masks and symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from mijax import losses

KEY, SHAPE, K = jax.random.key(0), (4, 3, 5, 3), 3
VOLUMES = (4, 2, 3, 4, K)


def correlation(z, p, q, y, m):
    edges, uncertainty = losses.edge_strength(q, mask=m), losses.pixel_entropy(p, mask=m)
    return losses.boundary_correlation(edges, uncertainty, window=3, mask=m)


def regularised(z, p, q, y, m):
    joint = losses.joint_distribution_by_convolution(p, q, radius=0, mask=m)
    return losses.regularised_information_loss(joint.reshape(joint.shape[-2:]))


def local_contrast(z, p, q, y, m):
    y, pairs = jnp.where(m > 0, y, 255), [(0, 1), (len(y) - 1, 0)]
    return losses.local_contrastive_loss(KEY, z, y, pairs=pairs, num_classes=z.shape[-1])


def supervised_contrast(z, p, q, y, m):
    return losses.supervised_contrastive_loss(z.reshape(-1, z.shape[-1]), y.ravel())


# Each loss as a function of (logits or embeddings, probs, probs, labels, mask).
TERMS = {
    "cross_entropy": lambda z, p, q, y, m: losses.cross_entropy(z, y, mask=m),
    "entropy": lambda z, p, q, y, m: losses.entropy(z, mask=m),
    "kl_divergence": lambda z, p, q, y, m: losses.kl_divergence(z, q, mask=m),
    "kl_to_logits": lambda z, p, q, y, m: losses.kl_to_logits(q, z, mask=m),
    "dice_of_logits": lambda z, p, q, y, m: losses.label_loss(z, y, kind="dice", mask=m),
    "squared_error": lambda z, p, q, y, m: losses.squared_error(p, q, mask=m),
    "soft_dice_loss": lambda z, p, q, y, m: losses.soft_dice_loss(p, y, mask=m),
    "regularised_information_loss": regularised,
    "local_mutual_information": lambda z, p, q, y, m: losses.local_mutual_information(p, q, mask=m),
    "boundary_correlation": correlation,
    "local_contrastive_loss": local_contrast,
    "supervised_contrastive_loss": supervised_contrast,
}
WITH_LOGITS, POINTWISE, OVER_IMAGES, MASKED = (list(TERMS)[:n] for n in (5, 8, 10, 11))
KNOW_SPACE = list(TERMS)[7:11]
# Compiled once a shape: op by op, the tests would take several times as long.
VALUES = {term: jax.jit(ours) for term, ours in TERMS.items()}
OURS = {term: jax.jit(jax.value_and_grad(ours, argnums=(0, 1, 2))) for term, ours in TERMS.items()}


def limits(term, k, n):
    """For k classes and n pixels; a cosine is between −1 and 1, and q is clamped at ``tiny``."""
    return {
        "entropy": (0, np.log(k)),
        "kl_divergence": (0, -np.log(np.finfo(np.float32).tiny)),
        "squared_error": (0, 2),
        "soft_dice_loss": (0, 1),
        "dice_of_logits": (0, 1),
        "regularised_information_loss": (-np.log(k) - k**2 * 1e-5, -np.log(1e-5)),
        "local_mutual_information": (0, np.log(k)),
        "boundary_correlation": (0, 1),
        "local_contrastive_loss": (0, 2 * (2 / 0.1 + np.log(2 * k - 2))),
        "supervised_contrastive_loss": (0, 2 / 0.07 + np.log(n - 1)),
    }.get(term, (0, np.inf))


KINDS = ["huge", "saturated", "dead class", "constant", "normal"]
seeds, kinds = st.integers(0, 2**32 - 1), st.sampled_from(KINDS)
shapes = st.sampled_from([SHAPE, VOLUMES])
maskings = st.sampled_from(["all", "some", "fractional"])


def maps_of(seed, kind, shape=SHAPE):
    """Logits, two maps of probabilities, and labels."""
    rng, k = np.random.default_rng(seed), shape[-1]
    # Multiples of 1/8, so that sums with whole numbers are exact.
    z = np.round(24 * rng.normal(size=shape)) / 8
    p, q = rng.dirichlet(np.ones(k), size=(2, *shape[:-1]))
    y = rng.integers(k, size=shape[:-1])
    if kind in ("saturated", "huge"):
        z = rng.choice([-1, 1], size=shape) * {"saturated": 1e4, "huge": 1e30}[kind]
        p, q = np.eye(k)[rng.integers(k, size=(2, *shape[:-1]))]
    elif kind == "dead class":
        z[..., -1], p[..., -1], q[..., -1], y = -1e4, 0, 0, np.minimum(y, k - 2)
        p, q = (x / x.sum(-1, keepdims=True) for x in (p, q))
    elif kind == "constant":
        z, p, q, y = 0 * z, p[(slice(1),) * (p.ndim - 1)] + 0 * p, 0 * q + 1 / k, 0 * y
    return *(x.astype(np.float32) for x in (z, p, q)), y


def mask_of(seed, masking, shape=SHAPE[:-1]):
    draws = np.random.default_rng(seed + 1).uniform(size=shape)
    kept = draws >= {"all": 0, "some": 0.5, "fractional": 0.3}[masking]
    return (kept * (draws if masking == "fractional" else 1)).astype(np.float32)


@pytest.mark.parametrize("term", TERMS)
@given(seeds, kinds, maskings, st.sampled_from([SHAPE, (2, 1, 1, 2), VOLUMES]))
def test_values_keep_their_limits_and_gradients_are_finite(term, seed, kind, masking, shape):
    # Contrast of one pixel is none.
    shape = shape if term in (KNOW_SPACE if shape == VOLUMES else OVER_IMAGES) else SHAPE
    maps, mask = maps_of(seed, kind, shape), mask_of(seed, masking, shape[:-1])
    value, gradients = OURS[term](*maps, mask)
    low, high = limits(term, shape[-1], mask.size)
    assert value.shape == () and value.dtype == jnp.float32
    assert np.isfinite(value) and low - 1e-5 <= value <= high + 1e-5
    assert all(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize("term", MASKED)
@given(seeds, kinds)
def test_a_mask_of_nothing_gives_zero_and_no_gradient(term, seed, kind):
    value, gradients = OURS[term](*maps_of(seed, kind), np.zeros(SHAPE[:-1], np.float32))
    assert value == 0 and not any(np.any(g) for g in gradients)


@pytest.mark.parametrize("term", MASKED)
@given(seeds, kinds, st.sampled_from([np.nan, np.inf, -np.inf, 1e30]), st.sampled_from([-1, 255]))
def test_what_stands_outside_the_mask_reaches_nothing(term, seed, kind, poison, label):
    *floats, y = maps_of(seed, kind)
    mask = mask_of(seed, "fractional")
    inside = mask > 0
    poisoned = [np.where(inside[..., None], x, np.float32(poison)) for x in floats]
    value, gradients = OURS[term](*poisoned, np.where(inside, y, label), mask)
    expected, others = OURS[term](*floats, y, mask)
    assert_array_equal(value, expected)
    for gradient, other in zip(gradients, others, strict=True):
        assert_array_equal(gradient, other)
        assert not np.any(np.asarray(gradient)[~inside])


@pytest.mark.parametrize("term", OVER_IMAGES)
@given(seeds, kinds, maskings)
def test_no_order_matters_of_pixels_or_images_nor_of_classes(term, seed, kind, masking):
    maps, mask = maps_of(seed, kind), mask_of(seed, masking)
    rng = np.random.default_rng(seed + 2)
    axes = 3 if term in POINTWISE else 1  # pixels, or images as a whole
    order = rng.permutation(np.prod(SHAPE[:axes]))
    moved = [x.reshape(-1, *x.shape[axes:])[order].reshape(x.shape) for x in (*maps, mask)]
    names = np.append(0, 1 + rng.permutation(K - 1))  # the background stays
    renamed = *(x[..., names] for x in maps[:3]), np.argsort(names)[maps[3]], mask
    value, *same = (OURS[term](*x)[0] for x in ((*maps, mask), moved, renamed))
    assert_allclose(same, [value] * 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("term", OVER_IMAGES)
@given(seeds, kinds, maskings)
def test_images_that_come_twice_count_as_once_and_a_mask_has_no_unit(term, seed, kind, masking):
    maps, mask = maps_of(seed, kind), mask_of(seed, masking)
    *maps, mask = (np.concatenate([x[:2], x[:2]]) for x in (*maps, mask))
    once = mask * np.array([1, 1, 0, 0], np.float32)[:, None, None]
    value, *same = (OURS[term](*maps, m)[0] for m in (mask, once, mask / 2))
    assert_allclose(same, [value] * 2, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("term", WITH_LOGITS)
@given(seeds, kinds)
def test_a_constant_added_to_the_logits_of_a_pixel_changes_nothing(term, seed, kind):
    z, *others = (*maps_of(seed, kind), mask_of(seed, "all"))
    constant = np.random.default_rng(seed + 2).integers(-1000, 1000, size=(*SHAPE[:-1], 1))
    value, (gradient, *_) = OURS[term](z, *others)
    same, (other, *_) = OURS[term](z + constant.astype(np.float32), *others)
    assert_allclose(same, value, rtol=1e-6)
    assert_allclose(other, gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("term", OVER_IMAGES)
@given(seeds, st.sampled_from(KINDS[1:]), maskings)  # 1e30 is over the range
def test_half_precision_maps_are_reduced_in_float32(term, seed, kind, masking):
    *floats, y = maps_of(seed, kind)
    mask, half = mask_of(seed, masking), [x.astype(np.float16) for x in floats]
    value = VALUES[term](*half, y, mask)
    expected, _ = OURS[term](*(x.astype(np.float32) for x in half), y, mask)
    assert value.dtype == jnp.float32
    assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


# Of some of them alone -----------------------------------------------------------------

edge_strength, pixel_entropy = jax.jit(losses.edge_strength), jax.jit(losses.pixel_entropy)
JOINTS = [
    jax.jit(lambda p, q, m, f=f: f(p, q, radius=1, mask=m))
    for f in (losses.joint_distribution, losses.joint_distribution_by_convolution)
]


@given(seeds, kinds, maskings, shapes)
def test_edges_and_uncertainty_fill_each_image_by_itself(seed, kind, masking, shape):
    (_, p, *_), mask = maps_of(seed, kind, shape), mask_of(seed, masking, shape[:-1])
    outside, order = mask == 0, np.random.default_rng(seed).permutation(len(p))
    for f in (edge_strength, pixel_entropy):
        maps = np.asarray(f(np.where(outside[..., None], np.nan, p), mask=mask))
        highest = maps.max(tuple(range(1, maps.ndim)))
        assert maps.dtype == np.float32 and maps.min() >= 0 and not maps[outside].any()
        assert_allclose(highest, highest > 0, atol=1e-6)
        assert_array_equal(f(p[order], mask=mask[order]), maps[order])


@given(seeds, st.sampled_from([-4.0, 0.25, 1024.0]), st.integers(-9, 9), shapes)
def test_edges_know_neither_unit_nor_zero_of_the_intensities(seed, unit, zero, shape):
    # Multiples of a power of two, so that nothing is rounded on the way.
    images = np.random.default_rng(seed).integers(256, size=shape).astype(np.float32) / 256
    assert_array_equal(edge_strength(np.float32(unit) * (images + zero)), edge_strength(images))


@given(seeds, kinds, maskings, shapes)
def test_joints_are_distributions_with_the_marginals_of_their_maps(seed, kind, masking, shape):
    (_, p, q, _), mask = maps_of(seed, kind, shape), mask_of(seed, masking, shape[:-1])
    joint, other = (np.asarray(f(p, q, mask)) for f in JOINTS)
    assert_allclose(joint, other, atol=1e-6)
    totals = joint.sum((-1, -2))
    assert joint.min() >= 0 and (np.minimum(totals, np.abs(totals - 1)) < 1e-5).all()
    # Of a pixel with itself, which weighs its mask.
    for axis, probs in ((-1, p), (-2, q)):
        expected = np.average(probs.reshape(-1, K), axis=0, weights=mask.ravel())
        itself = joint[(1,) * (p.ndim - 2)]
        assert_allclose(itself.sum(axis), expected, atol=1e-5)


@given(seeds)
def test_local_contrast_knows_no_order_of_pixels_images_or_classes(seed):
    rng = np.random.default_rng(seed)
    # One embedding an image and class, so that it does not matter which pixels are drawn.
    y, embeddings = rng.integers(K, size=(4, 15)), rng.normal(size=(4, K, 3)).astype(np.float32)
    names, images = np.append(0, 1 + rng.permutation(K - 1)), [0, 3, 2, 1]  # the pairs stay pairs

    def value(embeddings, y):
        z = np.take_along_axis(embeddings, y[..., None], axis=1).reshape(SHAPE)
        return OURS["local_contrastive_loss"](z, z, z, y.reshape(4, 3, 5), mask_of(0, "all"))[0]

    for same in (
        (embeddings, rng.permuted(y, axis=1)),
        (embeddings[images], y[images]),
        (embeddings[:, names], np.argsort(names)[y]),
    ):
        assert_allclose(value(*same), value(embeddings, y), rtol=1e-5)


@given(seeds, st.sampled_from(KINDS[1:]))
def test_supervised_contrast_knows_no_order_length_or_name(seed, kind):
    z, p, q, y = maps_of(seed, kind)
    rng = np.random.default_rng(seed + 2)
    order, lengths = rng.permutation(60), np.exp2(rng.integers(-30, 30, (*SHAPE[:-1], 1)))
    moved = (x.reshape(60, -1)[order].reshape(x.shape) for x in (z, p, q, y))
    value, *same = (
        OURS["supervised_contrastive_loss"](*maps, mask_of(0, "all"))[0]
        for maps in ((z, p, q, y), moved, (z * lengths.astype(np.float32), p, q, 7 - 3 * y))
    )
    assert_allclose(same, [value] * 2, rtol=1e-5)
