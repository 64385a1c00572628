"""Joint distributions by brute force, and mutual information by its closed forms."""

import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mijax import losses

# The package has a function of that name.
mutual_information_module = importlib.import_module("mijax.losses.mutual_information")

# Compiled once a shape: op by op, the tests would take several times as long.
joint_distribution = jax.jit(losses.joint_distribution, static_argnames="radius")
by_convolution = jax.jit(losses.joint_distribution_by_convolution, static_argnames="radius")
local_mutual_information = jax.jit(
    losses.local_mutual_information, static_argnames=("radius", "symmetric", "marginal_weight")
)
mutual_information = jax.jit(losses.mutual_information)
information_and_gradient = jax.jit(jax.value_and_grad(losses.mutual_information))
regularised_information_loss = jax.jit(
    losses.regularised_information_loss, static_argnames="balance"
)

FORMS = [joint_distribution, by_convolution]
both_forms = pytest.mark.parametrize("joint_of", FORMS, ids=["product", "convolution"])
both_dims = pytest.mark.parametrize("space", [(5, 7), (3, 3, 4)], ids=["2-D", "3-D"])


def simplex(rng, *shape, sharpness=2.0):
    logits = sharpness * rng.normal(size=shape)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return (exp / exp.sum(-1, keepdims=True)).astype(np.float32)


def joint64(p, q, radius, mask=None):
    """Equation 6, pixel by pixel."""
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    if mask is not None:
        p, q = (x * np.sqrt(np.asarray(mask, np.float64))[..., None] for x in (p, q))
    (b, *space, k), window = p.shape, 2 * radius + 1
    joint = np.zeros((*[window] * len(space), k, k))
    for index in np.ndindex(joint.shape[:-2]):
        for n, *i in np.ndindex(b, *space):
            other = np.add(i, index) - radius
            if np.all((other >= 0) & (other < space)):
                joint[index] += np.outer(p[n, *i], q[n, *other])
    return joint / joint.sum((-1, -2), keepdims=True)


def mutual_information64(joint, marginal_weight=1.0):
    """H(row) and H(column), each weighted, minus the joint entropy."""

    def entropy(p):
        p = p[p > 0]
        return -(p * np.log(p)).sum()

    joint = np.asarray(joint, np.float64) / np.sum(joint, dtype=np.float64)
    marginals = entropy(joint.sum(0)) + entropy(joint.sum(1))
    return marginal_weight * marginals - entropy(joint.ravel())


# Joint distribution --------------------------------------------------------------------


# Every radius with one mask, and every mask with one radius; above 1 is a weight too.
@both_forms
@pytest.mark.parametrize(
    ("radius", "masking"), [(0, "weights"), (1, "weights"), (2, "weights"), (1, None), (1, "bool")]
)
@both_dims
def test_joint_equals_the_sum_over_pixels(joint_of, radius, masking, space):
    rng = np.random.default_rng(radius)
    p, q = simplex(rng, 3, *space, 4), simplex(rng, 3, *space, 4)
    draws = rng.uniform(size=(3, *space)).astype(np.float32)
    mask = {None: None, "bool": draws > 0.3, "weights": 2 * draws * (draws > 0.1)}[masking]
    joint = np.asarray(joint_of(p, q, radius=radius, mask=mask))
    assert joint.shape == (*[2 * radius + 1] * len(space), 4, 4) and joint.dtype == np.float32
    assert_allclose(joint, joint64(p, q, radius, mask), rtol=2e-6, atol=1e-8)
    assert_allclose(joint.sum((-1, -2)), np.ones(joint.shape[:-2]), rtol=1e-6)


