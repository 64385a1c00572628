"""What tells a good prediction from a bad one without an annotation: quantities by class.

Of pixels first, summed slice by slice, so that no volume of probabilities is ever in memory; of a
case then. ``probs`` are the prediction and ``others`` the mean prediction for transformed copies
of the image, see ``voices``.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import entr
from scipy import ndimage

from mijax.losses import mutual_information
from mijax.metrics import class_volumes

# Sums over the pixels of a slice; the first is of those whose most probable class it is.
SUMS = ("predicted", "confidence", "entropy", "mass", "others", "joint", "pixels")
SIGNALS = ("agreement", "information", "confidence", "entropy")
_NEIGHBOURS = np.ones((3, 3, 3), bool)


def slice_sums(probs, others):
    """Sums over the pixels of each slice, from which ``signals`` makes those of a volume.

    Args:
      probs: (b, h, w, k) class probabilities.
      others: (b, h, w, k), of transformed copies, restored.

    Returns:
      (b, k, len(SUMS)) float32.
    """
    chosen = _chosen(probs)
    maps = {
        "predicted": chosen,
        "confidence": chosen * probs,
        "entropy": chosen * entr(probs).sum(-1, keepdims=True),
        "mass": probs,
        "others": others,
        "joint": probs * others,
        "pixels": jnp.ones_like(probs),
    }
    return jnp.stack([maps[name].sum((1, 2), dtype=jnp.float32) for name in SUMS], -1)


def votes(probs, copy):
    """How far a single copy finds the same pixels of each class.

    Args:
      probs: (b, h, w, k).
      copy: (b, h, w, k), of a transformed copy, restored.

    Returns:
      (b, k, 2) float32: pixels whose most probable class it is in the copy, and in both.
    """
    ours, theirs = _chosen(probs), _chosen(copy)
    pixels = tuple(range(1, ours.ndim - 1))
    return jnp.stack([x.sum(pixels, dtype=jnp.float32) for x in (theirs, ours * theirs)], -1)


def disagreement(probs, others):
    """(b, h, w, 1): the probability, between 0 and 1, that ``others`` give to another class."""
    chosen = probs.argmax(-1)[..., None]
    return 1 - jnp.take_along_axis(others, chosen, -1)


def signals(sums):
    """Signals of each class of a volume.

    - agreement: 2 |S ∩ T| / (|S| + |T|), the Dice overlap of the pixels S of the class with those
      T of a transformed copy, its mean over the copies; between 0 and 1.
    - information: the mutual information of class or not in p and in q, as a part of the entropy
      of p; between 0 and 1.
    - confidence: mean softmax probability over S.
    - entropy: mean entropy over S, in nats; the lower the better.

    Args:
      sums: (k, len(SUMS) + 2 · copies), over all slices: of ``slice_sums``, and the ``votes`` of
        each copy.

    Returns:
      ``{signal: (k − 1,)}`` of the classes but the background; NaN where S is empty.
    """
    sums = np.asarray(sums, np.float64)[1:].T
    of, counts = dict(zip(SUMS, sums, strict=False)), sums[len(SUMS) :]
    found = of["predicted"] > 0
    size = np.where(found, of["predicted"], np.nan)
    joint = np.array(
        [
            [of["joint"], of["mass"] - of["joint"]],
            [of["others"] - of["joint"], of["pixels"] - of["mass"] - of["others"] + of["joint"]],
        ]
    )
    joint = np.maximum(np.moveaxis(joint, 2, 0) / of["pixels"][:, None, None], 0)
    own = np.stack([of["mass"], of["pixels"] - of["mass"]], 1) / of["pixels"][:, None]
    entropy = -(own * np.log(np.maximum(own, 1e-12))).sum(1)
    information = np.asarray(mutual_information(jnp.asarray(joint, jnp.float32)), np.float64)
    return {
        "agreement": np.mean(2 * counts[1::2] / (size + counts[::2]), axis=0),
        "information": np.where(found, information / np.maximum(entropy, 1e-12), np.nan),
        "confidence": of["confidence"] / size,
        "entropy": of["entropy"] / size,
    }


def _chosen(probs):
    """1 where a class is the most probable one, else 0."""
    return jax.nn.one_hot(probs.argmax(-1), probs.shape[-1], dtype=probs.dtype)


def shape(labels, affine, *, classes):
    """Volume and pieces of each class of a label map.

    Args:
      labels: (x, y, z) integers.
      affine: (4, 4), voxels to millimetres.
      classes: k, background included.

    Returns:
      ``{"volume_ml": (k − 1,), "pieces": (k − 1,)}``: millilitres, and the number of components
      of voxels that share a corner.
    """
    boxes = ndimage.find_objects(labels, classes - 1)
    pieces = [
        0 if box is None else ndimage.label(labels[box] == value, _NEIGHBOURS)[1]
        for value, box in enumerate(boxes, start=1)
    ]
    volumes = class_volumes(labels, affine=affine, classes=classes)
    return {"volume_ml": volumes, "pieces": np.array(pieces)}
