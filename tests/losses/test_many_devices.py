"""Losses inside other people's ``pmap`` and ``shard_map``: the value of the global batch.

How the gradient of the global loss is had from eight devices, in each of the three programs:

- ``pmap`` and ``shard_map(check_vma=False)``: the transpose of ``psum`` is ``psum``, so that
  each device differentiates the sum of all devices' (equal) losses. A gradient with respect
  to shared parameters is then averaged: ``pmean``.
- ``shard_map`` as it comes (``check_vma=True``): JAX knows that the parameters are the same
  everywhere and adds the devices' gradients by itself; nothing is left to reduce.
"""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from numpy.testing import assert_allclose

from mijax import losses

DEVICES, PER_DEVICE, SIZE, FEATURES, K = 8, 1, 4, 5, 3
AXIS = "devices"
ONE_PIXEL_A_CLASS = np.arange(SIZE**2).reshape(1, SIZE, SIZE)


def network(weights, images):
    return jnp.einsum("bhwc,ck->bhwk", images, weights)


def in_strips(*args, **options):
    """``local_mutual_information`` in as many strips as there are rows."""
    module = importlib.import_module("mijax.losses.mutual_information")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "STRIP", 1)
        return losses.local_mutual_information(*args, **options)


def as_volumes(x):
    return x.reshape(len(x), 2, 2, SIZE, *x.shape[3:])


# Every loss as a function of (weights, batch, axis_name), batch = (images, others, labels, mask).
LOSSES = {
    "cross_entropy": lambda w, b, axis: losses.cross_entropy(
        network(w, b[0]), b[2], mask=b[3], axis_name=axis
    ),
    "entropy": lambda w, b, axis: losses.entropy(network(w, b[0]), mask=b[3], axis_name=axis),
    "kl_divergence": lambda w, b, axis: losses.kl_divergence(
        network(w, b[0]), jax.nn.softmax(network(w, b[1])), mask=b[3], axis_name=axis
    ),
    "kl_to_logits": lambda w, b, axis: losses.kl_to_logits(
        jax.nn.softmax(network(w, b[0])), network(w, b[1]), mask=b[3], axis_name=axis
    ),
    "squared_error": lambda w, b, axis: losses.squared_error(
        *(jax.nn.softmax(network(w, x)) for x in b[:2]), mask=b[3], axis_name=axis
    ),
    "soft_dice_loss": lambda w, b, axis: losses.soft_dice_loss(
        jax.nn.softmax(network(w, b[0])), b[2], mask=b[3], background=True, axis_name=axis
    ),
    "local_mutual_information": lambda w, b, axis: losses.local_mutual_information(
        *(jax.nn.softmax(network(w, x)) for x in b[:2]), mask=b[3], axis_name=axis
    ),
    "local_mutual_information_in_strips": lambda w, b, axis: in_strips(
        *(jax.nn.softmax(network(w, x)) for x in b[:2]), mask=b[3], axis_name=axis
    ),
    "local_mutual_information_of_volumes": lambda w, b, axis: losses.local_mutual_information(
        *(as_volumes(jax.nn.softmax(network(w, x))) for x in b[:2]),
        mask=as_volumes(b[3]),
        axis_name=axis,
    ),
    "joint_distribution_by_convolution": lambda w, b, axis: jnp.mean(
        losses.mutual_information(
            losses.joint_distribution_by_convolution(
                *(jax.nn.softmax(network(w, x)) for x in b[:2]),
                radius=1,
                mask=b[3],
                axis_name=axis,
            )
        )
    ),
    "regularised_information_loss": lambda w, b, axis: jnp.mean(
        losses.regularised_information_loss(
            losses.joint_distribution(
                *(jax.nn.softmax(network(w, x)) for x in b[:2]),
                radius=0,
                mask=b[3],
                axis_name=axis,
            )
        )
    ),
    "boundary_correlation": lambda w, b, axis: losses.boundary_correlation(
        losses.edge_strength(b[0], mask=b[3]),
        losses.pixel_entropy(jax.nn.softmax(network(w, b[1])), mask=b[3]),
        window=3,
        mask=b[3],
        axis_name=axis,
    ),
    "local_contrastive_loss": lambda w, b, axis: losses.local_contrastive_loss(
        jax.random.key(0),
        network(w, jnp.concatenate(b[:2])),
        # One pixel a class at most, so that whatever key draws it is the anchor.
        jnp.tile(jnp.where(b[3] > 0, ONE_PIXEL_A_CLASS, 0), (2, 1, 1)),
        pairs=[(n, n + len(b[0])) for n in range(len(b[0]))],
        num_classes=SIZE**2,
        axis_name=axis,
    ),
    "supervised_contrastive_loss": lambda w, b, axis: losses.supervised_contrastive_loss(
        jnp.mean(network(w, b[0]), axis=(1, 2)), b[2][:, 0, 0], axis_name=axis
    ),
}


