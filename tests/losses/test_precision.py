"""Every loss in float64 where JAX is told to keep it: values, and derivatives of both modes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax import losses

SHAPE = (2, 6, 7, 3)
IMAGES = np.random.default_rng(2).uniform(size=SHAPE)
LABELS = np.random.default_rng(3).integers(3, size=SHAPE[:3])


def correlation(z, p, mask):
    uncertainty = losses.pixel_entropy(p, mask=mask)
    return losses.boundary_correlation(losses.edge_strength(IMAGES, mask=mask), uncertainty)


def regularised(z, p, mask):
    joint = losses.joint_distribution(p, jax.nn.softmax(z), radius=0, mask=mask)
    return jnp.sum(losses.regularised_information_loss(joint))


# Of logits and of probabilities; the masks are of truth values, of integers and of weights.
TERMS = {
    "cross_entropy": lambda z, p, m: losses.cross_entropy(z, LABELS, mask=m),
    "entropy": lambda z, p, m: losses.entropy(z, mask=m),
    "kl_divergence": lambda z, p, m: losses.kl_divergence(z, p, mask=m),
    "kl_to_logits": lambda z, p, m: losses.kl_to_logits(p, z, mask=m),
    "squared_error": lambda z, p, m: losses.squared_error(z, p, mask=m),
    "soft_dice_loss": lambda z, p, m: losses.soft_dice_loss(p, LABELS, mask=m),
    "label_loss": lambda z, p, m: losses.label_loss(z, LABELS, kind="cross_entropy+dice", mask=m),
    "local_mutual_information": lambda z, p, m: losses.local_mutual_information(
        p, jax.nn.softmax(z), mask=m
    ),
    "regularised_information_loss": regularised,
    "boundary_correlation": correlation,
    "local_contrastive_loss": lambda z, p, m: losses.local_contrastive_loss(
        jax.random.key(0), z, LABELS, pairs=[(0, 1)], num_classes=3
    ),
    "supervised_contrastive_loss": lambda z, p, m: losses.supervised_contrastive_loss(
        z[0, 0], LABELS[0, 0]
    ),
}
DRAWS = np.random.default_rng(4).uniform(size=SHAPE[:3])
MASKS = {"none": None, "bool": DRAWS > 0.3, "int": (DRAWS > 0.3).astype(int), "float": DRAWS}
MAPS, STEP = np.random.default_rng(0).normal(size=(2, 2, *SHAPE))


def value(term, mask, z, y):
    return TERMS[term](z, jax.nn.softmax(y), MASKS[mask])


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("mask", MASKS)
def test_float64_is_kept(term, mask):
    with jax.enable_x64(True):
        assert jax.eval_shape(functools.partial(value, term, mask), *MAPS).dtype == jnp.float64


# The stretch of uncertainty holds its extremes fixed, as differences do not.
@pytest.mark.parametrize("term", [t for t in TERMS if t != "boundary_correlation"])
def test_derivatives_to_the_digits_of_float64(term):
    @jax.jit
    def derivatives(maps, step):
        f = functools.partial(value, term, "float")
        return *jax.jvp(f, maps, step), jax.grad(f, argnums=(0, 1))(*maps)

    maps, step = tuple(MAPS), tuple(STEP)
    with jax.enable_x64(True):
        (high, *_), (low, *_) = (derivatives(tuple(MAPS + s * STEP), step) for s in (5e-7, -5e-7))
        _, forward, gradient = derivatives(maps, step)
    difference = (np.asarray(high) - np.asarray(low)) / 1e-6
    assert_allclose(forward, difference, rtol=1e-7, atol=1e-7)
    assert_allclose(np.sum(np.stack(gradient) * STEP), difference, rtol=1e-7, atol=1e-7)


def test_mutual_information_to_the_digits_of_float64():
    joint = np.random.default_rng(5).dirichlet(np.ones(16)).reshape(4, 4)
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    with jax.enable_x64(True):
        value = losses.mutual_information(joint)
        assert_allclose(value, (joint * np.log(joint / (rows * columns))).sum(), rtol=1e-13)