@pytest.mark.parametrize(("radius", "space"), [(0, (4, 6)), (2, (4, 6)), (1, (3, 2, 4))])
def test_both_forms_have_the_same_gradient(radius, space):
    rng = np.random.default_rng(3)
    p, q = simplex(rng, 2, *space, 3), simplex(rng, 2, *space, 3)
    mask = rng.uniform(size=(2, *space)) > 0.2
    weights = rng.normal(size=(*[2 * radius + 1] * len(space), 3, 3)).astype(np.float32)

    def gradients(joint_of):
        def value(p, q):
            return jnp.sum(weights * joint_of(p, q, radius=radius, mask=mask))

        return jax.grad(value, argnums=(0, 1))(p, q)

    for one, other in zip(*jax.jit(lambda: [gradients(f) for f in FORMS])(), strict=True):
        assert_allclose(one, other, atol=2e-6 * np.abs(other).max())


@both_forms
def test_the_displacement_is_that_of_q_against_p(joint_of):
    p, q = np.zeros((2, 3, 5, 7, 4), np.float32)
    p[0, 1, 1, 0] = q[0, 0, 2, 1] = 1  # one row up, one column right
    joint = np.asarray(joint_of(p, q, radius=1))
    assert joint[0, 2, 0, 1] == 1 and joint.sum() == 1
    p, q = np.zeros((2, 1, 4, 3, 5, 3), np.float32)
    p[0, 2, 1, 1, 0] = q[0, 1, 1, 2, 1] = 1  # one slice up, the same row, one column right
    joint = np.asarray(joint_of(p, q, radius=1))
    assert joint[0, 1, 2, 0, 1] == 1 and joint.sum() == 1


def test_the_gradient_of_a_mask_is_finite_where_it_is_0():
    rng = np.random.default_rng(15)
    p, q, mask = simplex(rng, 1, 3, 4, 2), simplex(rng, 1, 3, 4, 2), np.zeros((1, 3, 4))
    mask[0, 0] = 0.5
    gradient = jax.jit(jax.grad(lambda m: losses.local_mutual_information(p, q, mask=m)))
    assert np.isfinite(gradient(mask)).all()


# The first strips are of one row or slice, the others of three of them, two of nothing at last.
@pytest.mark.parametrize(
    ("shape", "radius", "copies", "strips"),
    [
        ((2, 7, 5, 3), 2, 8400, (1000, 3000)),
        ((2, 7, 3, 2, 3), 1, 12096, (1000, 5000)),
    ],
    ids=["2-D", "3-D"],
)
def test_strips_make_the_same_product(shape, radius, copies, strips, monkeypatch):
    rng = np.random.default_rng(16)
    p, q, dp, dq = (simplex(rng, *shape) for _ in range(4))
    mask = rng.uniform(size=shape[:-1]) > 0.2

    def results():
        def value(p, q):
            joint = losses.joint_distribution(p, q, radius=radius, mask=mask)
            return jnp.sum(mutual_information(joint))

        both = jax.value_and_grad(value, argnums=(0, 1))
        each = jax.vmap(lambda p, q: losses.joint_distribution(p[None], q[None], radius=radius))
        return jax.jit(lambda: (both(p, q), jax.jvp(value, (p, q), (dp, dq)), each(p, q)))()

    whole, window = results(), 2 * radius + 1
    assert (window + window ** (len(shape) - 3)) * p.nbytes == copies
    for strip in strips:
        monkeypatch.setattr(mutual_information_module, "STRIP", strip)
        for one, other in zip(*map(jax.tree.leaves, (results(), whole)), strict=True):
            assert_allclose(one, other, rtol=2e-5, atol=1e-6 * np.abs(other).max())


def test_no_strip_is_of_nothing(monkeypatch):
    # 12 strips of 16 slices are of two slices each, so that 8 have them all.
    maps = np.ones((1, 16, 3, 2, 2), np.float32)
    monkeypatch.setattr(mutual_information_module, "STRIP", (3 + 9) * maps.nbytes / 12)
    joint_of = functools.partial(losses.joint_distribution, radius=1)
    assert "length=8 " in str(jax.make_jaxpr(joint_of)(maps, maps)).replace("\n", " ")