@pytest.fixture(scope="module")
def problem():
    """Weights, and a batch whose masks are of very different size from device to device."""
    rng = np.random.default_rng(0)
    shape = (DEVICES * PER_DEVICE, SIZE, SIZE)
    images = rng.normal(size=(*shape, FEATURES)) + rng.normal(size=(shape[0], 1, 1, FEATURES))
    others = images + 0.3 * rng.normal(size=images.shape)
    share = np.linspace(0.1, 1, shape[0])[:, None, None]
    batch = (images, others, rng.integers(K, size=shape), rng.uniform(size=shape) < share)
    weights = jnp.asarray(rng.normal(size=(FEATURES, K)), jnp.float32)
    dtypes = (jnp.float32, jnp.float32, jnp.int32, jnp.float32)
    return weights, tuple(jnp.asarray(x, d) for x, d in zip(batch, dtypes, strict=True))


def value_and_gradients(weights, batch, axis):
    return {name: jax.value_and_grad(f)(weights, batch, axis) for name, f in LOSSES.items()}


@pytest.fixture(scope="module")
def whole(problem):
    """Values and gradients of the whole batch on one device."""
    return jax.jit(value_and_gradients, static_argnums=2)(*problem, None)


def averaged(weights, batch):
    results = value_and_gradients(weights, batch, AXIS)
    return {name: (value, jax.lax.pmean(g, AXIS)) for name, (value, g) in results.items()}


def under_pmap(weights, batch):
    shards = jax.tree.map(lambda x: x.reshape(DEVICES, PER_DEVICE, *x.shape[1:]), batch)
    return jax.pmap(averaged, axis_name=AXIS, in_axes=(None, 0))(weights, shards)


def under_shard_map(weights, batch, *, check_vma):
    mesh = jax.make_mesh((DEVICES,), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
    shared, split = PartitionSpec(), PartitionSpec(AXIS)
    f = jax.shard_map(
        (lambda w, b: value_and_gradients(w, b, AXIS)) if check_vma else averaged,
        mesh=mesh,
        in_specs=(shared, split),
        out_specs=shared,
        check_vma=check_vma,
    )
    return jax.tree.map(lambda x: x[None], jax.jit(f)(weights, batch))


PROGRAMS = {
    "pmap": under_pmap,
    "shard_map": functools.partial(under_shard_map, check_vma=True),
    "shard_map unchecked": functools.partial(under_shard_map, check_vma=False),
}


# JAX makes of pmap a shard_map without the check.
SLOW = {"pmap": pytest.mark.slow}


@pytest.mark.parametrize("program", [pytest.param(p, marks=SLOW.get(p, ())) for p in PROGRAMS])
def test_every_device_has_value_and_gradient_of_the_global_batch(program, problem, whole):
    results = PROGRAMS[program](*problem)
    for name, (values, gradients) in results.items():
        value, gradient = whole[name]
        assert_allclose(values, np.broadcast_to(value, values.shape), rtol=5e-6, err_msg=name)
        expected = np.broadcast_to(gradient, gradients.shape)
        atol = 1e-5 * np.abs(gradient).max()
        assert_allclose(gradients, expected, atol=atol, err_msg=name)


def test_the_mean_of_per_device_values_is_another_loss(problem, whole):
    weights, batch = problem
    values = jax.jit(lambda w, b: {name: f(w, b, None) for name, f in LOSSES.items()})
    shards = [jax.tree.map(lambda x, i=i: x[i : i + 1], batch) for i in range(DEVICES)]
    parts = [values(weights, shard) for shard in shards]
    for name, (value, _) in whole.items():
        naive = np.mean([part[name] for part in parts])
        assert abs(naive - value) > 0.01 * abs(value), name
