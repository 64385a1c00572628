"""Contrastive losses: float64 loops over anchors and candidates, and closed forms."""

import functools
import itertools

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose

from mijax import losses

KEY = jax.random.key(0)
IGNORED = 255
PAIRS = [(0, 1), (1, 2)]
# Three images of 2 × 4 pixels: class 1 is everywhere, class 2 not in the last image, class 3
# nowhere, and class 4 in the last image alone.
LABELS = np.array(
    [
        [[1, 0, 2, 0], [1, IGNORED, 0, 0]],
        [[2, 2, 0, 0], [2, 0, 1, IGNORED]],
        [[0, 1, IGNORED, 0], [0, 1, 4, 0]],
    ]
)
COUNTED = (LABELS > 0) & (LABELS < 5)

# Compiled once a shape: op by op, the tests would take several times as long.
local_loss = jax.jit(
    functools.partial(losses.local_contrastive_loss, pairs=PAIRS, num_classes=5),
    static_argnames=("anchors", "temperature"),
)
local_value_and_grad = jax.jit(jax.value_and_grad(local_loss, argnums=1))
supervised_loss = jax.jit(losses.supervised_contrastive_loss, static_argnames="temperature")


def embedded(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def cosine(x, y):
    return x @ y / np.sqrt((x @ x) * (y @ y))


# Local contrast ------------------------------------------------------------------------


def pixels_of(labels):
    """(image, class) -> positions of its pixels, for all that are there."""
    found = {(n, c): np.argwhere(labels[n] == c) for n in range(len(labels)) for c in range(1, 5)}
    return {which: pixels for which, pixels in found.items() if len(pixels)}


def local_loss64(embeddings, labels, anchors, pairs=PAIRS, temperature=0.1):
    """The mean over pairs, classes and ``anchors``: (image, class) -> positions of pixels."""
    e = np.asarray(embeddings, np.float64)
    means = {
        (n, c): np.mean([e[n, i, j] for i, j in p], 0) for (n, c), p in pixels_of(labels).items()
    }
    values = []
    for pair in pairs:
        for x, other in (pair, pair[::-1]):
            candidates = [m for (n, _), m in means.items() if n == x]
            candidates += [m for (n, _), m in means.items() if n == other]
            for (n, c), pixels in anchors.items():
                for i, j in pixels if n == x else ():
                    a = e[n, i, j]
                    z = sum(np.exp(cosine(a, m) / temperature) for m in candidates)
                    own = [means[m, c] for m in (x, other) if (m, c) in means]
                    terms = [np.exp(cosine(a, m) / temperature) / z for m in own]
                    values.append(-np.log(terms).sum())
    return np.mean(values)


def draws_of_one():
    """All ways to draw one anchor per image and class."""
    pixels = pixels_of(LABELS)
    for choice in itertools.product(*pixels.values()):
        yield dict(zip(pixels, ([pixel] for pixel in choice), strict=True))


def test_loss_is_that_of_one_of_the_draws_and_each_is_as_frequent():
    e = embedded(0, 3, 2, 4, 6)
    expected = np.array([local_loss64(e, LABELS, draw) for draw in draws_of_one()])
    keys = jax.random.split(KEY, 3600)
    one = functools.partial(losses.local_contrastive_loss, pairs=PAIRS, num_classes=5, anchors=1)
    values = jax.jit(jax.vmap(one, in_axes=(0, None, None)))(keys, e, LABELS)
    nearest = np.abs(np.asarray(values)[:, None] - expected).argmin(1)
    assert_allclose(values, expected[nearest], rtol=1e-5)
    frequency = np.bincount(nearest, minlength=len(expected)) / len(keys)
    assert len(expected) == 12
    assert_allclose(frequency, 1 / 12, atol=0.02)


def test_many_anchors_come_to_the_mean_over_the_pixels():
    e = embedded(1, 3, 2, 4, 6)
    # A class of three pixels counts as much as one of a single pixel.
    whole = {which: np.repeat(p, 6 // len(p), axis=0) for which, p in pixels_of(LABELS).items()}
    ours = local_loss(KEY, e, LABELS, anchors=4000, temperature=0.5)
    assert_allclose(ours, local_loss64(e, LABELS, whole, temperature=0.5), rtol=0.01)


def test_gradient_flows_through_anchors_and_means():
    e, direction = embedded(2, 3, 2, 4, 6), embedded(3, 3, 2, 4, 6)
    value, gradient = jax.jit(
        jax.value_and_grad(functools.partial(local_loss, anchors=1), argnums=1)
    )(KEY, e, LABELS)
    draw = min(draws_of_one(), key=lambda d: abs(local_loss64(e, LABELS, d) - value))
    step = 1e-5 * direction.astype(np.float64)
    difference = local_loss64(e + step, LABELS, draw) - local_loss64(e - step, LABELS, draw)
    assert_allclose(np.sum(gradient * direction), difference / 2e-5, rtol=1e-4)
    # All pixels of a class are in its mean, drawn or not.
    assert np.all(np.any(gradient, axis=-1) == COUNTED)


@pytest.mark.parametrize("k", [1, 3])
def test_embeddings_that_tell_all_or_nothing(k):
    labels = np.random.default_rng(4).permuted(np.arange(32).reshape(2, 16) % (k + 1))
    labels = labels.reshape(2, 4, 4).astype(np.uint8)
    options = {"pairs": [(0, 1)], "num_classes": k + 1, "temperature": 0.5}
    loss = jax.jit(functools.partial(losses.local_contrastive_loss, KEY, **options))
    directions = np.eye(k + 1, dtype=np.float32)[labels]
    assert_allclose(loss(np.ones_like(directions), labels), 2 * np.log(2 * k), rtol=1e-6)
    # One direction a class: cosine 1 with both own means and 0 with all others.
    expected = 2 * np.log(2 + 2 * (k - 1) * np.exp(-2))
    assert_allclose(loss(directions, labels), expected, rtol=1e-6)


def test_the_order_of_a_pair_and_the_scale_of_embeddings_do_not_matter():
    e = embedded(5, 3, 2, 4, 6)
    value, _ = local_value_and_grad(KEY, e, LABELS)
    options = {"pairs": [pair[::-1] for pair in PAIRS[::-1]], "num_classes": 5}
    swapped = jax.jit(functools.partial(losses.local_contrastive_loss, **options))
    assert_allclose(swapped(KEY, e, LABELS), value, rtol=1e-6)
    for scale in (1e-15, 1e15):
        result, gradient = local_value_and_grad(KEY, scale * e, LABELS)
        assert_allclose(result, value, rtol=1e-5)
        assert np.isfinite(gradient).all()


def test_background_and_ignored_pixels_reach_neither_value_nor_gradient():
    e = embedded(6, 3, 2, 4, 6)
    value, gradient = local_value_and_grad(KEY, e, LABELS)
    poisoned = np.where(COUNTED[..., None], e, np.nan)
    other_labels = np.where(LABELS == IGNORED, -1, LABELS)
    result, other = local_value_and_grad(KEY, poisoned, other_labels)
    assert result == value
    assert_allclose(other, gradient)
    assert not np.any(np.asarray(gradient)[~COUNTED])


def test_a_volume_has_the_loss_of_its_voxels_in_one_plane():
    # Neither means nor anchors know where a pixel is: (2, 4) or (2, 2, 2), the order is the same.
    e = embedded(10, 3, 2, 4, 6)
    value, gradient = local_value_and_grad(KEY, e, LABELS)
    volumes, labels = e.reshape(3, 2, 2, 2, 6), LABELS.reshape(3, 2, 2, 2)
    result, other = local_value_and_grad(KEY, volumes, labels)
    assert_allclose(result, value, rtol=1e-6)
    assert_allclose(other, np.reshape(gradient, volumes.shape), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("case", ["no foreground", "dead embeddings"])
def test_value_and_gradient_are_finite_where_nothing_is_to_be_had(case):
    labels = LABELS * (case != "no foreground")
    e = embedded(7, 3, 2, 4, 6) * (case != "dead embeddings")
    value, gradient = local_value_and_grad(KEY, e, labels)
    assert np.isfinite(gradient).all()
    if case == "no foreground":
        assert value == 0 and not np.any(gradient)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((2, 4, 3))}, "labels"),
        ({"embeddings": np.zeros((2, 4, 3)), "labels": np.zeros((2, 4), int)}, "2 or 3 axes"),
        ({"embeddings": np.zeros((2,) * 6), "labels": np.zeros((2,) * 5, int)}, "2 or 3 axes"),
        ({"embeddings": np.zeros((2, 3, 4, 4, 3))}, r"\(2, 3, 4, 4, 3\), \(2, 4, 4\)"),
        ({"labels": np.zeros((2, 4, 5), int)}, "labels"),
        ({"pairs": [(0, 2)]}, "images 0 to 1, not 0 to 2"),
        ({"pairs": [(-1, 0)]}, "not -1 to 0"),
        ({"pairs": [0, 1]}, "indices"),
        ({"pairs": []}, "indices"),
        ({"num_classes": 1}, "2 classes"),
        ({"anchors": 0}, "1 anchor"),
        ({"temperature": 0.0}, "positive"),
    ],
)
def test_bad_arguments_of_the_local_loss_are_refused(change, message):
    good = {"embeddings": np.zeros((2, 4, 4, 3)), "labels": np.zeros((2, 4, 4), int)}
    good |= {"pairs": [(0, 1)], "num_classes": 2}
    with pytest.raises(ValueError, match=message):
        losses.local_contrastive_loss(KEY, **(good | change))