# A sub-head of MELBA's finest feature: one product alone has 0.56 GB of shifted copies. The
# volumes: 0.57 GB.
@pytest.mark.parametrize(
    ("shape", "radius"), [((10, 224, 224, 20), 3), ((2, 32, 96, 96, 20), 1)], ids=["2-D", "3-D"]
)
def test_a_large_window_of_many_clusters_needs_little_memory(shape, radius):
    maps = jax.ShapeDtypeStruct(shape, jnp.float32)
    information = functools.partial(losses.local_mutual_information, radius=radius)
    program = jax.jit(jax.value_and_grad(information, argnums=(0, 1))).lower(maps, maps)
    assert program.compile().memory_analysis().temp_size_in_bytes < 0.5e9


@pytest.mark.parametrize("f", [losses.mutual_information, losses.regularised_information_loss])
def test_a_joint_that_is_not_square_is_refused(f):
    with pytest.raises(ValueError, match=r"a joint is \(..., k, k\), not \(3, 2\)"):
        f(np.ones((3, 2)))


@functools.cache
def information_and_gradients(joint_of):
    def information(p, q, mask):
        return jnp.mean(mutual_information(joint_of(p, q, radius=1, mask=mask)))

    return jax.jit(jax.value_and_grad(information, argnums=(0, 1)))


@both_forms
def test_a_mask_of_nothing_gives_zeros_and_no_gradient(joint_of):
    p = simplex(np.random.default_rng(5), 2, 3, 4, 3)
    empty = np.zeros((2, 3, 4), bool)
    assert not np.any(joint_of(p, p, radius=1, mask=empty))
    value, gradients = information_and_gradients(joint_of)(p, p, empty)
    assert value == 0 and not any(np.any(g) for g in gradients)


@both_forms
@pytest.mark.parametrize(
    ("poison", "space"), [(np.nan, (3, 4)), (np.inf, (3, 4)), (np.nan, (2, 3, 2))]
)
def test_what_stands_outside_the_mask_reaches_neither_value_nor_gradient(joint_of, poison, space):
    rng = np.random.default_rng(6)
    clean = simplex(rng, 2, *space, 3), simplex(rng, 2, *space, 3)
    outside = rng.uniform(size=(2, *space)) < 0.3

    def results(fill):
        p, q = (np.where(outside[..., None], np.float32(fill), x) for x in clean)
        return jax.tree.leaves(information_and_gradients(joint_of)(p, q, ~outside))

    for ours, expected in zip(results(poison), results(0.25), strict=True):
        assert_allclose(ours, expected, rtol=1e-5, atol=1e-9)


def test_bfloat16_inputs_cost_neither_value_nor_gradient():
    rng = np.random.default_rng(7)
    p = simplex(rng, 4, 16, 16, 4).astype(jnp.bfloat16)
    # Related to p, so that there is something to share.
    q = (0.7 * np.float32(p) + 0.3 * simplex(rng, 4, 16, 16, 4)).astype(jnp.bfloat16)
    value_and_grad = jax.jit(jax.value_and_grad(local_mutual_information, argnums=(0, 1)))
    value, gradients = value_and_grad(p, q)
    value32, gradients32 = value_and_grad(np.float32(p), np.float32(q))
    assert value.dtype == jnp.float32 and gradients[0].dtype == jnp.bfloat16
    assert abs(float(value) - float(value32)) <= 1e-4
    for g, g32 in zip(gradients, gradients32, strict=True):
        error = np.linalg.norm(np.ravel(np.asarray(g, np.float32) - np.asarray(g32)))
        assert error <= 1e-2 * np.linalg.norm(np.ravel(g32))


