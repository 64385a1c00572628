"""Local contrastive learning on pseudo-labels in rounds of self-training.

Chaitanya et al., Local contrastive loss with pseudo-label based self-training for
semi-supervised medical image segmentation, Medical Image Analysis 2023.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from mijax.errors import UserError
from mijax.losses import local_contrastive_loss
from mijax.methods.method import Aux, Method, Quantity, Rounds, Row
from mijax.methods.parts import check_least, check_positive
from mijax.models import Projection
from mijax.transforms import check_ranges, sample_view

_CHUNK = 256  # slices that are labelled at a time, of 256 × 256 pixels or fewer

ROWS = {"local_contrast": Row("Local contrast", 51)}
QUANTITIES = {
    "contrast": Quantity("Contrastive loss", "nats"),
    "round": Quantity("Round of self-training"),
}


def make(
    *,
    weight=0.1,
    rounds=3,
    pairs="all",
    anchors=3,
    temperature=0.1,
    width=16,
    gate=0.0,
    rotation=30.0,
    shear=0.0,
    scale=(0.8, 1.25),
    flip=0.0,
):
    """L(labelled) + weight · L_cont(labelled with truth, unlabelled with pseudo-labels).

    The first part of the steps is supervised alone; then come rounds of as many steps, each of
    which begins with pseudo-labels of all unlabelled slices by the best network so far. They
    are the class maps of the contrastive loss and never enter the supervised one, which is
    soft Dice in the paper, ``config.label_loss=dice``. The network
    goes on from round to round; the authors give the first round fresh heads and begin each later
    one with the best network. They smooth pseudo-labels by a CRF, change the brightness and the
    contrast of the images, and have a variant within one image; here images are changed by
    ``config.augmentation`` alone, and labelled and unlabelled ones share the statistics of the
    head.

    Args:
      weight: of the contrastive loss, once there are pseudo-labels.
      rounds: of self-training.
      pairs: "all" neighbours in the order labelled, unlabelled; or of a "labelled" and an
        unlabelled image only.
      anchors: pixels of each image and foreground class.
      temperature: τ.
      width: of the embeddings.
      gate: a volume keeps its pseudo-labels where the mean foreground Dice of the predictions
        for two transformed copies, transformed back, is above this, on the pixels that both
        kept in the frame; 0 keeps all.
      rotation, shear, scale, flip: of those transformations.
    """
    if pairs not in ("all", "labelled"):
        raise ValueError(f"pairs is 'all' or 'labelled', not {pairs!r}")
    check_least(1, rounds=rounds, anchors=anchors, width=width)
    check_least(0, weight=weight)
    check_positive(temperature=temperature)
    if not 0 <= gate < 1:
        raise ValueError(f"gate is at least 0 and below 1, not {gate}")
    ranges = {"rotation": rotation, "shear": shear, "scale": scale}
    check_ranges(**ranges, flip=flip)
    head = Projection(width=width)

    def init(key, start):
        if "Up_conv2" not in start.features:
            raise UserError("method local_contrast: config.model.widths needs two levels")
        heads = {"head": head.init(key, jnp.zeros(start.features["Up_conv2"]))["params"]}
        memory = {
            "pseudo_label": jnp.zeros(start.unlabelled_shape, jnp.uint8),
            "round": jnp.int32(0),
        }
        return heads, memory

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        anchor_key, dropout_key = jax.random.split(key)
        images = batch.image, batch.unlabelled
        labelled, unlabelled = forward(params["network"], *images, key=dropout_key)
        supervised = label_loss(labelled.logits, batch.label)
        features = jnp.concatenate([x.features["Up_conv2"] for x in (labelled, unlabelled)])
        contrast = local_contrastive_loss(
            anchor_key,
            head.apply({"params": params["head"]}, features),
            jnp.concatenate([batch.label, batch.pseudo_label]),
            pairs=_pairs(pairs, *map(len, images)),
            num_classes=labelled.logits.shape[-1],
            anchors=anchors,
            temperature=temperature,
        )
        active = memory["round"] > 0
        value = supervised + jnp.where(active, weight * contrast, 0.0)
        logs = {"supervised": supervised, "contrast": contrast}
        return value, Aux(labelled.batch_stats, logs | {"round": memory["round"].astype(float)})

    def refresh(memory, predict, unlabelled):
        number = int(memory["round"]) + 1
        labels = [
            predict(images).argmax(-1).astype(np.uint8) for _, images in _chunks(unlabelled.image)
        ]
        labels = np.concatenate(labels)
        if gate:
            agreement = _agreement(predict, unlabelled, {**ranges, "flip": flip}, number)
            labels[agreement[unlabelled.volume] <= gate] = 0
        return {"pseudo_label": labels, "round": np.int32(number)}

    return Method(
        loss,
        init,
        unlabelled=True,
        rounds=Rounds(rounds, refresh, pseudo_labels=lambda memory: memory["pseudo_label"]),
    )


def _pairs(kind, labelled, unlabelled):
    """Index pairs of a batch of labelled images followed by unlabelled ones."""
    if kind == "all":
        return list(itertools.pairwise(range(labelled + unlabelled)))
    count = max(labelled, unlabelled)
    return [(i % labelled, labelled + i % unlabelled) for i in range(count)]


def _chunks(images):
    """Yields the place of the first of some images, and these."""
    larger = -(-math.prod(images.shape[1:-1]) // 256**2)
    count = max(1, _CHUNK // larger)
    for i in range(0, len(images), count):
        yield i, images[i : i + count]


def _agreement(predict, unlabelled, ranges, number):
    """Mean foreground Dice (v,) of each volume between two predictions by way of T.

    On the pixels that both T kept in the frame: of others there are no two predictions.
    """
    maps = []
    for which in range(2):
        key = jax.random.fold_in(jax.random.key(number), which)
        chunks = []
        for i, images in _chunks(unlabelled.image):
            dims = images.ndim - 2
            view = sample_view(jax.random.fold_in(key, i), len(images), dims=dims, **ranges)
            probs = predict(np.asarray(view.apply(images)))
            labels = np.asarray(view.restore(probs)).argmax(-1)
            chunks.append(np.where(view.mask(labels.shape[1:]), labels, -1))
        maps.append(np.concatenate(chunks))
        classes = probs.shape[-1]
    inside = np.minimum(*maps) >= 0
    first, second = maps = [np.where(inside, m, -1) for m in maps]
    pixels = tuple(range(1, first.ndim))
    scores = []
    for value in range(1, classes):
        a, b = (
            np.bincount(unlabelled.volume, (m == value).sum(pixels)).astype(float) for m in maps
        )
        both = np.bincount(unlabelled.volume, ((first == value) & (second == value)).sum(pixels))
        scores.append(np.where(a + b > 0, 2 * both / np.maximum(a + b, 1), np.nan))
    # A class that neither finds says nothing; a volume without any has no agreement.
    found = ~np.isnan(scores)
    return np.where(found, scores, 0).sum(0) / np.maximum(found.sum(0), 1)
