"""Training methods against their formulas, recomposed in float64 from the logits."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose
from oracles import (
    KEY,
    LABELLED,
    NAMES,
    PLAIN,
    SIZE,
    STILL,
    UNLABELLED,
    call,
    cross_entropy,
    forward64,
    forward_with_features,
    loss_of,
    masked_mean,
    memory_of,
    softmax,
    squared_error,
    start_with,
    start_with_features,
    streams64,
    zoom,
    zoomed_inside,
)

from mijax import methods
from mijax.errors import UserError
from mijax.methods import Rounds
from mijax.methods.parts import ramp

# Formulas in float64 -------------------------------------------------------------------


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


# The registry --------------------------------------------------------------------------


def test_methods_are_found_by_name():
    assert {"entropy", "local_mi", "mean_teacher", "supervised"} <= set(methods.names())
    assert methods.names() == sorted(methods.names())
    assert not {"method", "mixing", "parts"} & set(methods.names())


@pytest.mark.parametrize("name", methods.names())
def test_defaults_are_those_of_the_signature_and_build(name):
    defaults = methods.defaults(name)
    method = methods.build(name, **defaults)
    assert isinstance(method, methods.Method)
    assert inspect.Parameter.empty not in defaults.values()
    assert method.unlabelled == (name != "supervised")


def weights_of(name):
    """All that ``config.hypergradient`` may let learn."""
    keys = [key for key in methods.defaults(name) if key.endswith("weight")]
    return [] if methods.build(name).examination else [k for k in keys if k != "marginal_weight"]


@pytest.mark.parametrize("name", [name for name in methods.names() if weights_of(name)])
def test_weights_may_learn(name, featured, batch):
    options = {
        "global_local_mi": {"features": NAMES[:1], "importance": (1.0,), "radius": (0,)},
        "local_mi": {"radius": 0},
        "mixed_mi": {"radius": 0},
        "uamt": {"passes": 1},
    }
    labels = np.zeros(batch.unlabelled.shape[:3], int)
    batch = batch._replace(position=labels[:, 0, 0], pseudo_label=labels)

    def loss(weights):
        method = methods.build(name, **options.get(name, {}), **weights)
        heads, memory = method.init(KEY, start_with_features(featured))
        params = {"network": featured, **heads}
        return call(method, params, memory, batch, forward=forward_with_features)[0]

    weights = dict.fromkeys(weights_of(name), jnp.float32(1.0))
    gradients = jax.eval_shape(jax.grad(loss), weights)
    assert all(gradients[key].shape == () for key in weights)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("local_mutual", {}, "no method 'local_mutual'.*entropy.*local_mi, mean_teacher"),
        ("method", {}, "no method 'method'"),
        ("./lab/pi_model.py", {}, "'./lab/pi_model.py': a module is named PACKAGE.MODULE, such as"),
        (".pi_model", {}, "no method '.pi_model': a module is named PACKAGE.MODULE"),
        ("local_mi", {"consistency": "l1"}, "local_mi: consistency is 'kl' or 'mse', not 'l1'"),
        ("local_mi", {"temperature": 0.0}, "local_mi: temperature is above 0, not 0.0"),
        ("local_mi", {"rotation": 200.0}, "local_mi: rotation"),
        ("mean_teacher", {"scale": (2.0, 1.0)}, "mean_teacher: scale"),
        ("mean_teacher", {"decay": 1.5}, "mean_teacher: decay is between 0 and 1, not 1.5"),
        ("mean_teacher", {"weight": -1.0}, "mean_teacher: weight is at least 0, not -1.0"),
        ("mean_teacher", {"noise": -1.0}, "mean_teacher: noise is at least 0, not -1.0"),
        ("entropy", {"weight": -1.0}, "entropy: weight is at least 0, not -1.0"),
        ("local_mi", {"weight": -1.0}, "local_mi: weight is at least 0, not -1.0"),
        ("local_mi", {"mi_weight": float("nan")}, "local_mi: mi_weight is at least 0, not nan"),
        ("local_mi", {"radius": -1}, "local_mi: radius is at least 0, not -1"),
        ("local_mi", {"contrast": -0.1}, "local_mi: contrast is at least 0, not -0.1"),
        ("global_local_mi", {"radius": (0, -1, 3)}, "radius is at least 0, not -1"),
        ("global_local_mi", {"clusters": 1}, "clusters is at least 2, not 1"),
        ("global_local_mi", {"temperature": 0.0}, "temperature is above 0, not 0.0"),
        ("global_local_mi", {"features": ("Up_conv2",) * 3}, "features are there once each"),
        ("boundary_iic", {"temperature": -1.0}, "boundary_iic: temperature is above 0, not -1.0"),
        ("boundary_iic", {"clusters": 1}, "boundary_iic: clusters is at least 2, not 1"),
        (
            "boundary_iic",
            {"spacing": (1.0, 0.0)},
            r"spacing\[1\] is above 0, not 0.0",
        ),
        ("local_contrast", {"temperature": 0.0}, "temperature is above 0, not 0.0"),
        ("local_contrast", {"anchors": 0}, "local_contrast: anchors is at least 1, not 0"),
        ("position_contrast", {"width": 0}, "position_contrast: width is above 0, not 0"),
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
    assert not method.unlabelled


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


def local_mi64(
    network, batch, consistency, *, factor=1.0, masked=True, shared=False, temperature=1.0
):
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
    target = softmax(plain / temperature)
    if consistency == "kl":
        distance = (target * (np.log(target) - np.log(np.maximum(q, 1.17549435e-38)))).sum(-1)
    else:
        distance = squared_error(target, q)
    return (
        cross_entropy(logits, batch.label),
        local_mutual_information(p, q, mask if masked else np.ones_like(mask)),
        masked_mean(distance, mask),
    )


@pytest.mark.parametrize(
    ("consistency", "factor", "masked", "shared", "temperature"),
    [
        ("kl", 1.25, True, False, 0.5),
        ("mse", 0.8, False, True, 2.0),
    ],
)
def test_local_mi(consistency, factor, masked, shared, temperature, network, batch):
    method = methods.build(
        "local_mi",
        **{**STILL, "scale": (factor, factor)},
        weight=0.5,
        mi_weight=2.0,
        consistency_weight=3.0,
        consistency=consistency,
        masked=masked,
        temperature=temperature,
        shared_statistics=shared,
    )
    supervised, information, distance = local_mi64(
        network,
        batch,
        consistency,
        factor=factor,
        masked=masked,
        shared=shared,
        temperature=temperature,
    )
    value, aux = loss_of(method, network, batch)
    assert_allclose(aux.logs["supervised"], supervised, rtol=1e-5)
    assert_allclose(aux.logs["mutual_information"], information, rtol=1e-4)
    assert_allclose(aux.logs["consistency"], distance, rtol=1e-4)
    shares = np.bincount(np.asarray(batch.label).ravel()) / batch.label.size
    assert_allclose(aux.logs["label_entropy"], -(shares * np.log(shares)).sum(), rtol=1e-5)
    # Information is maximised: eq. 9 with the sign of its text.
    assert_allclose(value, supervised + 0.5 * (3 * distance - 2 * information), rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "off"),
    [
        ("fixmatch", {"threshold": 1 - 1e-9, **STILL, **PLAIN}),  # keeps nothing
        ("ict", {"weight": 0.0}),
        ("mean_teacher", {"weight": 0.0}),
        ("uamt", {"weight": 0.0}),
    ],
    ids=str,
)
def test_weights_of_0_leave_the_supervised_loss(name, off, network, batch):
    method = methods.build(name, **off)
    _, memory = method.init(KEY, start_with(network))
    value, aux = loss_of(method, network, batch, memory)
    assert value == aux.logs["supervised"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("entropy", {}),
        ("fixmatch", {"threshold": 0.5, **PLAIN}),
        ("ict", {}),
        ("mean_teacher", {}),
        ("local_mi", {"radius": 0}),
    ],
)
def test_the_ramp_scales_all_but_the_supervised_loss(name, options, network, batch):
    method = methods.build(name, weight=1.0, **options, ramp_steps=10)
    _, memory = method.init(KEY, start_with(network))

    @jax.jit
    def regulariser(step):
        value, aux = call(method, {"network": network}, memory, batch, step=step)
        return value - aux.logs["supervised"]

    whole = regulariser(20)
    assert abs(whole) > 1e-3
    assert_allclose(regulariser(10), whole, rtol=1e-6)
    assert_allclose(regulariser(5), np.exp(-1.25) * whole, rtol=1e-3)


@pytest.mark.parametrize("stop_gradient", [False, True])
def test_stop_gradient_holds_the_plain_side_fixed(stop_gradient, network, batch):
    method = methods.build(
        "local_mi", **STILL, mi_weight=0.0, radius=0, stop_gradient=stop_gradient
    )
    direction = np.random.default_rng(3).normal(size=network["place"].shape).astype(np.float32)

    def loss(place):
        return call(method, {"network": network | {"place": place}}, {}, batch)[0]

    @jax.jit
    def slope(rows):
        return jax.jvp(loss, [network["place"]], [rows[:, None] * direction])[1]

    ends = LABELLED, LABELLED + UNLABELLED, LABELLED + 2 * UNLABELLED
    labelled, plain, transformed, _ = np.split(np.eye(len(direction), dtype=np.float32), ends)
    assert all(slope(row) != 0 for row in [*labelled, *transformed])
    assert all((slope(row) == 0) == stop_gradient for row in plain)


# Mean Teacher --------------------------------------------------------------------------


def teacher64(network, teacher, batch, factor):
    """Squared distance of student and teacher for T a magnification by ``factor``."""
    student = softmax(forward64(network, zoom(batch.unlabelled, factor)))
    target = zoom(softmax(forward64(teacher, batch.unlabelled)), factor)
    return masked_mean(squared_error(student, target), zoomed_inside(factor))


def test_mean_teacher(network, teacher, batch):
    method = methods.build("mean_teacher", **{**STILL, "scale": (0.7, 0.7)}, weight=0.7)
    distance = teacher64(network, teacher, batch, 0.7)
    supervised = cross_entropy(forward64(network, batch.image), batch.label)
    value, aux = loss_of(method, network, batch, memory_of(teacher))
    assert_allclose(aux.logs["teacher_consistency"], distance, rtol=1e-4)
    assert_allclose(value, supervised + 0.7 * distance, rtol=1e-5)
    assert_allclose(aux.batch_stats["mean"], batch.image.mean((0, 1, 2)), rtol=1e-5)


def test_a_teacher_adds_to_the_loss_of_its_method(network, teacher, batch):
    own = methods.build("entropy", weight=0.5)
    method = methods.with_teacher(own, **{**STILL, "scale": (1.25, 1.25)}, weight=0.7)
    alone, aux_alone = loss_of(own, network, batch)
    value, aux = loss_of(method, network, batch, memory_of(teacher))
    distance = teacher64(network, teacher, batch, 1.25)
    assert_allclose(value, alone + 0.7 * distance, rtol=1e-5)
    assert aux.logs.keys() == aux_alone.logs.keys() | {"teacher_consistency"}
    assert all(aux.logs[name] == value for name, value in aux_alone.logs.items())


def test_a_teacher_on_a_method_that_has_one_is_logged_beside_it(network, teacher, batch):
    own = methods.build("mean_teacher", **{**STILL, "scale": (0.7, 0.7)}, weight=1.0)
    method = methods.with_teacher(own, **{**STILL, "scale": (1.25, 1.25)}, weight=1.0)
    memory = memory_of(teacher)
    value, aux = loss_of(method, network, batch, {"student": memory, "teacher": memory["teacher"]})
    terms = ("supervised", "teacher_consistency", "outer_teacher_consistency")
    assert_allclose(value, sum(aux.logs[term] for term in terms), rtol=1e-5)


def test_a_teacher_of_weight_0_only_averages(network, teacher, batch):
    own = methods.build("entropy")
    method = methods.with_teacher(own, weight=0.0, decay=0.5)
    (value, aux), (alone, aux_alone) = (
        loss_of(m, network, batch, memory_of(teacher)) for m in (method, own)
    )
    assert value == alone and aux.logs.keys() == aux_alone.logs.keys()
    memory = method.update(memory_of(teacher), {"network": network}, {"mean": np.ones(2)}, 10)
    assert_allclose(
        memory["teacher"]["network"]["place"], (network["place"] + teacher["place"]) / 2, rtol=1e-6
    )
    assert not methods.with_teacher(methods.build("supervised"), weight=0.0).unlabelled


def test_a_teacher_hands_on_the_memory_of_its_method():
    own = methods.build("supervised")._replace(
        init=lambda key, start: ({"head": 1}, {"seen": 0}),
        update=lambda memory, params, batch_stats, step: {"seen": memory["seen"] + step},
        rounds=Rounds(
            2,
            refresh=lambda memory, predict, unlabelled: {"seen": predict(unlabelled)},
            pseudo_labels=lambda memory: memory["seen"],
        ),
    )
    method = methods.with_teacher(own)
    heads, memory = method.init(KEY, start_with({"w": jnp.array(7.0)}, {}))
    assert heads == {"head": 1} and memory["student"] == {"seen": 0}
    memory = method.update(memory, {"network": {"w": jnp.array(5.0)}, "head": 2}, {}, 3)
    assert method.rounds.count == 2 and method.rounds.pseudo_labels(memory) == 3
    after = method.rounds.refresh(memory, lambda x: x + 1, 40)
    assert after == {"student": {"seen": 41}, "teacher": memory["teacher"]}
    assert methods.with_teacher(methods.build("supervised")).rounds is None


def test_a_method_that_does_not_segment_has_no_teacher():
    method = methods.build("boundary_iic")
    assert method.examination
    with pytest.raises(ValueError, match="learns without labels has no use for a teacher"):
        methods.with_teacher(method)


def test_the_teacher_has_no_gradient(network, teacher, batch):
    method = methods.build("mean_teacher", **STILL)  # as of all that with_consistency makes

    def loss(*networks):
        student, teacher = networks
        return call(method, {"network": student}, memory_of(teacher), batch)[0]

    @jax.jit
    def slope(*directions):
        return jax.jvp(loss, (network, teacher), directions)[1]

    rng = np.random.default_rng(3)
    some = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), network)
    some["place"][:LABELLED] = 0
    none = jax.tree.map(np.zeros_like, network)
    assert slope(none | {"place": some["place"]}, none) != 0
    assert slope(none, some) == 0


def test_the_teacher_is_the_moving_average_of_student_and_statistics():
    method = methods.build("mean_teacher", decay=0.9)
    rng = np.random.default_rng(6)
    students = rng.normal(size=(30, 2)).astype(np.float32)
    heads, memory = method.init(KEY, start_with({"w": jnp.array(7.0)}, {"mean": jnp.array(-7.0)}))
    assert heads == {}
    teacher = {"network": {"w": 7.0}, "batch_stats": {"mean": -7.0}}
    assert memory == {"student": {}, "teacher": teacher}
    update = jax.jit(method.update)
    expected = np.zeros(2)
    for step, (w, mean) in enumerate(students):
        memory = update(memory, {"network": {"w": w}}, {"mean": mean}, jnp.int32(step))
        teacher = memory["teacher"]
        if step == 0:  # what the teacher began with is gone
            assert teacher == {"network": {"w": w}, "batch_stats": {"mean": mean}}
        # 1 − 1/(t + 1): the plain mean of all students so far, until the decay takes over.
        if step < 10:
            expected = students[: step + 1].mean(0, dtype=np.float64)
        else:
            expected = 0.9 * expected + 0.1 * students[step]
        found = teacher["network"]["w"], teacher["batch_stats"]["mean"]
        assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_the_teacher_is_what_is_evaluated_with_its_statistics():
    student, statistics = {"w": jnp.array(1.0)}, {"mean": jnp.array(2.0)}
    for name in ("ict", "mean_teacher", "uamt"):
        method = methods.build(name)
        start = start_with({"w": jnp.array(3.0)}, {"mean": jnp.array(4.0)})
        _, memory = method.init(KEY, start)
        evaluated = method.predictor({"network": student}, statistics, memory)
        assert evaluated == ({"w": 3.0}, {"mean": 4.0})
    for name in ("supervised", "entropy", "fixmatch", "local_mi"):
        method = methods.build(name)
        assert method.init(KEY, start_with(student, statistics)) == ({}, {})
        evaluated = method.predictor({"network": student}, statistics, {})
        assert evaluated == (student, statistics)
        assert method.update({}, {"network": student}, statistics, 0) == {}


def test_the_teacher_shares_no_buffer_with_the_student():
    # Or the student's could not be donated to the training step.
    student = {"w": jnp.ones(1000)}
    _, memory = methods.build("mean_teacher").init(KEY, start_with(student, {}))
    pointer = memory["teacher"]["network"]["w"].unsafe_buffer_pointer()
    assert pointer != student["w"].unsafe_buffer_pointer()


def test_the_same_key_gives_the_same_loss_and_another_key_another_view(network, batch):
    method = methods.build("local_mi", radius=0)
    loss = jax.jit(
        lambda key: call(method, {"network": network}, {}, batch, key=key)[1].logs["consistency"]
    )
    assert loss(KEY) == loss(KEY) != loss(jax.random.key(1))
