"""Training methods against their formulas, recomposed in float64 from the logits.

The network is a small linear one whose logits depend, like those of a BatchNorm, on the
whole batch they are computed in, and on the place an image has in it.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

from mijax import methods
from mijax.errors import UserError
from mijax.methods import Batch, Output
from mijax.methods.parts import ramp

LABELLED, UNLABELLED, SIZE, CHANNELS, K = 2, 3, 8, 2, 3
KEY = jax.random.key(0)
STILL = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "flip": False}


def forward(network, images, *, key, streams=None):
    ends = np.cumsum(streams or images.shape[:1])
    apart = jnp.split(images, ends[:-1])
    centred = jnp.concatenate([x - jnp.mean(x, (0, 1, 2), keepdims=True) for x in apart])
    logits = jnp.einsum("bhwc,ck->bhwk", centred, network["kernel"])
    logits = logits + network["place"][: images.shape[0], None, None]
    return Output(logits, {}, {"mean": jnp.mean(apart[0], (0, 1, 2))})


def forward64(network, images):
    centred = images - images.mean((0, 1, 2))
    return centred @ network["kernel"] + network["place"][: len(images), None, None]


@pytest.fixture
def network():
    rng = np.random.default_rng(0)
    return {
        "kernel": rng.normal(size=(CHANNELS, K)).astype(np.float32),
        "place": rng.normal(size=(LABELLED + 2 * UNLABELLED, K)).astype(np.float32),
    }


@pytest.fixture
def batch():
    rng = np.random.default_rng(1)
    image, unlabelled = (
        rng.normal(size=(n, SIZE, SIZE, CHANNELS)).astype(np.float32) + n
        for n in (LABELLED, UNLABELLED)
    )
    return Batch(image, rng.integers(K, size=image.shape[:3]), unlabelled)


def loss_of(method, network, batch, memory=None, step=0):
    f = jax.jit(
        lambda network, memory, batch, step: method.loss(
            {"network": network}, memory, batch, forward=forward, step=step, key=KEY
        )
    )
    return f(network, {} if memory is None else memory, batch, step)


# Formulas in float64 -------------------------------------------------------------------


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def cross_entropy(logits, labels):
    return -np.mean(np.log(np.take_along_axis(softmax(logits), labels[..., None], -1)))


def local_mutual_information(p, q, mask, radius=1):
    p, q = p * mask[..., None], q * mask[..., None]
    values = []
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            own = np.s_[:, max(0, -dy) : SIZE - max(0, dy), max(0, -dx) : SIZE - max(0, dx)]
            other = np.s_[:, max(0, dy) : SIZE + min(0, dy), max(0, dx) : SIZE + min(0, dx)]
            joint = np.einsum("bhwk,bhwl->kl", p[own], q[other])
            joint = (joint + joint.T) / (2 * joint.sum())
            independent = np.outer(joint.sum(1), joint.sum(0))
            values.append((joint * np.log(joint / independent)).sum())
    return np.mean(values)


def masked_mean(values, mask):
    return (values * mask).sum() / mask.sum()


def zoom(maps, factor):
    """Magnification of (b, h, w, c) maps about their centre, zero from outside."""
    centre = (SIZE - 1) / 2
    grid = (np.mgrid[:SIZE, :SIZE] - centre) / factor + centre
    warped = [
        [
            ndimage.map_coordinates(c, grid, order=1, mode="grid-constant")
            for c in np.moveaxis(m, -1, 0)
        ]
        for m in maps.astype(np.float64)
    ]
    return np.moveaxis(np.array(warped), 1, -1)


# The registry --------------------------------------------------------------------------


def test_methods_are_found_by_name():
    assert {"entropy", "local_mi", "mean_teacher", "supervised"} <= set(methods.names())
    assert methods.names() == sorted(methods.names())
    assert not {"method", "parts"} & set(methods.names())


@pytest.mark.parametrize("name", methods.names())
def test_defaults_are_those_of_the_signature_and_build(name):
    defaults = methods.defaults(name)
    method = methods.build(name, **defaults)
    assert isinstance(method, methods.Method)
    assert inspect.Parameter.empty not in defaults.values()
    assert (method.copies > 0) == (name != "supervised")


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("local_mutual", {}, "no method 'local_mutual'.*entropy, local_mi, mean_teacher"),
        ("method", {}, "no method 'method'"),
        ("local_mi", {"consistency": "l1"}, "local_mi: consistency is 'kl' or 'mse', not 'l1'"),
        ("local_mi", {"rotation": 200.0}, "local_mi: rotation"),
        ("mean_teacher", {"scale": (2.0, 1.0)}, "mean_teacher: scale"),
        ("mean_teacher", {"decay": 1.5}, "mean_teacher: decay is between 0 and 1, not 1.5"),
    ],
)
def test_what_cannot_be_built_is_told_to_the_user(name, hyperparameters, message):
    with pytest.raises(UserError, match=message):
        methods.build(name, **hyperparameters)


def test_ramp():
    values = [float(ramp(step, 100)) for step in (0, 50, 100, 1000)]
    assert_allclose(values, np.exp([-5, -1.25, 0, 0]), rtol=1e-6)
    assert ramp(0, 0) == ramp(7, 0) == 1


# Losses --------------------------------------------------------------------------------


def test_supervised(network, batch):
    method = methods.build("supervised")
    value, aux = loss_of(method, network, batch._replace(unlabelled=None))
    assert_allclose(value, cross_entropy(forward64(network, batch.image), batch.label), rtol=1e-5)
    assert_allclose(aux.batch_stats["mean"], batch.image.mean((0, 1, 2)), rtol=1e-5)
    assert method.copies == 0


def streams64(network, *streams, shared_statistics=False):
    ends = np.cumsum([len(x) for x in streams])[:-1]
    together = np.concatenate(streams)
    if not shared_statistics:  # what is taken off again is the mean of them all, 0
        together = np.concatenate([x - x.mean((0, 1, 2)) for x in streams])
    return np.split(forward64(network, together), ends)


@pytest.mark.parametrize("shared", [False, True])
def test_entropy(shared, network, batch):
    method = methods.build("entropy", weight=0.3, shared_statistics=shared)
    logits, unlabelled = streams64(network, batch.image, batch.unlabelled, shared_statistics=shared)
    p = softmax(unlabelled)
    expected = cross_entropy(logits, batch.label) - 0.3 * (p * np.log(p)).sum(-1).mean()
    value, aux = loss_of(method, network, batch)
    assert_allclose(value, expected, rtol=1e-5)
    seen = np.concatenate([batch.image, batch.unlabelled]) if shared else batch.image
    assert_allclose(aux.batch_stats["mean"], seen.mean((0, 1, 2)), rtol=1e-5)


def local_mi64(network, batch, consistency, *, factor=1.0, masked=True, shared=False):
    """Cross-entropy, information and distance for T a magnification by ``factor``."""
    logits, plain, transformed = streams64(
        network,
        batch.image,
        batch.unlabelled,
        zoom(batch.unlabelled, factor),
        shared_statistics=shared,
    )
    p, q = softmax(plain), zoom(softmax(transformed), 1 / factor)
    mask = zoom(zoom(np.ones((UNLABELLED, SIZE, SIZE, 1)), factor), 1 / factor)[..., 0] > 0.999
    if not masked:
        mask = np.ones_like(mask)
    if consistency == "kl":
        distance = (p * (np.log(p) - np.log(np.maximum(q, 1.17549435e-38)))).sum(-1)
    else:
        distance = ((p - q) ** 2).sum(-1)
    return (
        cross_entropy(logits, batch.label),
        local_mutual_information(p, q, mask),
        masked_mean(distance, mask),
    )


@pytest.mark.parametrize(
    ("consistency", "factor", "masked", "shared"),
    [
        ("kl", 1.0, True, False),
        ("kl", 1.25, True, False),
        ("mse", 1.25, False, False),
        ("mse", 0.8, True, True),
    ],
)
def test_local_mi(consistency, factor, masked, shared, network, batch):
    method = methods.build(
        "local_mi",
        **{**STILL, "scale": (factor, factor)},
        weight=0.5,
        mi_weight=2.0,
        consistency_weight=3.0,
        consistency=consistency,
        masked=masked,
        shared_statistics=shared,
    )
    supervised, information, distance = local_mi64(
        network, batch, consistency, factor=factor, masked=masked, shared=shared
    )
    value, aux = loss_of(method, network, batch)
    assert_allclose(aux.logs["cross_entropy"], supervised, rtol=1e-5)
    assert_allclose(aux.logs["mutual_information"], information, rtol=1e-4)
    assert_allclose(aux.logs["consistency"], distance, rtol=1e-4)
    # Information is maximised: eq. 9 with the sign of its text.
    assert_allclose(value, supervised + 0.5 * (3 * distance - 2 * information), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("entropy", {"weight": 0.0}),
        ("mean_teacher", {"weight": 0.0}),
        ("local_mi", {"weight": 0.0}),
        ("local_mi", {"mi_weight": 0.0, "consistency_weight": 0.0}),
    ],
    ids=str,
)
def test_weights_of_0_leave_the_supervised_loss(name, off, network, batch):
    method = methods.build(name, **off)
    _, memory = method.init(KEY, network, {"mean": jnp.zeros(CHANNELS)})
    value, aux = loss_of(method, network, batch, memory)
    assert value == aux.logs["cross_entropy"]


@pytest.mark.parametrize("name", ["entropy", "mean_teacher", "local_mi"])
def test_the_ramp_scales_all_but_the_supervised_loss(name, network, batch):
    def regulariser(**ramp_steps):
        method = methods.build(name, weight=1.0, **ramp_steps)
        _, memory = method.init(KEY, network, {"mean": jnp.zeros(CHANNELS)})

        def at(step):
            params = {"network": network}
            value, aux = method.loss(params, memory, batch, forward=forward, step=step, key=KEY)
            return value - aux.logs["cross_entropy"]

        return jax.jit(at)

    whole = regulariser()(0)
    assert abs(whole) > 1e-3
    ramped = regulariser(ramp_steps=10)
    assert_allclose(ramped(5), np.exp(-1.25) * whole, rtol=1e-3)
    assert_allclose(ramped(20), whole, rtol=1e-6)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_stop_gradient_holds_the_plain_side_fixed(stop_gradient, network, batch):
    method = methods.build("local_mi", **STILL, mi_weight=0.0, stop_gradient=stop_gradient)
    gradient = jax.jit(
        jax.grad(
            lambda network: method.loss(
                {"network": network}, {}, batch, forward=forward, step=0, key=KEY
            )[0]
        )
    )(network)
    labelled, plain, transformed = np.split(
        np.abs(gradient["place"]).max(-1), [LABELLED, LABELLED + UNLABELLED]
    )
    assert labelled.min() > 0 and transformed.min() > 0
    assert (plain == 0).all() if stop_gradient else (plain > 0).all()


# Mean Teacher --------------------------------------------------------------------------


@pytest.fixture
def teacher():
    rng = np.random.default_rng(5)
    return {
        "kernel": rng.normal(size=(CHANNELS, K)).astype(np.float32),
        "place": rng.normal(size=(LABELLED + 2 * UNLABELLED, K)).astype(np.float32),
    }


@pytest.mark.parametrize(("factor", "shared"), [(1.0, False), (1.25, True), (0.7, False)])
def test_mean_teacher(factor, shared, network, teacher, batch):
    ranges = {**STILL, "scale": (factor, factor)}
    method = methods.build("mean_teacher", **ranges, weight=0.7, shared_statistics=shared)
    logits, student = streams64(
        network, batch.image, zoom(batch.unlabelled, factor), shared_statistics=shared
    )
    target = zoom(softmax(forward64(teacher, batch.unlabelled)), factor)
    mask = zoom(np.ones((UNLABELLED, SIZE, SIZE, 1)), factor)[..., 0] > 0.999
    distance = masked_mean(((softmax(student) - target) ** 2).sum(-1), mask)
    memory = {"network": teacher, "batch_stats": {"mean": np.zeros(CHANNELS, np.float32)}}
    value, aux = loss_of(method, network, batch, memory)
    assert_allclose(aux.logs["consistency"], distance, rtol=1e-4)
    assert_allclose(value, cross_entropy(logits, batch.label) + 0.7 * distance, rtol=1e-5)


def test_the_teacher_has_no_gradient(network, teacher, batch):
    method = methods.build("mean_teacher")
    memory = {"network": teacher, "batch_stats": {"mean": np.zeros(CHANNELS, np.float32)}}

    def loss(network, memory):
        params = {"network": network}
        return method.loss(params, memory, batch, forward=forward, step=0, key=KEY)[0]

    to_student, to_teacher = jax.jit(jax.grad(loss, argnums=(0, 1)))(network, memory)
    assert not any(jnp.any(g) for g in jax.tree.leaves(to_teacher))
    assert jnp.any(to_student["place"][LABELLED:] != 0)


def test_the_teacher_is_the_moving_average_of_student_and_statistics():
    method = methods.build("mean_teacher", decay=0.9)
    rng = np.random.default_rng(6)
    students = rng.normal(size=(30, 2)).astype(np.float32)
    heads, memory = method.init(KEY, {"w": jnp.array(7.0)}, {"mean": jnp.array(-7.0)})
    assert heads == {}
    assert memory == {"network": {"w": 7.0}, "batch_stats": {"mean": -7.0}}
    update = jax.jit(method.update)
    expected = np.zeros(2)
    for step, (w, mean) in enumerate(students):
        memory = update(memory, {"network": {"w": w}}, {"mean": mean}, jnp.int32(step))
        if step == 0:  # what the teacher began with is gone
            assert memory == {"network": {"w": w}, "batch_stats": {"mean": mean}}
        # 1 − 1/(t + 1): the plain mean of all students so far, until the decay takes over.
        if step < 10:
            expected = students[: step + 1].mean(0, dtype=np.float64)
        else:
            expected = 0.9 * expected + 0.1 * students[step]
        teacher = memory["network"]["w"], memory["batch_stats"]["mean"]
        assert_allclose(teacher, expected, rtol=1e-5, atol=1e-6)


def test_the_teacher_is_what_is_evaluated_with_its_statistics():
    method = methods.build("mean_teacher")
    student, statistics = {"w": jnp.array(1.0)}, {"mean": jnp.array(2.0)}
    _, memory = method.init(KEY, {"w": jnp.array(3.0)}, {"mean": jnp.array(4.0)})
    assert method.predictor({"network": student}, statistics, memory) == ({"w": 3.0}, {"mean": 4.0})
    for name in ("supervised", "entropy", "local_mi"):
        method = methods.build(name)
        assert method.init(KEY, student, statistics) == ({}, {})
        evaluated = method.predictor({"network": student}, statistics, {})
        assert evaluated == (student, statistics)
        assert method.update({}, {"network": student}, statistics, 0) == {}


def test_the_teacher_shares_no_buffer_with_the_student():
    # Or the student's could not be donated to the training step.
    student = {"w": jnp.ones(1000)}
    _, memory = methods.build("mean_teacher").init(KEY, student, {})
    pointer = memory["network"]["w"].unsafe_buffer_pointer()
    assert pointer != student["w"].unsafe_buffer_pointer()


def test_the_same_key_gives_the_same_loss_and_another_key_another_view(network, batch):
    method = methods.build("local_mi")
    loss = jax.jit(
        lambda key: method.loss({"network": network}, {}, batch, forward=forward, step=0, key=key)[
            1
        ].logs["consistency"]
    )
    assert loss(KEY) == loss(KEY) != loss(jax.random.key(1))
