"""Transforms inside other people's ``shard_map`` as it comes, with ``check_vma``."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from numpy.testing import assert_array_equal

from mijax.transforms import largest_components, warp


def on_two_devices(f):
    mesh = jax.make_mesh((2,), ("devices",), (AxisType.Auto,), devices=jax.devices()[:2])
    divided = PartitionSpec("devices")
    return jax.shard_map(f, mesh=mesh, in_specs=divided, out_specs=divided)


def test_components_are_those_of_one_device():
    def largest(labels):
        return largest_components(labels, 3)

    labels = np.random.default_rng(0).integers(3, size=(2, 5, 6)).astype(np.int32)
    both = jax.jit(lambda x: (on_two_devices(largest)(x), largest(x)))
    assert_array_equal(*both(labels))


def test_the_gradient_of_a_turn_in_space_is_traced():
    """The check is made in the trace; what is computed is tested without devices."""

    def gradient(volumes, matrix):
        return jax.grad(lambda x: warp(x, matrix, inverse=matrix).sum())(volumes)

    volumes, matrix = (jax.ShapeDtypeStruct(s, jnp.float32) for s in ((2, 2, 3, 4, 1), (2, 4, 4)))
    assert jax.eval_shape(on_two_devices(gradient), volumes, matrix).shape == volumes.shape
