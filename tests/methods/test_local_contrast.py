"""Local contrast on pseudo-labels: its loss in float64, and its rounds."""

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from oracles import (
    LABELLED,
    SIZE,
    UNLABELLED,
    K,
    begin,
    cross_entropy,
    forward64,
    loss_with_heads,
    softmax,
    start_with_features,
)

from mijax import methods
from mijax.methods import Unlabelled

MEMORY = {"pseudo_label": np.zeros((UNLABELLED, SIZE, SIZE), np.uint8)}


@pytest.fixture
def batch(batch):
    """Each class of the foreground is one pixel of an image, so that anchors are no chance."""
    rng = np.random.default_rng(3)
    labels = np.zeros((LABELLED + UNLABELLED, SIZE, SIZE), int)
    for label in labels:
        places = rng.permutation(SIZE * SIZE)[: K - 1]
        label.ravel()[places] = np.arange(1, K)
    labels[-1][labels[-1] == 1] = 0  # a class that an image lacks
    return batch._replace(label=labels[:LABELLED], pseudo_label=labels[LABELLED:])


def embeddings64(head, batch, featured):
    head = jax.tree.map(np.float64, head)
    images = np.concatenate([batch.image, batch.unlabelled])
    x = images @ np.float64(featured["Up_conv2"])
    x = x @ head["first"]["kernel"] + head["first"]["bias"]
    x = (x - x.mean((0, 1, 2))) / np.sqrt(x.var((0, 1, 2)) + 1e-5)
    x = np.maximum(x * head["scale"] + head["bias"], 0)
    x = x @ head["second"]["kernel"] + head["second"]["bias"]
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def contrast64(z, labels, pairs):
    terms, count = [], 0
    for pair in pairs:
        for own, other in (pair, pair[::-1]):
            means = [(c, z[i][labels[i] == c][0]) for i in (own, other) for c in (1, 2)
                     if (labels[i] == c).any()]  # fmt: skip
            for c in (1, 2):
                if (labels[own] == c).any():
                    anchor = z[own][labels[own] == c][0]
                    total = sum(np.exp(anchor @ mean / 0.1) for _, mean in means)
                    own_class = [np.exp(anchor @ m / 0.1) / total for k, m in means if k == c]
                    terms += [-np.log(p) for p in own_class]
                    count += 1
    return sum(terms) / count


@pytest.mark.parametrize("pairs", ["all", "labelled"])
def test_loss(pairs, featured, batch):
    method = methods.build("local_contrast", pairs=pairs, weight=0.3)
    heads, memory = begin(method, start_with_features(featured))
    assert_array_equal(memory["pseudo_label"], MEMORY["pseudo_label"])
    assert memory["pseudo_label"].dtype == np.uint8 and memory["round"] == 0
    chosen = {"all": [(0, 1), (1, 2), (2, 3), (3, 4)], "labelled": [(0, 2), (1, 3), (0, 4)]}
    labels = np.concatenate([batch.label, batch.pseudo_label])
    contrast = contrast64(embeddings64(heads["head"], batch, featured), labels, chosen[pairs])
    supervised = cross_entropy(forward64(featured, batch.image), batch.label)
    value, logs, _ = loss_with_heads(
        method, featured, batch, heads, memory | {"round": np.int32(1)}
    )
    assert_allclose(logs["supervised"], supervised, rtol=1e-5)
    assert_allclose(logs["contrast"], contrast, rtol=1e-4)
    assert_allclose(value, supervised + 0.3 * contrast, rtol=1e-5)
    value, _, gradients = loss_with_heads(method, featured, batch, heads, memory)
    assert_allclose(value, supervised, rtol=1e-5)  # before the first round
    assert not any(np.any(g) for g in jax.tree.leaves(gradients["head"]))


def unlabelled():
    rng = np.random.default_rng(4)
    volume = np.repeat(np.arange(3), 4)
    image = rng.normal(size=(12, SIZE, SIZE, 1)).astype(np.float32)
    return Unlabelled(image, np.tile(np.linspace(0, 1, 4), 3), volume)


def probabilities(images):
    """Class 1 where an image is bright, class 2 where it is dark."""
    return softmax(np.concatenate([0 * images + 0.3, images, -images], -1) * 5)


def test_a_round_begins_with_the_labels_of_the_best_network():
    method = methods.build("local_contrast")
    memory = {"pseudo_label": np.zeros((12, SIZE, SIZE), np.uint8), "round": np.int32(1)}
    found = method.rounds.refresh(memory, probabilities, unlabelled())
    assert found["round"] == 2 and found["pseudo_label"].dtype == np.uint8
    assert_array_equal(found["pseudo_label"], probabilities(unlabelled().image).argmax(-1))
    assert_array_equal(method.rounds.pseudo_labels(found), found["pseudo_label"])
    assert method.rounds.count == 3


def test_volumes_are_labelled_few_at_a_time(monkeypatch):
    monkeypatch.setattr("mijax.methods.local_contrast._CHUNK", 4)
    images, asked = np.zeros((5, 2, 256, 256, 1), np.float32), []

    def predict(some):
        asked.append(len(some))
        return np.zeros((*some.shape[:-1], 2), np.float32)

    memory = {"pseudo_label": None, "round": np.int32(0)}
    method = methods.build("local_contrast")
    found = method.rounds.refresh(memory, predict, Unlabelled(images, None, None))
    assert asked == [2, 2, 1] and found["pseudo_label"].shape == images.shape[:-1]


def test_the_gate_drops_volumes_whose_predictions_do_not_agree():
    method = methods.build("local_contrast", gate=0.9, rotation=0.0, scale=(1.0, 1.0), flip=0.5)
    memory = {"pseudo_label": np.zeros((12, SIZE, SIZE), np.uint8), "round": np.int32(0)}
    slices = unlabelled()
    slices.image[4:8] = 0.0  # class 0 all over: nothing to agree on

    def by_place(images):  # no function of the image: what turns with it disagrees
        probs = probabilities(images)
        doubtful = (np.abs(images) < 1.5).all((1, 2, 3)) & (images != 0).any((1, 2, 3))
        probs[doubtful] = probabilities(np.linspace(-1, 1, SIZE)[None, :, None, None] + 0 * images)[
            doubtful
        ]
        return probs

    slices.image[8:] = np.clip(slices.image[8:], -1.4, 1.4)
    found = method.rounds.refresh(memory, by_place, slices)["pseudo_label"]
    assert_array_equal(found[:4], by_place(slices.image)[:4].argmax(-1))
    assert not found[4:].any()
    whole = methods.build("local_contrast").rounds.refresh(memory, by_place, slices)["pseudo_label"]
    assert whole[8:].any()


def test_what_left_the_frame_is_no_disagreement():
    method = methods.build("local_contrast", gate=0.99, rotation=30.0, scale=(1.0, 1.25))
    image = np.zeros((12, 24, 24, 1), np.float32)
    image[:, :10, :10] = 1.0  # a structure in the corner

    def perfect(images):  # and equivariant
        return np.concatenate([1 - images, images], -1)

    slices = unlabelled()._replace(image=image)
    memory = {"pseudo_label": np.zeros(image.shape[:3], np.uint8), "round": np.int32(0)}
    found = method.rounds.refresh(memory, perfect, slices)["pseudo_label"]
    assert_array_equal(found, image[..., 0] > 0)
