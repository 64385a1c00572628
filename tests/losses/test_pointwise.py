"""Pixelwise terms against their formulas in float64, and at the edges of their domains."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax import losses

SHAPE, K = (2, 3, 5), 4


def softmax(logits):
    logits = np.asarray(logits, np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def log(p):
    """Natural logarithm with 0 log 0 = 0 in mind."""
    return np.log(np.where(p > 0, p, 1.0))


def mean(values, mask):
    mask = np.ones(values.shape) if mask is None else np.asarray(mask, np.float64)
    return (values * mask).sum() / mask.sum()


def cross_entropy64(logits, labels, mask=None):
    probs = np.take_along_axis(softmax(logits), np.asarray(labels)[..., None], -1)[..., 0]
    return mean(-np.log(probs), mask)


def entropy64(logits, mask=None):
    p = softmax(logits)
    return mean(-(p * log(p)).sum(-1), mask)


def kl_divergence64(logits, probs, mask=None):
    p, q = softmax(logits), np.asarray(probs, np.float64)
    return mean((p * (log(p) - log(q))).sum(-1), mask)


def kl_to_logits64(probs, logits, mask=None):
    p, q = np.asarray(probs, np.float64), softmax(logits)
    return mean((p * (log(p) - log(q))).sum(-1), mask)


def squared_error64(p, q, mask=None):
    return mean(((np.asarray(p, np.float64) - np.asarray(q, np.float64)) ** 2).sum(-1), mask)


def soft_dice_loss64(probs, labels, mask=None, background=False, power=1, smooth=0.0):
    weights = np.ones(labels.shape) if mask is None else np.asarray(mask, np.float64)
    dice = []
    for k in range(0 if background else 1, probs.shape[-1]):
        y = np.asarray(labels) == k
        p = np.asarray(probs[..., k], np.float64)
        if (y * weights).sum() > 0 or smooth:
            overlap, total = (weights * p * y).sum(), (weights * (p**power + y)).sum()
            dice.append((2 * overlap + smooth) / (total + smooth))
    return 1 - np.mean(dice) if dice else 0.0


@pytest.fixture(params=[None, "binary", "fractional"])
def mask(request):
    draws = np.random.default_rng(7).uniform(size=SHAPE).astype(np.float32)
    return {None: None, "binary": draws > 0.4, "fractional": draws * (draws > 0.3)}[request.param]


@pytest.fixture
def maps():
    """Logits, normalised probabilities, and labels."""
    rng = np.random.default_rng(0)
    logits = 3 * rng.normal(size=(*SHAPE, K)).astype(np.float32)
    probs = softmax(2 * rng.normal(size=(*SHAPE, K))).astype(np.float32)
    return logits, probs, rng.integers(K, size=SHAPE)


# Each term as a function of (logits, probs, labels, mask), and the same in float64.
TERMS = {
    "cross_entropy": (
        lambda z, q, y, m: losses.cross_entropy(z, y, mask=m),
        lambda z, q, y, m: cross_entropy64(z, y, m),
    ),
    "entropy": (
        lambda z, q, y, m: losses.entropy(z, mask=m),
        lambda z, q, y, m: entropy64(z, m),
    ),
    "kl_divergence": (
        lambda z, q, y, m: losses.kl_divergence(z, q, mask=m),
        lambda z, q, y, m: kl_divergence64(z, q, m),
    ),
    "kl_to_logits": (
        lambda z, q, y, m: losses.kl_to_logits(q, z, mask=m),
        lambda z, q, y, m: kl_to_logits64(q, z, m),
    ),
    "squared_error": (
        lambda z, q, y, m: losses.squared_error(jax.nn.softmax(z), q, mask=m),
        lambda z, q, y, m: squared_error64(softmax(z), q, m),
    ),
    "soft_dice_loss": (
        lambda z, q, y, m: losses.soft_dice_loss(q, y, mask=m),
        lambda z, q, y, m: soft_dice_loss64(q, y, m),
    ),
    "soft_dice_loss_with_background": (
        lambda z, q, y, m: losses.soft_dice_loss(q, y, mask=m, background=True),
        lambda z, q, y, m: soft_dice_loss64(q, y, m, background=True),
    ),
    "soft_dice_loss_of_the_releases": (
        lambda z, q, y, m: losses.soft_dice_loss(
            q, y % 3, mask=m, background=True, squared=True, absent=True
        ),
        lambda z, q, y, m: soft_dice_loss64(q, y % 3, m, background=True, power=2, smooth=1e-5),
    ),
}


# Compiled, all in one: op by op, or term by term, the tests would take several times as long.
@jax.jit
def values(*maps):
    return {term: ours(*maps) for term, (ours, _) in TERMS.items()}


@jax.jit
def values_and_gradients(*maps):
    both = {term: jax.value_and_grad(ours, argnums=(0, 1)) for term, (ours, _) in TERMS.items()}
    return {term: of_term(*maps) for term, of_term in both.items()}


cross_entropy, entropy, kl_divergence, squared_error = map(
    jax.jit, (losses.cross_entropy, losses.entropy, losses.kl_divergence, losses.squared_error)
)
soft_dice_loss = jax.jit(losses.soft_dice_loss, static_argnames="background")
each_term = pytest.mark.parametrize("term", TERMS)


@each_term
def test_equals_the_formula_in_float64(term, maps, mask):
    logits, probs, labels = maps
    formula = TERMS[term][1]
    value = values(logits, probs, labels, mask)[term]
    assert value.shape == () and value.dtype == jnp.float32
    assert_allclose(value, formula(logits, probs, labels, mask), rtol=2e-6)


@each_term
def test_volumes_are_maps_of_as_many_pixels(term, maps):
    logits, probs, labels = (x.reshape(1, 2, 3, 5, *x.shape[3:]) for x in maps)
    mask = np.random.default_rng(7).uniform(size=labels.shape).astype(np.float32)
    formula = TERMS[term][1]
    value = values(logits, probs, labels, mask)[term]
    assert_allclose(value, formula(logits, probs, labels, mask), rtol=2e-6)
    with pytest.raises(ValueError, match=r"mask of these maps is \(1, 2, 3, 5\), not \(2, 3, 5\)"):
        jax.eval_shape(TERMS[term][0], logits, probs, labels, mask[0])


@each_term
def test_half_precision_inputs_are_reduced_in_float32(term, maps):
    logits, probs = (x.astype(jnp.bfloat16) for x in maps[:2])
    formula = TERMS[term][1]
    if term == "squared_error":  # the softmax of these two lines would be in half precision
        logits = logits.astype(np.float32)
    value = values(logits, probs, maps[2], None)[term]
    assert value.dtype == jnp.float32
    rounded = (np.asarray(x, np.float32) for x in (logits, probs))
    assert_allclose(value, formula(*rounded, maps[2], None), rtol=3e-6)


@each_term
def test_a_mask_for_all_images_of_a_batch_is_the_mask_of_each(term, maps):
    mask = np.array([[1, 0, 1, 1, 0], [0, 1, 1, 0, 1], [1, 1, 1, 0, 0]], np.float32)
    of_all, of_each = (values(*maps, m)[term] for m in (mask[None], np.stack([mask, mask])))
    assert of_all == of_each


@each_term
def test_an_empty_mask_gives_zero_and_no_gradient(term, maps):
    value, gradients = values_and_gradients(*maps, np.zeros(SHAPE, bool))[term]
    assert value == 0
    assert not any(np.any(g) for g in gradients)


@pytest.mark.parametrize("poison", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("term", [t for t in TERMS if t != "squared_error"])
def test_what_stands_outside_the_mask_reaches_neither_value_nor_gradient(term, poison, maps):
    logits, probs, labels = maps
    outside = np.zeros(SHAPE, bool)
    outside[0, 1] = outside[1, 2, 3] = True

    def value_and_gradients(bad, bad_label):
        x = [np.where(outside[..., None], np.float32(bad), x) for x in (logits, probs)]
        y = np.where(outside, bad_label, labels)
        return values_and_gradients(*x, y, ~outside)[term]

    # 255 is what other tools write where a label is to be ignored.
    for ours, expected in zip(
        jax.tree.leaves(value_and_gradients(poison, 255)),
        jax.tree.leaves(value_and_gradients(0.5, 0)),
        strict=True,
    ):
        assert_allclose(ours, expected, rtol=1e-6)


def test_squared_error_outside_the_mask(maps):
    mask, p, q = np.ones(SHAPE), maps[1].copy(), np.full((*SHAPE, K), 0.25, np.float32)
    mask[0, 0, 0], p[0, 0, 0] = 0, np.nan
    value, gradient = jax.jit(jax.value_and_grad(losses.squared_error))(p, q, mask=mask)
    assert_allclose(value, squared_error64(maps[1], q, mask), rtol=2e-6)
    assert np.isfinite(gradient).all()


def test_closed_forms():
    uniform, labels = np.zeros((1, 2, 2, K), np.float32), np.array([[[0, 1], [2, 3]]])
    one_hot = np.eye(K, dtype=np.float32)[labels]
    assert_allclose(cross_entropy(uniform, labels), np.log(K), rtol=1e-6)
    assert_allclose(entropy(uniform), np.log(K), rtol=1e-6)
    assert_allclose(kl_divergence(uniform, uniform + 1 / K), 0, atol=1e-7)
    # p = (3/4, 1/4, 0, 0) against q = (1/2, 1/2, 0, 0): log 2 − H(3/4).
    p, q = (np.float32([*x, 0, 0]) for x in ((0.75, 0.25), (0.5, 0.5)))
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    logits = uniform + np.log(np.maximum(p, 1e-30))
    assert_allclose(kl_divergence(logits, uniform + q), expected, rtol=1e-6)
    rolled = np.roll(one_hot, 1, -1)
    assert_allclose(squared_error(one_hot, rolled), 2)
    assert soft_dice_loss(one_hot, labels) == 0
    assert soft_dice_loss(rolled, labels, background=True) == 1
    # Half of everything: 2·½ / (½·4 + 1) = 1/3 a class.
    assert_allclose(soft_dice_loss(uniform + np.float32(0.5), labels), 2 / 3, rtol=1e-6)


def test_soft_dice_leaves_out_absent_classes_and_background():
    labels = np.array([[[1, 1], [0, 0]]])
    probs = np.eye(K, dtype=np.float32)[labels]
    assert soft_dice_loss(probs, labels) == 0  # classes 2 and 3 are nowhere
    background_alone = np.zeros((1, 2, 2), int)
    assert soft_dice_loss(probs, background_alone) == 0
    # Background: 2·2 / (2 + 4).
    value = soft_dice_loss(probs, background_alone, background=True)
    assert_allclose(value, 1 - 4 / 6, rtol=1e-6)


@each_term
@pytest.mark.parametrize("size", [30.0, 200.0, 1e4])
def test_gradients_are_finite_where_logits_are_saturated_and_classes_dead(term, size):
    # Class 3 is dead everywhere; the rest is one-hot, p and q agreeing in half of the pixels.
    rng = np.random.default_rng(1)
    logits = np.full((*SHAPE, K), -size, np.float32)
    labels = rng.integers(K - 1, size=SHAPE)
    np.put_along_axis(logits, labels[..., None], size, -1)
    probs = softmax(np.roll(logits, 1, axis=0)).astype(np.float32)
    value, gradients = values_and_gradients(logits, probs, labels, np.ones(SHAPE, bool))[term]
    assert np.isfinite(value)
    assert all(np.isfinite(g).all() for g in gradients)


def confident_logits():
    """Margins of 10 to 30 nats; in half of the pixels the two sides disagree."""
    rng = np.random.default_rng(2)
    first, second = rng.integers(K, size=(2, *SHAPE))
    second[0] = first[0]
    margins = rng.uniform(10, 30, size=(2, *SHAPE, 1))
    both = rng.normal(size=(2, *SHAPE, K)) + margins * np.eye(K)[np.stack([first, second])]
    return both.astype(np.float32)


def kl_gradients64(a, b):
    """Of the mean KL(softmax a ‖ softmax b): p (log p − log q − KL) and q − p."""
    p, q = softmax(a), softmax(b)
    kl = (p * (np.log(p) - np.log(q))).sum(-1, keepdims=True)
    pixels = p[..., 0].size
    return p * (np.log(p) - np.log(q) - kl) / pixels, (q - p) / pixels


def relative_error(value, expected):
    return np.linalg.norm(np.asarray(value, np.float64) - expected) / np.linalg.norm(expected)


def test_gradient_of_kl_is_exact_on_confident_pixels():
    a, b = confident_logits()

    def ours(a, b):
        return losses.kl_divergence(a, jax.nn.softmax(b))

    gradients = jax.jit(jax.grad(ours, argnums=(0, 1)))(a, b)
    for gradient, expected in zip(gradients, kl_gradients64(a, b), strict=True):
        assert relative_error(gradient, expected) < 1e-3


def test_gradient_of_logits_far_from_the_target_is_their_difference():
    p = np.full((1, 1, 1, K), 1 / K, np.float32)
    loss = jax.jit(jax.value_and_grad(losses.kl_to_logits, argnums=1))
    for gap in (10.0, 88.0, 1000.0):
        logits = gap * np.eye(K, dtype=np.float32)[:1].reshape(p.shape)
        value, gradient = loss(p, logits)
        assert_allclose(gradient, softmax(logits) - p, atol=1e-7)
        assert_allclose(value, 0.75 * gap - np.log(K), rtol=1e-3)


def test_an_epsilon_in_the_logarithm_would_fail_that_test():
    a, b = confident_logits()

    def with_epsilon(a, b):
        p, q = jax.nn.softmax(a), jax.nn.softmax(b)
        return jnp.mean(jnp.sum(p * (jnp.log(p + 1e-8) - jnp.log(q + 1e-8)), -1))

    gradients = jax.jit(jax.grad(with_epsilon, argnums=(0, 1)))(a, b)
    _, expected = kl_gradients64(a, b)
    assert relative_error(gradients[1], expected) > 0.3


def test_gradient_of_entropy_is_exact_on_confident_pixels():
    logits, _ = confident_logits()
    p = softmax(logits)
    # dH / dz_j = −p_j (log p_j + H)
    h = -(p * np.log(p)).sum(-1, keepdims=True)
    expected = -p * (np.log(p) + h) / p[..., 0].size
    gradient = jax.jit(jax.grad(losses.entropy))(logits)
    assert relative_error(gradient, expected) < 1e-3


@pytest.mark.parametrize("term", ["kl_divergence", "kl_to_logits", "squared_error"])
def test_maps_of_different_shapes_are_refused(term):
    p = np.full((2, 4, 4, 3), 1 / 3)
    for other in (p[:1], p[None]):
        with pytest.raises(ValueError, match=r"one shape are compared, not \(2, 4, 4, 3\), \(1, "):
            getattr(losses, term)(p, other)


@each_term
@pytest.mark.parametrize("shape", [(*SHAPE, 1), SHAPE[1:], (2, 3, 4)])
def test_masks_of_another_shape_are_refused(term, shape, maps):
    with pytest.raises(ValueError, match=rf"mask of these maps is \(2, 3, 5\), not .{shape[0]},"):
        jax.eval_shape(TERMS[term][0], *maps, np.ones(shape))


@pytest.mark.parametrize("term", ["cross_entropy", "soft_dice_loss"])
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 1, 4, 4)])
def test_labels_of_another_shape_are_refused(term, shape):
    with pytest.raises(ValueError, match=rf"have labels \(2, 4, 4\), not \({shape[0]}, "):
        getattr(losses, term)(np.ones((2, 4, 4, 3)), np.zeros(shape, int))


@pytest.mark.parametrize("term", ["cross_entropy", "soft_dice_loss"])
def test_a_label_that_is_none_is_nan_unless_it_is_masked(term):
    options = {"background": True} if term == "soft_dice_loss" else {}
    loss = jax.jit(jax.value_and_grad(functools.partial(getattr(losses, term), **options)))
    maps = np.random.default_rng(0).dirichlet(np.ones(K), size=(2, 3)).astype(np.float32)
    for label in (255, -1, K):
        labels = np.array([[0, 1, 2], [3, 1, label]])
        mask = labels != label
        assert np.isnan(loss(maps, labels)[0])
        value, gradient = loss(maps, labels, mask=mask)
        other = loss(maps, np.where(mask, labels, 2), mask=mask)[0]
        assert value == other and np.isfinite(gradient).all() and not np.any(gradient[1, 2])


@pytest.mark.parametrize(("k", "dtype"), [(256, "uint8"), (300, "uint8"), (128, "int8")])
def test_labels_may_be_too_short_for_the_number_of_classes(k, dtype):
    maps = np.random.default_rng(0).dirichlet(np.ones(k), size=(2, 3)).astype(np.float32)
    labels = np.array([[0, 1, 2], [44, 90, 127]])
    for term in (jax.jit(losses.cross_entropy), soft_dice_loss):
        found = term(maps, labels.astype(dtype))
        assert found == term(maps, labels) and np.isfinite(found)


def test_a_logit_of_minus_infinity_rules_a_class_out():
    """Values and gradients are those of the other classes alone."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 3, K)).astype(np.float32)
    probs = rng.dirichlet(np.ones(K - 1), size=(2, 3)).astype(np.float32)
    ruled = np.concatenate([logits, np.full((2, 3, 1), -np.inf, np.float32)], -1)[..., 1:]
    without, padded = logits[..., 1:], np.pad(probs, ((0, 0), (0, 0), (0, 1)))
    terms = {
        "entropy": lambda z, q: losses.entropy(z),
        "kl_divergence": losses.kl_divergence,
        "kl_to_logits": lambda z, q: losses.kl_to_logits(q, z),
    }

    @jax.jit
    def results(z, q):
        return {name: jax.value_and_grad(f)(z, q) for name, f in terms.items()}

    found = results(ruled, padded)
    for name, (value, gradient) in results(without, probs).items():
        assert_allclose(found[name][0], value, rtol=1e-6)
        assert_allclose(found[name][1][..., :-1], gradient, rtol=1e-5, atol=1e-8)
        assert not np.any(found[name][1][..., -1])