@both_forms
@pytest.mark.parametrize(
    "shapes",
    [
        ((2, 4, 4, 3), (2, 4, 4, 2)),
        ((2, 4, 4, 3), (1, 4, 4, 3)),
        ((2, 4, 4, 3), (2, 3, 4, 4, 3)),
        ((4, 4, 3), (4, 4, 3)),
        ((1, 2, 2, 4, 4, 3), (1, 2, 2, 4, 4, 3)),
    ],
)
def test_maps_of_other_shapes_are_refused(joint_of, shapes):
    with pytest.raises(ValueError, match=r"one shape, \(b, h, w, k\) or \(b, d, h, w, k\), not"):
        joint_of(*(np.zeros(s) for s in shapes), radius=1)


@both_forms
def test_a_mask_of_other_axes_is_refused(joint_of):
    volume = np.zeros((2, 3, 4, 4, 3))
    with pytest.raises(
        ValueError, match=r"a mask of these maps is \(2, 3, 4, 4\), not \(2, 4, 4\)"
    ):
        joint_of(volume, volume, radius=1, mask=np.ones((2, 4, 4)))


@both_forms
def test_a_negative_radius_is_refused(joint_of):
    with pytest.raises(ValueError, match="radius is at least 0, not -1"):
        joint_of(np.zeros((1, 4, 4, 2)), np.zeros((1, 4, 4, 2)), radius=-1)


# Mutual information --------------------------------------------------------------------


@pytest.mark.parametrize("k", [2, 5])
def test_independent_classes_share_nothing_and_equal_ones_all(k):
    rng = np.random.default_rng(k)
    a, b = rng.dirichlet(np.ones(k), size=2).astype(np.float32)
    assert_allclose(mutual_information(np.outer(a, b)), 0, atol=1e-6)
    assert_allclose(mutual_information(np.eye(k, dtype=np.float32) / k), np.log(k), rtol=1e-6)
    # Equal and not uniform: the entropy of the marginal.
    assert_allclose(mutual_information(np.diag(a)), -(a * np.log(a)).sum(), rtol=1e-5)


@pytest.mark.parametrize("error", [0.0, 0.01, 0.11, 0.3, 0.5])
def test_binary_symmetric_channel(error):
    # The capacity of the channel: log 2 − H(error).
    joint = np.array([[1 - error, error], [error, 1 - error]]) / 2
    noise = -sum(e * np.log(e) for e in (error, 1 - error) if e > 0)
    value = mutual_information(joint.astype(np.float32))
    assert_allclose(value, np.log(2) - noise, atol=1e-6)


# Few sizes, so that few programs are compiled.
joints = st.tuples(st.sampled_from([2, 5]), st.integers(0, 2**32 - 1), st.floats(0.05, 3)).map(
    lambda a: np.random.default_rng(a[1]).gamma(a[2], size=(a[0], a[0])).astype(np.float32) + 1e-30
)


@given(joints)
def test_properties_of_mutual_information(joint):
    k = len(joint)
    value = mutual_information(joint)
    assert_allclose(value, mutual_information64(joint), atol=3e-6)
    assert -1e-6 <= value <= np.log(k) + 1e-6
    same = functools.partial(assert_allclose, desired=value, atol=2e-6)
    same(mutual_information(joint.T))
    order = np.random.default_rng(k).permutation(k)
    same(mutual_information(joint[order]))
    same(mutual_information(joint[:, order]))
    same(mutual_information(7 * joint))


@given(joints, st.integers(0, 2**32 - 1))
def test_processing_one_side_never_adds_information(joint, seed):
    channel = np.random.default_rng(seed).dirichlet(np.ones(len(joint)), size=len(joint))
    processed = joint @ channel.astype(np.float32)
    assert mutual_information(processed) <= mutual_information(joint) + 1e-6


@given(joints, st.floats(0, 3))
def test_marginal_weight_multiplies_the_marginal_entropies(joint, weight):
    value = mutual_information(joint, marginal_weight=weight)
    assert_allclose(value, mutual_information64(joint, weight), rtol=1e-5, atol=1e-5)


def test_each_block_of_a_stack_has_its_own_value():
    joint = np.stack([np.eye(2), np.ones((2, 2)), np.zeros((2, 2))])[None]
    assert_allclose(mutual_information(joint), [[np.log(2), 0, 0]], atol=1e-7)


