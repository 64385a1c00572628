"""Volumes against slices, and axis against axis."""

import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from mijax import losses

joint_distribution = jax.jit(lambda p, q, m: losses.joint_distribution(p, q, radius=1, mask=m))
boundary_correlation = jax.jit(lambda g, e, m: losses.boundary_correlation(g, e, window=3, mask=m))
edge_strength, pixel_entropy = jax.jit(losses.edge_strength), jax.jit(losses.pixel_entropy)


def maps(*shape, k=3):
    """Two maps of probabilities, and a mask of weights."""
    rng = np.random.default_rng(0)
    p, q = rng.dirichlet(np.ones(k), size=(2, *shape)).astype(np.float32)
    mask = rng.uniform(size=shape).astype(np.float32)
    return p, q, mask * (mask > 0.2)


def test_a_volume_of_one_slice_is_an_image():
    p, _, mask = images = maps(4, 5, 6)
    volumes = [x[:, None] for x in images]
    joint, flat = joint_distribution(*volumes), joint_distribution(*images)
    assert_allclose(joint[1], flat, atol=1e-6)
    assert not np.any(joint[::2])  # no slice has one beside it
    for f in (edge_strength, pixel_entropy):
        assert_array_equal(f(volumes[0], mask=volumes[2])[:, 0], f(p, mask=mask))


def test_slices_that_are_all_the_same_have_the_edges_of_one():
    p, _, mask = maps(4, 5, 6)
    volumes, masks = (np.repeat(x[:, None], 3, axis=1) for x in (p, mask))
    edges = edge_strength(volumes, mask=masks)
    for number in range(3):
        assert_array_equal(edges[:, number], edge_strength(p, mask=mask))


@pytest.mark.parametrize("order", list(itertools.permutations(range(3)))[1:])
def test_no_axis_is_another_than_the_others(order):
    volumes = p, q, mask = maps(2, 3, 3, 3)
    signs = slice(None), slice(None, None, -1), slice(None)

    def turned(x, first):
        """With the three axes from the ``first`` on in another order, the second backwards."""
        moved = [first + axis for axis in order]
        x = np.transpose(x, (*range(first), *moved, *range(first + 3, x.ndim)))
        return x[(*[slice(None)] * first, *signs)]

    joint = joint_distribution(*(turned(x, 1) for x in volumes))
    assert_allclose(joint, turned(np.asarray(joint_distribution(*volumes)), 0), atol=1e-6)
    correlated = mask, q[..., 0], p[..., 0]
    value = boundary_correlation(*(turned(x, 1) for x in correlated))
    assert_allclose(value, boundary_correlation(*correlated), rtol=1e-5)