# Supervised contrast -------------------------------------------------------------------


def supervised_loss64(embeddings, labels, temperature=0.07):
    e = np.asarray(embeddings, np.float64)
    values = []
    for i in range(len(e)):
        weights = {j: np.exp(cosine(e[i], e[j]) / temperature) for j in range(len(e)) if j != i}
        positives = [w for j, w in weights.items() if labels[j] == labels[i]]
        if positives:
            values.append(-np.mean(np.log(np.array(positives) / sum(weights.values()))))
    return np.mean(values)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_supervised_loss_and_its_gradient(temperature):
    e, direction = embedded(8, 9, 4), embedded(9, 9, 4)
    labels = np.array([0, 1, 7, 1, 0, -3, 0, 2, 2])  # two of them alone
    loss = functools.partial(supervised_loss, temperature=temperature)
    value, gradient = jax.jit(jax.value_and_grad(loss))(e, labels)
    assert_allclose(value, supervised_loss64(e, labels, temperature), rtol=1e-5)
    step = 1e-5 * direction.astype(np.float64)
    high, low = (supervised_loss64(e + s, labels, temperature) for s in (step, -step))
    assert_allclose(np.sum(gradient * direction), (high - low) / 2e-5, rtol=1e-4)


def test_supervised_loss_in_closed_form():
    labels = np.array([0, 0, 1, 1, 2, 2])
    assert_allclose(supervised_loss(np.ones((6, 3), np.float32), labels), np.log(5), rtol=1e-6)
    value = supervised_loss(5 * np.eye(3, dtype=np.float32)[labels], labels, temperature=0.5)
    assert_allclose(value, np.log(1 + 4 * np.exp(-2)), rtol=1e-6)


@pytest.mark.parametrize("labels", [[0], [0, 1, 2], [0, 0, 0]], ids=["one", "alone", "dead"])
def test_supervised_gradient_is_finite_where_nothing_is_to_be_had(labels):
    e, labels = np.zeros((len(labels), 4), np.float32), np.asarray(labels)
    value, gradient = jax.jit(jax.value_and_grad(supervised_loss))(e, labels)
    assert np.isfinite(gradient).all()
    assert_allclose(value, np.log(2) if (labels == 0).all() and len(labels) > 1 else 0)


def test_bad_arguments_of_the_supervised_loss_are_refused():
    for labels in (np.zeros(3, int), np.zeros((4, 1), int)):
        with pytest.raises(ValueError, match="labels"):
            losses.supervised_contrastive_loss(np.zeros((4, 2)), labels)
    with pytest.raises(ValueError, match="positive"):
        losses.supervised_contrastive_loss(np.zeros((4, 2)), np.zeros(4, int), temperature=-1)