def test_a_joint_of_nan_is_no_empty_one():
    for loss in (losses.mutual_information, losses.regularised_information_loss):
        assert np.isnan(loss(np.full((3, 3), np.nan)))


@pytest.mark.parametrize(
    "joint",
    [
        np.zeros((3, 3)),
        np.diag([1.0, 0, 0]),
        np.diag([0.5, 0.5, 0]),
        np.outer([1, 0, 0], [0.2, 0.8, 0]),
        np.full((3, 3), 1e-44),
    ],
    ids=["nothing", "one cell", "dead class", "dead rows", "denormal"],
)
def test_gradients_are_finite_where_classes_are_dead(joint):
    value, gradient = information_and_gradient(joint.astype(np.float32))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_a_dead_class_in_half_precision(dtype):
    # The smallest number of float32 is 0 in float16.
    value, gradient = information_and_gradient(np.diag([0.5, 0.5, 0]).astype(dtype))
    assert value.dtype == jnp.float32 and gradient.dtype == dtype
    assert_allclose(value, np.log(2), rtol=1e-6)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


def test_gradient_of_mutual_information():
    joint = np.random.default_rng(8).dirichlet(np.ones(9)).reshape(3, 3)
    # dI/dP_kl = log P_kl / (P_k· P_·l) − I, the last from the normalisation.
    rows, columns = joint.sum(1, keepdims=True), joint.sum(0, keepdims=True)
    expected = np.log(joint / (rows * columns)) - mutual_information64(joint)
    _, gradient = information_and_gradient(joint.astype(np.float32))
    assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5)


# Regularised information loss ----------------------------------------------------------


def regularised_information_loss64(joint, balance, marginal_weight):
    """Cell by cell, straight from the formula."""
    joint = np.asarray(joint, np.float64) / np.sum(joint, dtype=np.float64)
    k, rows, columns = len(joint), joint.sum(1), joint.sum(0)
    loss = 0.0
    for i, j in np.ndindex(joint.shape):
        weight = balance * (i == j) / k + (1 - balance) * joint[i, j]
        loss -= weight * np.log(joint[i, j] + 1e-5)
        marginals = np.log(rows[i] + 1e-5) + np.log(columns[j] + 1e-5)
        loss += marginal_weight * joint[i, j] * marginals
    return loss


# Static arguments: few values, so that few programs are compiled.
balances = st.sampled_from([(0.0, 1.0), (0.5, 1.0), (0.5, 1.5), (1.0, 1.0)])


@given(joints, balances)
def test_regularised_loss_equals_the_sum_over_cells(joint, options):
    balance, weight = options
    value = regularised_information_loss(joint, balance=balance, marginal_weight=weight)
    expected = regularised_information_loss64(joint, balance, weight)
    assert_allclose(value, expected, rtol=1e-5, atol=1e-5)
    if weight == 1:
        assert value >= -np.log(len(joint)) - len(joint) ** 2 * 1e-5 - 1e-6


@given(joints)
def test_without_balance_it_is_the_negative_information(joint):
    value = regularised_information_loss(joint, balance=0.0, marginal_weight=1.0)
    assert abs(value + mutual_information(joint)) <= len(joint) ** 2 * 1e-5 + 1e-6


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_balanced_diagonal_is_the_minimum(balance):
    joints = np.stack([np.eye(4), np.diag([4.0, 2, 1, 1]), np.eye(4)[::-1]])
    diagonal, unbalanced, swapped = regularised_information_loss(joints, balance=balance)
    assert_allclose(diagonal, -np.log(4), atol=2e-4)
    assert unbalanced > diagonal + 0.1
    # Mutual information does not know which cluster goes with which; the diagonal does.
    assert (swapped > diagonal + 0.1) == (balance > 0)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_regularised_loss_revives_dead_clusters(balance):
    loss = functools.partial(regularised_information_loss, balance=balance)
    joints = np.float32([np.diag([0.5, 0.5, 0]), np.ones((3, 3)), np.zeros((3, 3))])
    of_each = jax.vmap(jax.value_and_grad(loss))
    (values, gradients), of_all = jax.jit(lambda x: (of_each(x), loss(x)))(joints)
    assert_allclose(values, of_all, rtol=1e-6)
    gradients = np.asarray(gradients)
    assert np.isfinite(gradients).all() and values[2] == 0 and not gradients[2].any()
    # A little more of the dead cluster lowers the loss, with a force set by α / (k ε).
    assert gradients[0, 2, 2] < -0.9 * balance / 3 / 1e-5


