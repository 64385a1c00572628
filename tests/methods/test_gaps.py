"""Pixels without a label reach no method but by its label_loss, which leaves them out."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.interpreters import partial_eval
from numpy.testing import assert_allclose, assert_array_equal
from oracles import (
    KEY,
    LABELLED,
    NAMES,
    K,
    call,
    forward,
    forward_with_features,
    make_featured,
    memory_of,
    softmax,
    start_with_features,
)

from mijax import losses, methods
from mijax.methods.parts import class_entropy
from mijax.training.gaps import make_label_loss

GAP = 255
OF_METHOD = {
    "global_local_mi": {"features": NAMES, "importance": (1.0, 1.0), "radius": (0, 1)},
    "uamt": {"passes": 2},
    "mixed_mi": {"prior_weight": 1.0},
}
# What they make of labels beside that is below.
READERS = {"local_contrast", "local_mi", "mixed_mi", "strong_mi"}


def blind(logits, labels, *, mask=None):
    """A label_loss that does not look at the labels."""
    return jnp.sum(logits) if mask is None else jnp.sum(logits * mask[..., None])


@pytest.mark.parametrize("name", methods.names())
def test_a_method_looks_at_labels_by_its_label_loss_alone(name, batch):
    method = methods.build(name, **OF_METHOD.get(name, {}))
    network = make_featured(0)
    pseudo = np.zeros(batch.unlabelled.shape[:3], int)
    batch = batch._replace(position=pseudo[:, 0, 0], pseudo_label=pseudo)

    def loss(label):  # traced, and never compiled
        heads, memory = method.init(KEY, start_with_features(network))
        value, aux = method.loss(
            {"network": network, **heads},
            memory,
            batch._replace(label=label),
            forward=forward_with_features,
            label_loss=blind,
            step=0,
            key=KEY,
        )
        return value, aux.logs

    jaxpr = jax.make_jaxpr(loss)(batch.label).jaxpr
    _, (used,) = partial_eval.dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    assert used == (name in READERS)


@pytest.fixture
def gappy(batch):
    """A batch with a quarter of its first labelled image without a label, and of which pixels."""
    label = batch.label.copy()
    label[0, :4, :4] = GAP
    return batch._replace(label=label), label == GAP


def test_the_entropy_that_is_logged_is_of_the_pixels_with_a_label(gappy):
    batch, gap = gappy
    label = batch.label
    shares = np.bincount(label[~gap]) / (~gap).sum()
    assert_allclose(class_entropy(label, K), -(shares * np.log(shares)).sum(), rtol=1e-5)
    assert class_entropy(np.full_like(label, GAP), K) == 0
    undrawn = np.where(label == 0, K + 1, label)  # background, or a class that was not drawn
    assert class_entropy(undrawn, K) == class_entropy(label, K)


def test_a_pasted_gap_is_left_out(gappy, network, teacher):
    """copy_paste pastes labelled images into others, and keeps the labels where they are."""
    batch, gap = gappy
    method = methods.build("copy_paste", weight=0.0, pretrain_steps=0)
    memory = memory_of(teacher)["teacher"]
    label_loss = make_label_loss("cross_entropy+squared_dice", classes=K, gaps=True)

    def loss(shift):
        def shifted(parameters, *streams, **options):
            first, *others = forward(parameters, *streams, **options)
            if not others:  # the teacher's
                return [first]
            return [first._replace(logits=first.logits + shift), *others]

        return method.loss(
            {"network": network}, memory, batch, forward=shifted, label_loss=label_loss,
            step=0, key=KEY,
        )[0]  # fmt: skip

    shift = jnp.zeros((LABELLED // 2, *batch.label.shape[1:], K))
    value, gradient = jax.jit(jax.value_and_grad(loss))(shift)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()
    assert not gradient[gap[:1]].any() and gradient.any()


def test_gaps_are_no_anchors(gappy):
    """No more than background is."""
    batch, gap = gappy
    network, pseudo = make_featured(0), np.zeros(batch.unlabelled.shape[:3], int)
    method = methods.build("local_contrast")

    @jax.jit
    def contrast(label):
        heads, memory = method.init(KEY, start_with_features(network))
        given = batch._replace(label=label, pseudo_label=pseudo)
        params = {"network": network, **heads}
        _, aux = call(method, params, memory, given, forward=forward_with_features)
        return aux.logs["contrast"]

    value = contrast(batch.label)
    assert value == contrast(np.where(gap, 0, batch.label)) > 0
    assert value != contrast(np.where(gap, 1, batch.label))


def test_the_prior_is_that_of_images_that_are_annotated_all_over(gappy, network, teacher):
    batch, _ = gappy
    method = methods.build(
        "mixed_mi", prior_weight=1.0, mi_weight=0.0, pseudo_weight=0.0, box_probability=0.0
    )
    label_loss = make_label_loss("cross_entropy", classes=K, gaps=True)

    @jax.jit
    def prior(label):
        return method.loss(
            {"network": network}, memory_of(teacher)["teacher"], batch._replace(label=label),
            forward=forward, label_loss=label_loss, step=0, key=KEY,
        )[1].logs["prior"]  # fmt: skip

    of_second = prior(np.stack([batch.label[1]] * LABELLED))
    assert_allclose(prior(batch.label), of_second, rtol=1e-6)
    assert abs(of_second) > 1e-3
    assert prior(np.full_like(batch.label, GAP)) == 0  # nothing is known


# label_loss itself ---------------------------------------------------------------------

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(2, 6, 5, 4)).astype(np.float32)
LABELS = RNG.integers(0, 4, (2, 6, 5)).astype(np.uint8)
HIDDEN = RNG.random(LABELS.shape) < 0.4
MASK = (RNG.random(LABELS.shape) < 0.6).astype(np.float32)
KINDS = ("cross_entropy", "dice", "cross_entropy+squared_dice")


@pytest.mark.parametrize(("kind", "mask"), [*((kind, MASK) for kind in KINDS), (KINDS[-1], None)])
def test_hidden_pixels_reach_neither_value_nor_gradient(kind, mask):
    label_loss = make_label_loss(kind, classes=4, gaps=True)
    labels = np.where(HIDDEN, np.uint8(GAP), LABELS)
    poisoned = np.where(HIDDEN[..., None], np.nan, LOGITS)
    value, gradient = jax.jit(jax.value_and_grad(label_loss))(poisoned, labels, mask=mask)
    known = ~HIDDEN * (1 if mask is None else mask)
    alone = jax.jit(functools.partial(losses.label_loss, kind=kind))
    assert_allclose(value, alone(LOGITS, LABELS, mask=known), rtol=1e-6)
    assert_array_equal(gradient[HIDDEN], 0)
    assert jnp.isfinite(gradient).all() and gradient.any()


def test_where_all_is_known_it_is_the_loss_itself():
    """And so is the program that is compiled."""
    label_loss = make_label_loss("dice", classes=4, gaps=False, undrawn=((1,),))
    assert label_loss.func is losses.label_loss and label_loss.keywords == {"kind": "dice"}


@pytest.mark.parametrize("kind", KINDS[1:])
def test_nothing_known_is_no_loss(kind):
    label_loss = make_label_loss(kind, classes=4, gaps=True, undrawn=((1, 2),))
    value, gradient = jax.jit(jax.value_and_grad(label_loss))(LOGITS, np.full_like(LABELS, GAP))
    assert jnp.isfinite(value) and not gradient.any()


def test_background_may_be_of_classes_that_nobody_drew():
    """Shi et al., eq. 3: the probability of background is that of all it may be."""
    undrawn = ((1,), (1, 3))
    label_loss = make_label_loss("cross_entropy", classes=4, gaps=True, undrawn=undrawn)
    labels = LABELS.copy()
    labels[0][labels[0] == 0] = 4 + 1  # background or 1 or 3
    labels[1][labels[1] == 0] = 4 + 0  # background or 1
    labels[HIDDEN] = GAP
    probs = softmax(LOGITS.astype(np.float64))
    own = np.take_along_axis(probs, np.minimum(labels, 3)[..., None].astype(int), -1)[..., 0]
    own = np.where(labels == 5, probs[..., [0, 1, 3]].sum(-1), own)
    own = np.where(labels == 4, probs[..., [0, 1]].sum(-1), own)
    assert_allclose(jax.jit(label_loss)(LOGITS, labels), -np.log(own[~HIDDEN]).mean(), rtol=1e-5)


def test_undrawn_classes_are_pushed_neither_way_in_the_background():
    label_loss = make_label_loss("cross_entropy+dice", classes=4, gaps=True, undrawn=((3,),))
    labels = np.full_like(LABELS, 4)
    labels[:, 0] = 1
    gradient = jax.jit(jax.grad(label_loss))(LOGITS, labels)
    probs = softmax(LOGITS)
    # Background and the undrawn class share the slope of their sum, by their probabilities.
    ratio = (gradient[..., 3] / gradient[..., 0])[:, 1:]
    assert_allclose(ratio, (probs[..., 3] / probs[..., 0])[:, 1:], rtol=1e-3)
    assert (gradient[:, 1:, :, 3] < 0).all()  # both up, the drawn classes down
    assert (gradient[:, 0, :, 3] > 0).all()  # what is of another class is not of that one


def test_merging_nothing_leaves_the_logits_as_they_are():
    none = np.zeros(4, bool)
    assert_array_equal(losses.merge_undrawn(LOGITS, none.reshape(1, 1, 1, 4)), LOGITS)
    of_background = np.eye(1, 4, dtype=bool).reshape(1, 1, 1, 4)
    assert_array_equal(losses.merge_undrawn(LOGITS, of_background), LOGITS)


def test_merging_is_per_image():
    undrawn = np.array([[False, True, False, True], [False] * 4]).reshape(2, 1, 1, 4)
    found = jax.nn.softmax(losses.merge_undrawn(LOGITS, undrawn))
    probs = softmax(LOGITS.astype(np.float64))
    assert_allclose(found[1], probs[1], rtol=1e-5)
    assert_allclose(found[0, ..., 0], probs[0][..., [0, 1, 3]].sum(-1), rtol=1e-5)
    assert_allclose(found[0, ..., 2], probs[0, ..., 2], rtol=1e-5)
    assert not found[0, ..., [1, 3]].any()
    half = losses.merge_undrawn(LOGITS.astype(jnp.bfloat16), undrawn)
    assert half.dtype == jnp.float32 and jnp.isfinite(half).all()
