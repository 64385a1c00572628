"""The systems that followed: losses with features and heads, recomposed in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import (
    KEY,
    LABELLED,
    NAMES,
    SIZE,
    STILL,
    UNLABELLED,
    K,
    begin,
    call,
    cross_entropy,
    forward_with_features,
    loss_with_heads,
    masked_mean,
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
from mijax.methods import Batch, Output

CLUSTERS, SUBHEADS = 4, 2


def assign(head, feature):
    """(s, b, h, w, k) of a linear head."""
    x = feature @ np.float64(head["linear"]["kernel"]) + np.float64(head["linear"]["bias"])
    return np.moveaxis(softmax(x.reshape(*x.shape[:-1], SUBHEADS, CLUSTERS)), -2, 0)


def shifted(p, q, mask, dy, dx):
    """Symmetric joint distribution of p and of q at a displacement."""
    own = np.s_[:, max(0, -dy) : SIZE - max(0, dy), max(0, -dx) : SIZE - max(0, dx)]
    other = np.s_[:, max(0, dy) : SIZE + min(0, dy), max(0, dx) : SIZE + min(0, dx)]
    weights = mask[own] * mask[other]
    joint = np.einsum("bhw,bhwk,bhwl->kl", weights, p[own], q[other])
    return (joint + joint.T) / (2 * joint.sum())


def information(joint):
    return (joint * np.log(joint / np.outer(joint.sum(1), joint.sum(0)))).sum()


# Global and local mutual information ---------------------------------------------------


@pytest.mark.parametrize(("consistency", "factor", "radius"), [("mse", 1.25, 0), ("kl", 0.8, 1)])
def test_global_local_mi(consistency, factor, radius, featured, batch):
    method = methods.build(
        "global_local_mi",
        **{**STILL, "scale": (factor, factor)},
        features=NAMES,
        importance=(1.0, 0.5),
        radius=(0, radius),
        clusters=CLUSTERS,
        subheads=SUBHEADS,
        consistency=consistency,
        mi_weight=0.3,
        consistency_weight=7.0,
    )
    heads, memory = begin(method, start_with_features(featured))
    assert memory == {} and heads.keys() == {"head_bottleneck", "head_Up_conv2"}
    # Images of different means, or there is nothing to know about a whole image.
    offsets = np.float32([-4, -3, -2]).reshape(UNLABELLED, 1, 1, 1)
    batch = batch._replace(unlabelled=batch.unlabelled + offsets)
    moved, inside = zoom(batch.unlabelled, factor), zoomed_inside(factor)
    labelled, plain, transformed = streams64(featured, batch.image, batch.unlabelled, moved)

    found = {}
    for name, reach in zip(NAMES, (0, radius), strict=True):
        a, b = zoom(batch.unlabelled @ np.float64(featured[name]), factor), moved @ featured[name]
        if name == "bottleneck":
            a, b = (x[:, inside[0]].mean(1)[:, None, None] for x in (a, b))
        p, q = (assign(heads[f"head_{name}"], x) for x in (a, b))
        values = []
        for s in range(SUBHEADS):
            if name == "bottleneck":
                joint = np.einsum("bk,bl->kl", p[s, :, 0, 0], q[s, :, 0, 0]) / UNLABELLED
                values.append(information((joint + joint.T) / 2))
            else:
                window = itertools.product(range(-reach, reach + 1), repeat=2)
                joints = [shifted(p[s], q[s], inside, *d) for d in window]
                values.append(np.mean([information(joint) for joint in joints]))
        found[name] = np.mean(values)
    target, probs = zoom(softmax(plain), factor), softmax(transformed)
    if consistency == "mse":
        distance = masked_mean(squared_error(target, probs), inside) / K
    else:
        with np.errstate(divide="ignore", invalid="ignore"):
            kl = (target * np.log(target / probs)).sum(-1)
        distance = masked_mean(np.where(inside, kl, 0), inside)

    value, logs, _ = loss_with_heads(method, featured, batch, heads)
    assert_allclose(logs["information_bottleneck"], found["bottleneck"], rtol=1e-3)
    assert found["bottleneck"] > 1e-3
    assert_allclose(logs["information_Up_conv2"], found["Up_conv2"], rtol=1e-3)
    assert_allclose(logs["consistency"], distance, rtol=1e-4)
    mutual = (found["bottleneck"] + 0.5 * found["Up_conv2"]) / 1.5
    expected = cross_entropy(labelled, batch.label) + 7 * distance - 0.3 * mutual
    assert_allclose(value, expected, rtol=1e-4)


def test_features_of_other_proportions_turn_as_the_image_does():
    """Smooth images are as good as their pairs of rows to tell a place by."""
    rows, columns = np.mgrid[:24, :24] / 9
    images = np.stack([[np.sin(rows + i), np.cos(columns - rows + i)] for i in range(3)])
    images = np.moveaxis(5 * images, 1, -1).astype(np.float32)
    method = methods.build(
        "global_local_mi", **{**STILL, "rotation": 45.0}, features=("Up_conv2",),
        importance=(1.0,), radius=(0,), clusters=4, consistency_weight=0.0,
    )  # fmt: skip
    head, _ = begin(method, start_with({})._replace(features={"Up_conv2": (1, 12, 24, 2)}))

    def information(factor):
        def forward(network, *streams, key):
            pooled = [x.reshape(-1, 24 // factor, factor, 24, 2).mean(2) for x in streams]
            return [Output(x, {"Up_conv2": y}, {}) for x, y in zip(streams, pooled, strict=True)]

        given = Batch(images, np.zeros((3, 24, 24), int), images)
        aux = call(method, {"network": {}, **head}, {}, given, forward=forward)[1]
        return aux.logs["information_Up_conv2"]

    whole, pairs = jax.jit(lambda: (information(1), information(2)))()
    assert whole > 0.1
    assert_allclose(pairs, whole, rtol=0.05)


def test_the_consistency_pulls_however_far_the_prediction_is(featured, batch):
    method = methods.build(
        "global_local_mi",
        **STILL,
        features=NAMES[:1],
        importance=(1.0,),
        radius=(0,),
        mi_weight=0.0,
        consistency="kl",
    )
    heads, _ = begin(method, start_with_features(featured))
    # Certain of class 0 in the images, and of class 1 in their transformed copies.
    place = np.zeros_like(featured["place"])
    ends = LABELLED, LABELLED + UNLABELLED, LABELLED + 2 * UNLABELLED
    place[ends[0] : ends[1], 0] = place[ends[1] : ends[2], 1] = 500.0
    _, _, gradients = loss_with_heads(method, featured | {"place": place}, batch, heads)
    gradient = gradients["network"]["place"][ends[1] : ends[2]]
    # 10 · (q − p), which is (−1, 1, 0), as a mean over images.
    assert_allclose(gradient, np.tile([-10 / 3, 10 / 3, 0], (UNLABELLED, 1)), rtol=1e-4, atol=1e-6)

    # And it is the copies that follow, not the prediction that they are held to.
    _, _, gradients = loss_with_heads(method, featured, batch, heads)
    gradient = gradients["network"]["place"]
    assert_array_equal(gradient[ends[0] : ends[1]], 0)
    assert np.abs(gradient[ends[1] :]).max() > 1e-3


def test_a_feature_the_network_lacks_is_told_to_the_user(featured):
    with pytest.raises(UserError, match="features: the network has no Conv9, but bottleneck"):
        methods.build("global_local_mi", features=("Conv9",), importance=(1.0,), radius=(0,)).init(
            KEY, start_with_features(featured)
        )
    with pytest.raises(UserError, match="feature: the network has no Conv9, but bottleneck"):
        methods.build("boundary_iic", feature="Conv9").init(KEY, start_with_features(featured))


def test_boundaries_are_those_of_a_feature_as_large_as_the_image(featured):
    method, start = methods.build("boundary_iic"), start_with_features(featured)
    with pytest.raises(UserError, match="feature: Up_conv2 has .* pixels of the 99×98 of an image"):
        method.init(KEY, start._replace(unlabelled_shape=(1, 99, 98)))


def test_a_size_of_voxels_for_each_axis(featured):
    method = methods.build("boundary_iic", spacing=(10.0, 1.0, 1.0))
    with pytest.raises(UserError, match=r"config.method.spacing: 2 numbers, or none, and not \(10"):
        method.init(KEY, start_with_features(featured))


# Pre-training --------------------------------------------------------------------------


def correlation(edges, uncertainty, inside):
    """Mean of the squared correlation over 5 × 5 windows with an edge."""
    values = []
    for g, e, valid in zip(edges * inside, uncertainty * inside, inside, strict=True):
        for i, j in zip(*np.nonzero(valid), strict=True):
            a, b = (np.pad(x, 2)[i : i + 5, j : j + 5] for x in (g, e))
            a, b = a - a.mean(), b - b.mean()
            if (a * a).sum() >= 1e-5:
                cross = (a * b).sum() ** 2
                values.append(cross / (a * a).sum() / max((b * b).sum(), 1e-5))
    return np.mean(values)


def stretched(x, valid):
    low, high = (
        f(np.where(valid, x, worst), axis=(1, 2), keepdims=True)
        for f, worst in ((np.min, np.inf), (np.max, -np.inf))
    )
    return np.where(valid, (x - low) / (high - low), 0)


def test_boundary_iic(featured, batch):
    factor, balance = 0.8, 0.3
    method = methods.build(
        "boundary_iic",
        **{**STILL, "scale": (factor, factor)},
        translation=0.0,
        brightness=0.0,
        contrast=0.0,
        gamma=0.0,
        clusters=CLUSTERS,
        subheads=SUBHEADS,
        balance=balance,
        boundary_weight=0.7,
    )
    heads, memory = begin(method, start_with_features(featured))
    assert memory == {} and heads.keys() == {"head"}
    moved, inside = zoom(batch.unlabelled, factor), zoomed_inside(factor)
    plain = zoom(batch.unlabelled @ np.float64(featured["Up_conv2"]), factor)
    p, q = (assign(heads["head"], x) for x in (plain, moved @ featured["Up_conv2"]))

    back = [np.diff(moved, axis=axis, prepend=moved.take([0], axis)) for axis in (1, 2)]
    strength = np.sqrt(sum((d**2).sum(-1) for d in back))
    whole = inside.copy()
    whole[:, 1:] &= inside[:, :-1]
    whole[:, :, 1:] &= inside[:, :, :-1]
    edges = stretched(strength, whole) ** 0.5
    losses, correlations, mutual = [], [], []
    for s in range(SUBHEADS):
        joint = shifted(p[s], q[s], inside.astype(float), 0, 0)
        log = np.log(joint + 1e-5)
        marginals = np.log(joint.sum(1, keepdims=True) + 1e-5) + np.log(joint.sum(0) + 1e-5)
        weights = balance * np.eye(CLUSTERS) / CLUSTERS + (1 - balance) * joint
        losses.append((joint * marginals - weights * log).sum())
        mutual.append(information(joint))
        for probs in (p[s], q[s]):
            entropy = stretched(-(probs * np.log(probs)).sum(-1), inside)
            correlations.append(correlation(edges, entropy, inside))
    blind = batch._replace(image=None, label=None)
    value, logs, gradients = loss_with_heads(method, featured, blind, heads)
    assert_allclose(logs["mutual_information"], np.mean(mutual), rtol=1e-3)
    assert_allclose(logs["information_loss"], np.mean(losses), rtol=1e-4)
    assert_allclose(logs["boundary_correlation"], np.mean(correlations), rtol=1e-3)
    assert_allclose(value, np.mean(losses) - 0.7 * np.mean(correlations), rtol=1e-3)
    assert not np.any(gradients["network"]["kernel"])  # the classifier learns nothing

    def features(network, images):
        return {name: images @ network[name] for name in NAMES}

    @jax.jit
    def examined(params, images):
        measures = method.examination.measures(params, images, features=features, key=KEY)
        return measures, method.examination.clusters(params, images, features=features)

    measures, clusters = examined({"network": featured, **heads}, batch.unlabelled)
    assert_allclose(measures["mutual_information"], np.mean(mutual), rtol=1e-3)
    same = (p.argmax(-1) == q.argmax(-1)) & inside
    assert_allclose(measures["agreement"], same.sum() / (SUBHEADS * inside.sum()), rtol=1e-5)
    wanted = assign(heads["head"], batch.unlabelled @ featured["Up_conv2"])[0].argmax(-1)
    assert_array_equal(clusters, wanted)


def test_position_contrast(featured, batch):
    method = methods.build(
        "position_contrast", **STILL, partitions=2, brightness=0.0, contrast=0.0, gamma=0.0, width=6
    )
    heads, _ = begin(method, start_with_features(featured))
    batch = batch._replace(position=np.array([0.0, 0.4, 1.0], np.float32))
    first, second = (jax.tree.map(np.float64, heads["head"][n]) for n in ("first", "second"))
    x = batch.unlabelled.mean((1, 2)) @ np.float64(featured["bottleneck"])
    x = np.maximum(x @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]
    z = np.tile(x / np.linalg.norm(x, axis=-1, keepdims=True), (2, 1))  # both views are the image
    part, values = np.tile([0, 0, 1], 2), []
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = sum(np.exp(z[i] @ z[j] / 0.07) for j in others)
        positives = [j for j in others if part[j] == part[i]]
        values.append(-np.mean([np.log(np.exp(z[i] @ z[j] / 0.07) / total) for j in positives]))
    value, _, _ = loss_with_heads(method, featured, batch._replace(image=None, label=None), heads)
    assert_allclose(value, np.mean(values), rtol=1e-4)
    twice = batch.unlabelled[[0, 1, 0]]  # either of the two is the same image
    measures = method.examination.measures(
        {"network": featured, **heads},
        twice,
        features=lambda network, x: {"bottleneck": x @ network["bottleneck"]},
        key=KEY,
    )
    assert measures["retrieval"] == 1


@pytest.mark.parametrize("name", ["local_mi", "global_local_mi", "mean_teacher"])
def test_intensities_of_the_transformed_copy_alone_change(name, featured, batch):
    options = {"features": NAMES[:1], "importance": (1.0,), "radius": (0,)}
    options = options if name == "global_local_mi" else {}

    def images_seen(**jitter):
        method = methods.build(name, rotation=20.0, **options, **jitter)

        @jax.jit
        def passes(network, batch):
            heads, memory = method.init(KEY, start_with_features(network))
            seen = []

            def spy(network, *streams, **how):
                seen.extend(streams)
                return forward_with_features(network, *streams, **how)

            call(method, {"network": network, **heads}, memory, batch, forward=spy)
            return jnp.concatenate(seen)

        return np.asarray(passes(featured, batch))

    changes = images_seen(brightness=0.3) - images_seen()
    constants = changes.mean((1, 2, 3))
    assert_allclose(changes, constants[:, None, None, None] * np.ones_like(changes), atol=1e-5)
    changed = np.flatnonzero(np.abs(constants) > 1e-4)
    assert len(changed) == UNLABELLED and np.abs(constants).max() <= 0.3
    # Labelled images and the plain copy come before it, but the teacher's behind.
    first = LABELLED if name == "mean_teacher" else LABELLED + UNLABELLED
    assert changed.tolist() == list(range(first, first + UNLABELLED))
