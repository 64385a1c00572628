"""Methods that mix images and hold them to pseudo-labels, against the formulas of their releases.

Where a box lies is read off the images that the network is given.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import (
    KEY,
    LABELLED,
    UNLABELLED,
    K,
    call,
    cross_entropies,
    forward,
    make_network,
    masked_mean,
    memory_of,
    softmax,
    start_with,
    streams64,
    zoom,
    zoomed_inside,
)
from scipy import ndimage

from mijax import losses, methods
from mijax.errors import UserError
from mijax.methods import Output
from mijax.methods.alternate_teachers import ensemble
from mijax.methods.mixed_mi import near_foreground

STILL = {"brightness": 0.0, "contrast": 0.0, "blur": 0.0}
label_loss = functools.partial(losses.label_loss, kind="cross_entropy+squared_dice")


def run(method, network, memory, batch, *, step=0):
    """Value and logs of a method, and the images of each forward pass."""
    value, logs, seen = _jitted(method)(network, memory, batch, step)
    return float(value), logs, [np.asarray(images) for images in seen]


@functools.cache
def _jitted(method):
    def loss(network, memory, batch, step):
        seen = []

        def spy(network, *streams, **options):
            seen.append(jnp.concatenate(streams))
            return forward(network, *streams, **options)

        value, aux = method.loss(
            {"network": network}, memory, batch, forward=spy, label_loss=label_loss, step=step,
            key=KEY,
        )  # fmt: skip
        return value, aux.logs, seen

    return jax.jit(loss)


def box_of(view, image, other):
    """(b, h, w): where a view is the other image and not the image."""
    inside, outside = (np.isclose(view, x, atol=1e-5).all(-1) for x in (other, image))
    assert_array_equal(inside | outside, True)
    return inside & ~outside


def mixed(box, x, other):
    return np.where(box.reshape(box.shape + (1,) * (x.ndim - 3)), other, x)


def next_of(x):
    return x[[1, 2, 0]]


# Dice and its use, as in the releases --------------------------------------------------


def release_dice(probs, labels, weights, smooth=1e-5):
    """``DiceLoss`` of UniMatch, AD-MT and BCP, which multiply or select by the weights."""
    terms = []
    for k in range(K):
        p, y = probs[..., k].astype(np.float64), (labels == k).astype(np.float64)
        intersect, p_sum, y_sum = ((weights * x).sum() for x in (p * y, p * p, y * y))
        terms.append(1 - (2 * intersect + smooth) / (p_sum + y_sum + smooth))
    return sum(terms) / K


def release_labelled(logits, labels):
    everywhere = np.ones(labels.shape)
    dice = release_dice(softmax(logits), labels, everywhere)
    return (cross_entropies(logits, labels).mean() + dice) / 2


def test_the_label_loss_is_twice_that_of_the_releases(network, batch):
    (logits,) = streams64(network, batch.image)
    value = jax.jit(label_loss)(logits.astype(np.float32), batch.label)
    assert_allclose(value, 2 * release_labelled(logits, batch.label), rtol=1e-5)


# UniMatch ------------------------------------------------------------------------------


@pytest.mark.parametrize("pseudo_loss", ["dice", "cross_entropy"])
def test_unimatch(pseudo_loss, network, teacher, batch):
    method = methods.build(
        "unimatch", **STILL, feature_dropout=0.0, threshold=0.6, box_probability=1.0,
        box_area=(0.2, 0.4), pseudo_loss=pseudo_loss,
    )  # fmt: skip
    u = batch.unlabelled
    value, logs, seen = run(method, network, memory_of(teacher), batch)
    views = np.split(seen[2], 3)
    assert_array_equal(views[2], u)
    boxes = [box_of(view, u, next_of(u)) for view in views[:2]]
    assert 0.05 < boxes[0].mean() < 0.4 and (boxes[0] != boxes[1]).any()
    weak = softmax(streams64(teacher, u)[0])
    confidence, target = weak.max(-1), weak.argmax(-1)
    assert 0.1 < (confidence < 0.6).mean() < 0.9
    terms = []
    for logits, box in zip(
        streams64(network, *views), [*boxes, np.zeros_like(boxes[0])], strict=True
    ):
        label, sure = (mixed(box, x, next_of(x)) for x in (target, confidence))
        if pseudo_loss == "dice":
            terms.append(release_dice(softmax(logits), label, sure >= 0.6))
        else:
            terms.append((cross_entropies(logits, label) * (sure >= 0.6)).mean())
    labelled = release_labelled(streams64(network, batch.image)[0], batch.label)
    release = (labelled + terms[0] * 0.25 + terms[1] * 0.25 + terms[2] * 0.5) / 2
    assert_allclose(value, 4 * release, rtol=1e-5)
    assert_allclose(logs["kept"], (confidence >= 0.6).mean(), rtol=1e-6)


def test_strong_mi_is_local_mi_and_unimatch_in_one(network, teacher, batch):
    memory, weights = memory_of(teacher), {"mi_weight": 0.3, "consistency_weight": 0.2}
    strong = {**STILL, "threshold": 0.6, "box_probability": 1.0}

    def of(name, key=KEY, **options):
        method = methods.build(name, **options)
        own = {} if name == "local_mi" else memory
        how = {"forward": forward, "label_loss": label_loss, "step": 0, "key": key}
        return jax.jit(lambda p, m, b: method.loss(p, m, b, **how))(
            {"network": network}, own, batch
        )

    together, aux = of("strong_mi", **weights, **strong)
    ours, _ = of("local_mi", jax.random.split(KEY)[0], weight=1.0, **weights)
    theirs, other = of("unimatch", **strong)
    assert_allclose(together, ours + theirs - other.logs["supervised"], rtol=1e-5)
    assert abs(ours - other.logs["supervised"]) > 1e-3 and theirs - other.logs["supervised"] > 1e-3
    assert {*other.logs, "mutual_information", "label_entropy", "consistency"} == {*aux.logs}


def test_strong_mi_without_ours_is_unimatch(network, teacher, batch):
    without = {"mi_weight": 0.0, "consistency_weight": 0.0}
    strong, unimatch = (
        run(methods.build(name, **STILL, **own), network, memory_of(teacher), batch)[0]
        for name, own in [("strong_mi", without), ("unimatch", {})]
    )
    assert_allclose(strong, unimatch, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "streams"),
    [("unimatch", {}, 3), ("unimatch", {"complementary": True}, 2),
     ("mixed_mi", {"feature_weight": 1.0}, 4)],
)  # fmt: skip
def test_channels_are_dropped_in_the_view_they_should_be(name, options, streams, network, batch):
    method, complementary = methods.build(name, **options), options.get("complementary")
    memory = memory_of(network)["teacher"] if name == "mixed_mi" else memory_of(network)
    feature = np.ones((UNLABELLED, 4, 4, 500), np.float32)

    @jax.jit
    def dropped(network, batch):
        found = {}

        def spy(network, *streams, key, perturb=None):
            if perturb:
                for name in ("Conv3", "Conv4"):
                    found[name] = [perturb(i, name, feature) for i in range(len(streams))]
            return forward(network, *streams, key=key)

        method.loss(
            {"network": network}, memory, batch, forward=spy, label_loss=label_loss,
            step=0, key=KEY,
        )  # fmt: skip
        return found

    found = dropped(network, batch)
    kept = [np.asarray(x) for x in found["Conv3"]]
    assert len(kept) == streams
    for part in kept:
        assert_array_equal(part, part[:, :1, :1] * feature)
    if complementary:
        assert_array_equal(kept[0] + kept[1], 2)
    else:
        assert_array_equal(np.concatenate(kept[:-1]), 1)
    assert set(np.unique(kept[-1])) == {0, 2} and kept[-1].mean() == pytest.approx(1, abs=0.1)
    assert (kept[-1] != found["Conv4"][-1]).any()


# Copy-paste ----------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [False, True])
def test_copy_paste(largest, network, teacher, batch):
    method = methods.build("copy_paste", largest=largest, pretrain_steps=1)
    memory = memory_of(teacher)["teacher"]
    value, _, seen = run(method, network, memory, batch, step=1)
    x_a, x_b = np.split(batch.image, 2)
    y_a, y_b = np.split(batch.label, 2)
    u_a, u_b = np.split(batch.unlabelled[:LABELLED], 2)
    first, second = np.split(seen[1], 2)
    box = box_of(first, u_a, x_a)
    assert box.sum() == 5 * 5  # two thirds of 8
    assert (box_of(second, x_b, u_b) == box).all()
    pseudo = streams64(teacher, batch.unlabelled[:LABELLED])[0].argmax(-1)
    if largest:
        kept = np.zeros_like(pseudo)
        for n, k in np.ndindex(LABELLED, K - 1):
            regions, count = ndimage.label(pseudo[n] == k + 1, np.ones((3, 3)))
            sizes = np.bincount(regions.ravel())[1:]
            kept[n][regions == sizes.argmax() + 1 if count else regions > 0] = k + 1
        assert (kept != pseudo).any()
        pseudo = kept
    v_a, v_b = np.split(pseudo, 2)

    def mix_loss(logits, inside, outside, inside_weight, outside_weight):
        total = 0.0
        for labels, region, weight in (
            (inside, box, inside_weight),
            (outside, ~box, outside_weight),
        ):
            cross = (cross_entropies(logits, labels) * region).sum() / region.sum()
            total += weight * (release_dice(softmax(logits), labels, region) + cross)
        return total

    into, onto = streams64(network, first, second)
    release = (mix_loss(into, y_a, v_a, 1.0, 0.5) + mix_loss(onto, v_b, y_b, 0.5, 1.0)) / 2
    assert_allclose(value, 2 * release, rtol=1e-5)

    # Before: labelled images alone, the one pasted into the other.
    value, _, seen = run(method, network, memory, batch)
    first, second = np.split(seen[1], 2)
    assert_array_equal(first, mixed(box, x_b, x_a))
    assert_array_equal(second, first)
    into, onto = streams64(network, first, second)
    release = (mix_loss(into, y_a, y_b, 1.0, 1.0) + mix_loss(onto, y_a, y_b, 1.0, 1.0)) / 2
    assert_allclose(value, release, rtol=1e-5)


@pytest.mark.parametrize(("labelled", "unlabelled"), [(1, 3), (2, 1)])
def test_copy_paste_needs_pairs(labelled, unlabelled, network, teacher, batch):
    batch = batch._replace(
        image=batch.image[:labelled],
        label=batch.label[:labelled],
        unlabelled=batch.unlabelled[:unlabelled],
    )
    with pytest.raises(UserError, match=f"config.labelled_batch {labelled} and config.unlabelled"):
        run(methods.build("copy_paste"), network, memory_of(teacher)["teacher"], batch)


# Two teachers --------------------------------------------------------------------------


def two_teachers(first, second, *, turn):
    teachers = [memory_of(x)["teacher"] for x in (first, second)]
    key = jax.random.key_data(KEY)
    counts = {"turn": np.int32(turn), "left": np.int32(3), "updates": np.zeros(2, np.int32)}
    return {"teachers": teachers, "key": key, **counts}


def release_ensemble(q1, q2, student):
    h1, h2 = (-(q * np.log2(q + 1e-10)).sum(-1) for q in (q1, q2))
    weight = (np.exp(-h1) / (np.exp(-h1) + np.exp(-h2)))[..., None]
    mean = weight * q1 + (1 - weight) * q2
    confidence, target = mean.max(-1), mean.argmax(-1)
    differ = q1.argmax(-1) != q2.argmax(-1)
    better = (student.max(-1) > confidence) & (target != student.argmax(-1)) & differ
    target[better], confidence[better] = student.argmax(-1)[better], student.max(-1)[better]
    return target, confidence, differ


@pytest.fixture(scope="module")
def alternate_teachers():
    return methods.build("alternate_teachers", **STILL, threshold=0.5, ramp_steps=10)


@pytest.mark.parametrize("turn", [0, 1])
def test_alternate_teachers(turn, alternate_teachers, network, teacher, batch):
    other, u = make_network(9), batch.unlabelled
    memory = two_teachers(teacher, other, turn=turn)
    value, logs, seen = run(alternate_teachers, network, memory, batch, step=5)
    predictions = [softmax(streams64(n, u)[0]) for n in (teacher, other, network)]
    target, confidence, differ = release_ensemble(*predictions)
    assert 0.1 < differ.mean() < 0.9 and 0.1 < (confidence >= 0.5).mean() < 0.99
    assert_allclose(logs["differ"], differ.mean(), rtol=1e-6)
    image, view = np.split(seen[-1], [LABELLED])
    assert_array_equal(image, batch.image)
    box = box_of(view, u, next_of(u))
    assert box.any() == bool(turn)
    target, confidence = (mixed(box, x, next_of(x)) for x in (target, confidence))
    labelled, student = streams64(network, batch.image, view)
    distance = release_dice(softmax(student), target, confidence >= 0.5)
    assert_allclose(logs["kept"], (confidence >= 0.5).mean(), rtol=1e-6)
    assert_allclose(logs["pseudo_label"], distance, rtol=1e-5)
    release = release_labelled(labelled, batch.label) + 2 * np.exp(-5 * 0.5**2) * distance
    assert_allclose(value, 2 * release, rtol=1e-5)


def test_the_student_is_asked_where_the_teachers_differ():
    jitted = jax.jit(ensemble, static_argnames="conflicts")

    def ask(first, second, student, **options):
        maps = (np.array(q, np.float32).reshape(1, 1, 1, 2) for q in (first, second, student))
        target, confidence, differ = (x.item() for x in jitted(*maps, **options))
        return target, round(confidence, 3), differ

    assert ask([0.6, 0.4], [0.2, 0.8], [0.9, 0.1]) == (0, 0.9, True)
    assert ask([0.6, 0.4], [0.2, 0.8], [0.9, 0.1], conflicts=False)[::2] == (1, True)
    # They agree; it is not sure enough; it agrees with what is likelier, and their doubt stays.
    assert ask([0.2, 0.8], [0.2, 0.8], [0.9, 0.1]) == (1, 0.8, False)
    unsure = ask([0.6, 0.4], [0.2, 0.8], [0.55, 0.45])
    assert unsure == ask([0.6, 0.4], [0.2, 0.8], [0.1, 0.9]) and unsure[0] == 1


def test_teachers_take_turns_of_random_lengths(network, batch):
    method = methods.build("alternate_teachers", period=5, decay=0.5)
    memory = method.init(KEY, start_with(network))[1]
    update = jax.jit(method.update)
    statistics = memory["teachers"][0]["batch_stats"]
    turns, lengths = [], [0]
    for step in range(200):
        moved = jax.tree.map(lambda x, s=step: x + s + 1, network)
        new = update(memory, {"network": moved}, statistics, step)
        turn = int(memory["turn"])
        changed = [
            not np.array_equal(a["network"]["kernel"], b["network"]["kernel"])
            for a, b in zip(memory["teachers"], new["teachers"], strict=True)
        ]
        assert changed == [turn == 0, turn == 1]
        if turn not in turns:  # the first time it is the student
            kernel = new["teachers"][turn]["network"]["kernel"]
            assert_array_equal(kernel, moved["kernel"])
        if turns and turn != turns[-1]:
            lengths.append(0)
        lengths[-1] += 1
        turns.append(turn)
        memory = new
    assert set(lengths[:-1]) == {1, 2, 3, 4, 5}
    network, _ = method.predictor({"network": None}, None, memory)
    assert_array_equal(network["kernel"], memory["teachers"][0]["network"]["kernel"])


def test_turns_are_drawn_whichever_generator_the_key_is_of(network):
    method = methods.build("alternate_teachers", period=5)
    memory = method.init(jax.random.key(0, impl="rbg"), start_with(network))[1]  # usual on a TPU
    statistics = memory["teachers"][0]["batch_stats"]
    assert method.update(memory, {"network": network}, statistics, 0).keys() == memory.keys()


# Mutual information under mixing -------------------------------------------------------


@jax.jit
def information(p, q, mask):
    return losses.local_mutual_information(p, q, mask=mask, radius=1, marginal_weight=1.2)


@pytest.mark.parametrize(
    ("between", "focus", "third", "pseudo_loss"),
    [("teacher", 1, 0.0, "cross_entropy"), ("views", 1, 0.6, "dice"), ("teacher", 0, 0.6, "dice")],
)  # fmt: skip
def test_mixed_mi(between, focus, third, pseudo_loss, network, teacher, batch):
    factor = 0.8
    weights = {"pseudo_weight": 0.5, "mi_weight": 0.3, "consistency_weight": 0.2}
    method = methods.build(
        "mixed_mi", **STILL, **weights, prior_weight=0.7, between=between, focus=focus, weight=0.9,
        threshold=0.5, box_probability=1.0, marginal_weight=1.2, ramp_steps=10,
        rotation=0.0, shear=0.0, flip=0.0, scale=(factor, factor),
        feature_weight=third, feature_dropout=0.0, pseudo_loss=pseudo_loss,
    )  # fmt: skip
    value, logs, seen = run(method, network, memory_of(teacher)["teacher"], batch, step=5)
    count = 3 if third else 2
    image, *views = np.split(seen[-1], [LABELLED + n * UNLABELLED for n in range(count)])
    assert_array_equal(image, batch.image)
    u = zoom(batch.unlabelled, factor)
    boxes = [box_of(view, u, next_of(u)) for view in views[:2]]
    if third:
        assert_allclose(views[2], u, atol=1e-5)
        boxes.append(np.zeros_like(boxes[0]))
    weak = zoom(softmax(streams64(teacher, batch.unlabelled)[0]), factor)
    inside = zoomed_inside(factor).astype(float)
    insides = [mixed(box, inside, next_of(inside)) for box in boxes]
    labelled, *logits = streams64(network, batch.image, *views)
    p = [softmax(x) for x in logits]
    targets = [mixed(box, weak, next_of(weak)) for box in boxes]

    shares = np.array([0.5, 0.5, third][:count])

    def near(q):
        if not focus:
            return np.ones(q.shape[:3])
        size = (1, 2 * focus + 1, 2 * focus + 1)
        return ndimage.maximum_filter((q[..., 1:].sum(-1) > 0.5).astype(float), size)

    triples = list(zip(p, targets, insides, strict=True))
    if between == "views":
        mutual = information(*p[:2], inside * ~boxes[0] * ~boxes[1] * near(weak))
    else:
        mutual = shares @ [information(x, t, v * near(t)) for x, t, v in triples]

    def distance(p, t, v):
        label, sure = t.argmax(-1), t.max(-1) >= 0.5
        if pseudo_loss == "dice":
            return release_dice(p, label, v * sure)
        return masked_mean(sure * cross_entropies(np.log(p), label), v)  # of what is in the frame

    pseudo, kl = (
        shares @ [f(x, t, v) for x, t, v in triples]
        for f in (
            distance,
            lambda p, t, v: masked_mean((t * np.log(np.maximum(t, 1e-30) / p)).sum(-1), v),
        )
    )
    prior = np.bincount(batch.label.ravel(), minlength=K) / batch.label.size
    counts = np.concatenate(insides)[..., None]
    predicted = (counts * np.concatenate(p)).sum((0, 1, 2)) / counts.sum()
    prior_term = (prior * np.log(prior / predicted)).sum()
    assert_allclose(logs["mutual_information"], mutual, rtol=1e-4)
    assert_allclose(logs["prior"], prior_term, rtol=1e-4)
    sure = [(t.max(-1) >= 0.5) * v for t, v in zip(targets, insides, strict=True)]
    assert_allclose(logs["kept"], np.sum(sure) / np.sum(insides), rtol=1e-5)
    terms = 0.5 * pseudo + 0.2 * kl - 0.3 * mutual + 0.7 * prior_term
    supervised = 2 * release_labelled(labelled, batch.label)
    assert_allclose(value, supervised + 0.9 * np.exp(-5 * 0.5**2) * terms, rtol=1e-5)


def test_what_comes_from_outside_the_frame_is_no_prediction(batch):
    """A network that knows all of class 1, and background for what is around it."""

    def perfect(network, *streams, key):
        images = [x[..., :1] for x in streams]
        return [Output(20 * jnp.concatenate([0.5 - x, x - 0.5], -1), {}, {}) for x in images]

    ones = jax.tree.map(np.ones_like, batch)

    def prior(scale):
        method = methods.build(
            "mixed_mi", **STILL | {"scale": scale}, mi_weight=0.0, pseudo_weight=0.0,
            prior_weight=1.0, box_probability=0.0, rotation=0.0, shear=0.0, flip=0.0,
        )  # fmt: skip
        memory = {"network": {}}
        return call(method, {"network": {}}, memory, ones, forward=perfect)[1].logs["prior"]

    whole, half = jax.jit(lambda: (prior((1.0, 1.0)), prior((0.5, 0.5))))()
    assert_allclose(half, whole, atol=1e-6)


def test_terms_of_weight_0_are_left_out(network, teacher, batch):
    weights = dict.fromkeys(("pseudo_weight", "mi_weight"), 0.0)
    value, logs, _ = run(
        methods.build("mixed_mi", **STILL, **weights), network, memory_of(teacher)["teacher"], batch
    )
    assert logs.keys() == {"supervised", "kept"} and value == logs["supervised"]


def test_near_foreground():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet([30, 1, 1], size=(2, 15, 12)).astype(np.float32)
    probs[0, 3, 3] = [0.2, 0.8, 0]
    expected = ndimage.maximum_filter((probs[..., 0] < 0.5).astype(float), (1, 5, 5))
    assert 0 < expected.mean() < 0.5
    assert_array_equal(near_foreground(probs, 2), expected)
    outside = jnp.zeros((1, 5, 5, 3))  # of the frame, after a turn
    assert not near_foreground(outside, 2).any()


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("unimatch", {"threshold": 1.0}, "threshold is at least 0 and below 1, not 1.0"),
        ("unimatch", {"pseudo_loss": "focal"}, "pseudo_loss is dice or cross_entropy, not 'focal'"),
        ("unimatch", {"feature_dropout": 1.0}, "feature_dropout is at least 0 and below 1"),
        (
            "unimatch",
            {"complementary": True, "feature_dropout": 0.3},
            "feature_dropout is 0.5 where complementary, not 0.3",
        ),
        ("unimatch", {"box_area": (0.5, 0.1)}, "area is"),
        ("unimatch", {"blur": -1.0}, "blur is at least 0, not -1.0"),
        ("copy_paste", {"side": 0.0}, "side is above 0 and at most 1, not 0.0"),
        ("copy_paste", {"decay": 2.0}, "decay is between 0 and 1, not 2.0"),
        ("alternate_teachers", {"period": 0}, "period is at least 1, not 0"),
        ("alternate_teachers", {"decay": -0.1}, "decay is between 0 and 1, not -0.1"),
        ("mixed_mi", {"between": "all"}, "between is teacher or views, not 'all'"),
        ("mixed_mi", {"mi_weight": -1.0}, "mi_weight is at least 0, not -1.0"),
    ],
)
def test_what_cannot_be_built_is_told_to_the_user(name, hyperparameters, message):
    with pytest.raises(UserError, match=f"{name}: .*{message}"):
        methods.build(name, **hyperparameters)