def test_gradient_of_the_regularised_loss():
    joint, direction = np.random.default_rng(13).dirichlet(np.ones(16), size=2).reshape(2, 4, 4)
    high, low = (
        regularised_information_loss64(joint + step * direction, 0.5, 1.0) for step in (1e-6, -1e-6)
    )
    gradient = jax.jit(jax.grad(regularised_information_loss))(joint.astype(np.float32))
    assert_allclose(np.sum(gradient * direction), (high - low) / 2e-6, rtol=1e-4)


@pytest.mark.parametrize("balance", [-0.1, 1.5, np.nan])
def test_a_balance_outside_its_range_is_refused(balance):
    with pytest.raises(ValueError, match="between 0 and 1"):
        losses.regularised_information_loss(np.eye(2), balance=balance)


# Local mutual information --------------------------------------------------------------


@pytest.mark.parametrize(
    ("symmetric", "space"), [(True, (5, 6)), (False, (5, 6)), (True, (3, 4, 2))]
)
def test_local_mutual_information_is_the_mean_over_the_window(symmetric, space):
    rng = np.random.default_rng(9)
    p, q = simplex(rng, 2, *space, 3), simplex(rng, 2, *space, 3)
    mask = rng.uniform(size=(2, *space)) > 0.2
    values = []
    for joint in joint64(p, q, 1, mask).reshape(-1, 3, 3):
        values.append(mutual_information64((joint + joint.T) / 2 if symmetric else joint, 1.3))
    options = {"radius": 1, "mask": mask, "symmetric": symmetric, "marginal_weight": 1.3}
    value = local_mutual_information(p, q, **options)
    assert_allclose(value, np.mean(values), rtol=1e-5, atol=1e-6)
    # Swapping the maps transposes each joint and turns its displacement round; the mean over
    # the window knows neither.
    assert_allclose(local_mutual_information(q, p, **options), value, atol=1e-6)


@pytest.mark.parametrize("radius", [0, 1])
def test_a_constant_prediction_shares_nothing(radius):
    p = np.broadcast_to(np.float32([0.1, 0.6, 0.3]), (2, 6, 6, 3))
    assert_allclose(local_mutual_information(p, p, radius=radius), 0, atol=1e-6)


def test_equal_one_hot_maps_share_the_entropy_of_their_classes():
    labels = np.random.default_rng(11).integers(3, size=(2, 6, 6))
    frequency = np.bincount(np.ravel(labels), minlength=3) / labels.size
    maps = np.eye(3, dtype=np.float32)[labels]
    value = local_mutual_information(maps, maps, radius=0)
    assert_allclose(value, -(frequency * np.log(frequency)).sum(), rtol=1e-6)


def test_gradients_are_finite_on_saturated_logits():
    labels = np.random.default_rng(12).integers(2, size=(1, 4, 4))
    signs = 2 * np.eye(3, dtype=np.float32)[labels] - 1  # class 2 is dead

    def information(a, b):
        return losses.local_mutual_information(jax.nn.softmax(a), jax.nn.softmax(b))

    gradients = jax.jit(jax.grad(information, argnums=(0, 1)))
    for size in np.float32([30, 1e4]):
        logits = size * signs
        assert all(np.isfinite(g).all() for g in gradients(logits, logits[:, ::-1]))
