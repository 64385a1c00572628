"""The methods that the papers compare with, against their formulas in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import (
    KEY,
    LABELLED,
    PLAIN,
    STILL,
    UNLABELLED,
    K,
    call,
    cross_entropies,
    cross_entropy,
    forward,
    forward64,
    loss_of,
    make_network,
    masked_mean,
    memory_of,
    softmax,
    spied,
    squared_error,
    start_with,
    streams64,
    zoom,
    zoomed_inside,
)

from mijax import methods
from mijax.errors import UserError
from mijax.methods import Output


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("uamt", {"passes": 0}, "uamt: passes is at least 1, not 0"),
        ("uamt", {"noise": -0.1}, "uamt: noise is at least 0, not -0.1"),
        ("uamt", {"decay": -1.0}, "uamt: decay is between 0 and 1"),
        ("uamt", {"flip": 2.0}, "uamt: flip is a probability, not 2.0"),
        ("ict", {"alpha": 0.0}, "ict: alpha is above 0, not 0.0"),
        ("ict", {"decay": 1.5}, "ict: decay is between 0 and 1, not 1.5"),
        ("fixmatch", {"threshold": 1.0}, "fixmatch: threshold is at least 0 and below 1, not 1.0"),
        ("fixmatch", {"gamma": -1.0}, "fixmatch: gamma is at least 0, not -1.0"),
        ("fixmatch", {"shear": 60.0}, "fixmatch: shear"),
    ],
)
def test_what_cannot_be_built_is_told_to_the_user(name, hyperparameters, message):
    with pytest.raises(UserError, match=message):
        methods.build(name, **hyperparameters)


def passes_of(method, network, batch, memory):
    """Value, ``Aux``, and the kernel and the images that each forward pass is given."""

    @jax.jit
    def passes(network, batch, memory):
        seen = []
        value, aux = call(method, {"network": network}, memory, batch, forward=spied(seen))
        return value, aux, seen

    value, aux, seen = passes(network, batch, memory)
    return value, aux, [tuple(map(np.asarray, x)) for x in seen]


# Uncertainty-aware Mean Teacher --------------------------------------------------------


@pytest.fixture(scope="module")
def uamt():
    ranges = {**STILL, "scale": (0.8, 0.8)}
    return methods.build("uamt", **ranges, weight=0.7, passes=2, noise=0.0, ramp_steps=10)


@pytest.mark.parametrize("step", [0, 5, 10])
def test_uamt(step, uamt, network, teacher, batch):
    factor = 0.8
    # Without noise passes differ by the places of their images.
    passes = [softmax(x) for x in streams64(teacher, *[batch.unlabelled] * 3)]
    mean = zoom((passes[1] + passes[2]) / 2, factor)
    inside = zoomed_inside(factor)
    entropy = -(mean * np.log(np.where(inside[..., None], mean, 1))).sum(-1)
    ramp = math.exp(-5 * (1 - step / 10) ** 2)
    mask = inside & (entropy < (3 / 4 + ramp / 4) * np.log(K))
    if step == 0:
        assert 0.05 < mask.sum() / inside.sum() < 0.9
    student = softmax(forward64(network, zoom(batch.unlabelled, factor)))
    distance = masked_mean(squared_error(student, zoom(passes[0], factor)), mask)
    value, aux = loss_of(uamt, network, batch, memory_of(teacher), step)
    assert_allclose(aux.logs["certain"], mask.sum() / inside.sum(), rtol=1e-6)
    assert_allclose(aux.logs["teacher_consistency"], distance, rtol=1e-4)
    supervised = cross_entropy(forward64(network, batch.image), batch.label)
    assert_allclose(value, supervised + 0.7 * ramp * distance, rtol=1e-5)


def test_uncertain_pixels_alone_are_nothing_to_learn_from(uamt, network, teacher, batch):
    uniform = jax.tree.map(np.zeros_like, teacher)
    value, aux = loss_of(uamt, network, batch, memory_of(uniform))
    assert aux.logs["certain"] == 0 and value == aux.logs["supervised"]


def test_noise_is_the_teachers_and_another_in_each_pass(network, teacher, batch):
    method = methods.build("uamt", **STILL, passes=3, noise=0.1)
    _, _, seen = passes_of(method, network, batch, memory_of(teacher))
    (noisy,) = (x for kernel, x in seen if (kernel != network["kernel"]).any())
    clean = [x for kernel, x in seen if (kernel == network["kernel"]).all()]
    assert_allclose(clean[1], batch.unlabelled, atol=1e-5)
    noise = noisy.reshape(4, *batch.unlabelled.shape) - batch.unlabelled
    assert np.abs(noise).max() == pytest.approx(0.2, abs=1e-5)
    # A normal distribution clipped at two standard deviations.
    assert noise.std() == pytest.approx(0.0959, abs=0.004) and abs(noise.mean()) < 0.01
    correlations = np.corrcoef(noise.reshape(4, -1)) - np.eye(4)
    assert np.abs(correlations).max() < 0.2


# Interpolation Consistency Training ----------------------------------------------------


def test_ict(network, teacher, batch):
    method = methods.build("ict", weight=0.7, alpha=1.0)
    x, following = batch.unlabelled, batch.unlabelled[[1, 2, 0]]
    value, aux, seen = passes_of(method, network, batch, memory_of(teacher))
    assert_array_equal(seen[2][1], x)  # the teacher's
    # Where between its two images each mixture lies.
    mixed, across = seen[1][1], x - following
    share = ((mixed - following) * across).sum((1, 2, 3)) / (across**2).sum((1, 2, 3))
    assert ((share >= 0) & (share <= 1)).all() and len(set(share)) == UNLABELLED
    share = share[:, None, None, None].astype(np.float64)
    assert_allclose(mixed, share * x + (1 - share) * following, atol=1e-5)
    p = softmax(forward64(teacher, x))
    target = share * p + (1 - share) * p[[1, 2, 0]]
    distance = squared_error(softmax(forward64(network, mixed)), target).mean()
    assert_allclose(aux.logs["teacher_consistency"], distance, rtol=1e-4)
    supervised = cross_entropy(forward64(network, batch.image), batch.label)
    assert_allclose(value, supervised + 0.7 * distance, rtol=1e-5)


def test_shares_have_a_beta_distribution(batch):
    alpha = 0.2
    method = methods.build("ict", alpha=alpha)
    images = np.tile(np.array([0.0, 1.0], np.float32), 1500)[:, None, None, None]

    @jax.jit
    def passes(batch):
        seen = []

        def spy(network, images, *, key):
            seen.append(images)
            return [Output(jnp.zeros((*images.shape[:3], K)), {}, {})]

        call(method, {"network": {}}, memory_of({}), batch, forward=spy)
        return seen

    seen = passes(batch._replace(unlabelled=images))
    share = np.ravel(seen[1])[1::2]  # of ones, of which each is mixed with the zero behind it
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.08)


# Cross Pseudo Supervision --------------------------------------------------------------


def test_cross_pseudo(network, batch):
    weight, step = 0.5, 5
    method = methods.build("cross_pseudo", weight=weight, ramp_steps=10)
    params = {"network": network, "other": make_network(8)}

    def tagged(network, *streams, **options):
        outputs = forward(network, *streams, **options)
        return [output._replace(batch_stats=network["kernel"]) for output in outputs]

    def loss(params):
        return call(method, params, {}, batch, forward=tagged, step=step)

    (value, aux), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    f, g = (streams64(n, batch.image, batch.unlabelled) for n in params.values())
    weight *= math.exp(-5 * (1 - step / 10) ** 2)
    cross = sum(cross_entropy(a, b.argmax(-1)) for a, b in zip(f + g, g + f, strict=True))
    supervised = [cross_entropy(logits[0], batch.label) for logits in (f, g)]
    assert_allclose(value, sum(supervised) + weight * cross, rtol=1e-5)
    assert_allclose(aux.logs["supervised"], supervised[0], rtol=1e-5)
    assert_allclose(aux.logs["other_supervised"], supervised[1], rtol=1e-5)
    assert_allclose(aux.logs["cross_pseudo"], cross, rtol=1e-5)
    assert_array_equal(aux.batch_stats, network["kernel"])

    # The gradient of a mean cross-entropy is (p − y) / n, with the labels held fixed.
    for name, own, others in (("network", f, g), ("other", g, f)):
        p = [softmax(x) for x in own]
        y = [np.eye(K)[x.argmax(-1)] for x in others]
        labelled = (p[0] - np.eye(K)[batch.label] + weight * (p[0] - y[0])) / LABELLED
        expected = np.concatenate([labelled, weight * (p[1] - y[1]) / UNLABELLED]).mean((1, 2))
        found = gradient[name]["place"][: LABELLED + UNLABELLED]
        assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_other_network_is_drawn_anew_and_the_first_is_evaluated(network):
    method = methods.build("cross_pseudo")
    start = start_with(network)
    heads, memory = method.init(KEY, start)
    assert memory == {} and heads.keys() == {"other"}
    jax.tree.map(assert_array_equal, heads["other"], start.another(KEY))
    statistics = {"mean": np.ones(2)}
    assert method.predictor({"network": network, **heads}, statistics, {}) == (network, statistics)


# FixMatch ------------------------------------------------------------------------------


@pytest.mark.parametrize(("threshold", "factor"), [(0.0, 0.5), (0.7, 0.8)])
def test_fixmatch(threshold, factor, network, batch):
    ranges = {**STILL, "scale": (factor, factor)}
    method = methods.build("fixmatch", **ranges, **PLAIN, weight=0.7, threshold=threshold)
    probs = zoom(softmax(forward64(network, batch.unlabelled)), factor)
    inside = zoomed_inside(factor)  # of the halved image, less than a quarter
    mask = inside & (probs.max(-1) >= threshold)
    logits, strong = streams64(network, batch.image, zoom(batch.unlabelled, factor))
    pseudo = (mask * cross_entropies(strong, probs.argmax(-1))).sum() / inside.sum()
    value, aux = loss_of(method, network, batch)
    assert (mask.sum() < 0.9 * inside.sum()) == (threshold > 0)
    assert_allclose(aux.logs["kept"], mask.sum() / inside.sum(), rtol=1e-6)
    assert_allclose(aux.logs["pseudo_cross_entropy"], pseudo, rtol=1e-4)
    assert_allclose(value, cross_entropy(logits, batch.label) + 0.7 * pseudo, rtol=1e-5)
    assert_allclose(aux.batch_stats["mean"], batch.image.mean((0, 1, 2)), rtol=1e-5)


def test_the_pseudo_label_is_of_the_image_as_it_was_drawn(network, batch):
    method = methods.build("fixmatch", **{**STILL, **PLAIN, "brightness": 0.3})
    seen = [images for _, images in passes_of(method, network, batch, {})[2]]
    assert_array_equal(seen[0], batch.unlabelled)
    assert_array_equal(seen[1][:LABELLED], batch.image)
    added = seen[1][LABELLED:] - batch.unlabelled
    assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1], added.shape), atol=1e-5)
    assert len(set(added[:, 0, 0, 0])) == UNLABELLED and 0.01 < np.abs(added).max() <= 0.3
