"""Normalisation by streams and by images against Linen's BatchNorm and InstanceNorm."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from numpy.testing import assert_allclose

from mijax.models.norm import InstanceNorm, StreamNorm

IMAGES = np.random.default_rng(0).normal(1, 2, (6, 5, 4, 3)).astype(np.float32)
VOLUMES = np.random.default_rng(0).normal(1, 2, (6, 2, 5, 4, 3)).astype(np.float32)
PARAMS = {
    "scale": np.array([0.5, 1.0, 2.0], np.float32),
    "bias": np.array([-1.0, 0.0, 3.0], np.float32),
}
STATS = {
    "mean": np.array([0.1, 0.2, 0.3], np.float32),
    "var": np.array([1.0, 2.0, 3.0], np.float32),
}


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "streams"))
def apply(module, images, stats=STATS, **options):
    variables = {"params": PARAMS, "batch_stats": stats}
    return module.apply(variables, images, mutable=["batch_stats"], **options)


def batch_norm(images, *, train):
    return apply(nn.BatchNorm(use_running_average=not train, momentum=0.9), images)


of_images_and_volumes = pytest.mark.parametrize("images", [IMAGES, VOLUMES], ids=["2-D", "3-D"])


@of_images_and_volumes
@pytest.mark.parametrize("train", [True, False])
def test_one_stream_is_batch_norm(images, train):
    result, stats = apply(StreamNorm(), images, train=train)
    expected, expected_stats = batch_norm(images, train=train)
    assert_allclose(result, expected, atol=2e-6)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), stats, expected_stats)


def test_streams_do_not_meet_and_the_first_one_runs():
    result, stats = apply(StreamNorm(), IMAGES, train=True, streams=(0, 0, 1, 1, 1, 2))
    parts = [batch_norm(x, train=True) for x in np.split(IMAGES, [2, 5])]
    assert_allclose(result, np.concatenate([y for y, _ in parts]), atol=2e-6)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-6), stats, parts[0][1])
    shared, _ = apply(StreamNorm(), IMAGES, train=True)
    assert np.abs(result - shared).max() > 0.1


def two_pass(images, cotangent):
    """Normalised images, variances, and the gradient with respect to the images, in float64."""
    space = tuple(range(images.ndim - 1))
    centred = images - images.mean(space)
    var = (centred**2).mean(space)
    deviation = np.sqrt(var + 1e-5)
    unit, g = centred / deviation, np.broadcast_to(cotangent * PARAMS["scale"], images.shape)
    gradient = (g - g.mean(space) - unit * (g * unit).mean(space)) / deviation
    return unit * PARAMS["scale"] + PARAMS["bias"], var, gradient


@functools.partial(jax.jit, static_argnums=0)
def behind_by_its_stats(relu, images, stats, cotangent):
    """The result, the variance that runs, and the gradient of the images."""

    def f(x):
        return apply(StreamNorm(relu=relu), x, stats, train=True, streams=(0, 0, 1, 1, 1, 1))

    result, backward, stats_after = jax.vjp(f, images, has_aux=True)
    return result, stats_after["batch_stats"]["var"], backward(cotangent)[0]


@pytest.mark.parametrize(("ratio", "behind"), [(0, 0), (0, 100), (100, 5), (1000, 5), (1000, 30)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("relu", [False, True])
def test_values_far_from_0_have_their_variance(ratio, behind, dtype, relu):
    """Means of so many standard deviations, and a running mean so many behind them."""
    rng = np.random.default_rng(1)
    images = (rng.normal(size=(6, 16, 12, 3)) + ratio).astype(jnp.dtype(dtype))
    cotangent = rng.normal(size=images.shape).astype(np.float32)
    stats = STATS | {"mean": np.full(3, ratio - behind, np.float32)}

    result, var, gradient = behind_by_its_stats(relu, images, stats, cotangent)
    parts = []
    for x, g in zip(*(np.split(np.float64(v), [2]) for v in (images, cotangent)), strict=True):
        values, variance, _ = two_pass(x, g)
        open_ = values > 0 if relu else np.ones_like(values)
        parts.append((values * open_, variance, two_pass(x, g * open_)[2]))
    values, variances, gradients = zip(*parts, strict=True)
    lost = 2e-7 * behind**2
    assert_allclose(var, 0.9 * STATS["var"] + 0.1 * variances[0], rtol=2e-6 + lost)
    # float32 tells values of 1000 standard deviations apart to 6e-5 of one.
    coarse = 1e-5 + 4e-7 * ratio + 3 * lost
    assert_allclose(result, np.concatenate(values), rtol=2e-6 + lost, atol=coarse)
    rounding = 4e-3 if dtype == "bfloat16" else lost  # of the gradient, which is one
    expected = np.concatenate(gradients)
    far = np.abs(np.concatenate(values)) > coarse if relu else True  # from where the ReLU opens
    difference = np.abs(np.float64(gradient) - expected) - rounding * np.abs(expected)
    assert np.where(far, difference, 0).max() < coarse


def test_a_relu_with_it_is_one_after_it():
    rng = np.random.default_rng(2)
    cotangent = rng.normal(size=IMAGES.shape).astype(np.float32)

    def results(relu):
        def f(params, images):
            variables = {"params": params, "batch_stats": STATS}
            module, options = StreamNorm(relu=relu), {"train": True, "streams": (0, 0, 1, 1, 1, 1)}
            y, stats = module.apply(variables, images, mutable=["batch_stats"], **options)
            return (y if relu else jax.nn.relu(y)), stats

        result, backward, stats = jax.vjp(f, PARAMS, IMAGES, has_aux=True)
        return result, stats, backward(cotangent)

    one, two = jax.jit(lambda: (results(True), results(False)))()
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=2e-5, atol=2e-6), one, two)
    predicted = apply(StreamNorm(relu=True), IMAGES, train=False)[0]
    assert_allclose(predicted, np.maximum(batch_norm(IMAGES, train=False)[0], 0), atol=2e-6)


def assert_gradients_are_alike(ours, theirs, images, *, atol=2e-6):
    """Values too, of two functions of parameters and images."""
    cotangent = np.random.default_rng(3).normal(size=images.shape).astype(np.float32)

    def results(function):
        value, backward = jax.vjp(function, PARAMS, images)
        return value, backward(cotangent)

    found, expected = jax.jit(lambda: (results(ours), results(theirs)))()
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=2e-5, atol=atol), found, expected)


@of_images_and_volumes
def test_gradients_are_those_of_batch_norm(images):
    def of(module, **options):
        def f(params, images):
            variables = {"params": params, "batch_stats": STATS}
            return module.apply(variables, images, mutable=["batch_stats"], **options)[0]

        return f

    batch_norm = of(nn.BatchNorm(use_running_average=False))
    assert_gradients_are_alike(of(StreamNorm(), train=True), batch_norm, images)


@pytest.mark.parametrize("module", [StreamNorm(), InstanceNorm()], ids=["batch", "instance"])
def test_on_two_devices_each_has_a_stream_of_its_own(module):
    """In ``shard_map`` as it comes; the gradient of the parameters is added up."""

    def of(*streams):
        def f(params, images):
            variables, options = {"params": params}, {"train": True, "streams": streams}
            stats = {"batch_stats": STATS} if isinstance(module, StreamNorm) else {}
            return module.apply(variables | stats, images, **options, mutable=["batch_stats"])[0]

        return f

    mesh = jax.make_mesh((2,), ("devices",), (AxisType.Auto,), devices=jax.devices()[:2])
    everywhere, divided = PartitionSpec(), PartitionSpec("devices")
    specs = {"in_specs": (everywhere, divided), "out_specs": divided}
    mapped = jax.shard_map(of(0, 0, 0), mesh=mesh, **specs)
    assert_gradients_are_alike(mapped, of(0, 0, 0, 1, 1, 1), IMAGES)


@of_images_and_volumes
@pytest.mark.parametrize("relu", [False, True])
def test_of_images_it_is_instance_norm(images, relu):
    """In training and after it, with no running statistics, and whatever the streams."""

    def ours(params, images):
        streams = (0, 0, 1, 1, 1, 1)
        return InstanceNorm(relu=relu).apply(
            {"params": params}, images, train=True, streams=streams
        )

    def theirs(params, images):
        y = nn.InstanceNorm(epsilon=1e-5).apply({"params": params}, images)
        return jax.nn.relu(y) if relu else y

    assert_gradients_are_alike(ours, theirs, images, atol=1e-5)
    variables = jax.eval_shape(InstanceNorm().init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, variables) == {"params": {"scale": (3,), "bias": (3,)}}
    alone = apply(InstanceNorm(relu=relu), images[:1], train=False)[0]
    together = apply(InstanceNorm(relu=relu), images, train=True)[0]
    assert_allclose(alone, together[:1], atol=1e-6)


def test_an_image_far_from_0_has_its_own_variance():
    """Means of 0 and of 1000 standard deviations, and no running mean to be near."""
    far = np.array([0, 1000], np.float32)[:, None, None, None, None]
    images = VOLUMES[:2] + far
    result, _ = apply(InstanceNorm(), images)
    for found, image in zip(result, np.float64(images), strict=True):
        assert_allclose(found, two_pass(image[None], 0)[0][0], atol=5e-4)


def test_streams_mean_nothing_in_evaluation():
    result, _ = apply(StreamNorm(), IMAGES, train=False, streams=(0, 0, 1, 1, 1, 1))
    assert_allclose(result, batch_norm(IMAGES, train=False)[0], atol=2e-6)


@pytest.mark.parametrize("space", [(5, 8), (2, 3, 8)], ids=["2-D", "3-D"])
def test_pixels_may_lie_side_by_side(space):
    """On the last axis, four at a time, whether rows are vectors or not: values and gradients."""
    rng = np.random.default_rng(4)
    images = rng.normal(1, 2, (6, *space, 3)).astype(np.float32)
    cotangent = rng.normal(size=images.shape).astype(np.float32)

    def results(pixels, rows):
        shape = (6, *space[:-1], 8 // pixels, 3 * pixels)

        def f(params, x):
            module = StreamNorm(relu=True, pixels=pixels, rows=rows)
            variables = {"params": params, "batch_stats": STATS}
            options = {"train": True, "streams": (0, 0, 1, 1, 1, 1), "mutable": ["batch_stats"]}
            y, stats = module.apply(variables, x.reshape(shape), **options)
            return y.reshape(images.shape), stats

        result, backward, stats = jax.vjp(f, PARAMS, images, has_aux=True)
        return result, stats, backward(cotangent)

    plain = jax.jit(lambda: results(1, True))()
    for rows in (True, False):
        jax.tree.map(
            lambda a, b: assert_allclose(a, b, rtol=2e-5, atol=2e-5),
            jax.jit(lambda rows=rows: results(4, rows))(),
            plain,
        )
