"""Joint distributions of what the networks of a report see in some validation slices."""

from typing import NamedTuple

import jax
import numpy as np

from mijax.data import UNLABELLED, read_splits
from mijax.data.patches import slice_volume
from mijax.inference.batching import predict_stacks
from mijax.inference.network import patch_of
from mijax.losses import joint_distribution, mutual_information
from mijax.transforms import sample_view

_SLICES = 16  # from a few validation cases
_CASES = 4


class Joint(NamedTuple):
    """(3, 3, k, k) joint distribution of a row, and its mean mutual information in nats."""

    label: str
    joint: np.ndarray
    information: float


def validation_slices(source, run):
    """Some slices (n, h, w, c), with foreground if there are any, and their labels (n, h, w, k).

    Of a network of 3-D images the middle window (d, h, w, c) of each volume.
    """
    names = read_splits(run.folder / "splits.json").validation[:_CASES]
    images, labels, patch = [], [], patch_of(run.config)
    for name in names:
        cut = slice_volume(source.volume(name), run.config.data.patches, patch=patch, middle=True)
        if patch is not None:
            middle = [  # all of it, unless it was resized
                slice((n - m) // 2, (n + m) // 2)
                for n, m in zip(cut.label.shape[1:], patch, strict=True)
            ]
            images.append(cut.image[:, *middle])
            labels.append(cut.label[:, *middle])
            continue
        found = np.flatnonzero(((cut.label > 0) & (cut.label != UNLABELLED)).any((1, 2)))
        found = found if len(found) else np.arange(len(cut.label))
        count = min(-(-_SLICES // len(names)), len(found))
        picked = found[np.linspace(0, len(found) - 1, count).round().astype(int)]
        images.append(cut.image[picked])
        labels.append(cut.label[picked])
    # Pixels that nobody annotated are of no class, and count in no joint distribution.
    truth = np.eye(UNLABELLED + 1, len(source.classes), dtype=np.float32)[np.concatenate(labels)]
    return np.concatenate(images), truth


def true_joint(truth):
    """``Joint`` of true labels (n, h, w, k), paired with themselves."""
    return Joint("True labels", *jax.device_get(jax.jit(_joint)(truth, truth, None)))


def row_joint(label, predictor, images):
    """``Joint`` of p = f(x) and p̃ = T⁻¹ f(T x), with one T an image, the same in every row."""
    network, stacks = predictor.network, [images, np.asarray(_transform(images))]
    probs = predict_stacks(network.predict, predictor.weights, stacks, batch=network.batch)
    return Joint(label, *jax.device_get(_compare(*probs)))


def _view(count, dims):
    """T of each of some images, from the pool of the paper."""
    ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": 0.5}
    return sample_view(jax.random.key(0), count, dims=dims, **ranges)


@jax.jit  # else every operation is compiled for itself
def _transform(images):
    return _view(len(images), images.ndim - 2).apply(images)


@jax.jit
def _compare(probs, transformed):
    view = _view(len(probs), probs.ndim - 2)
    return _joint(probs, view.restore(transformed), view.mask(probs.shape[1:-1]))


def _joint(p, q, mask):
    joint = joint_distribution(p, q, radius=1, mask=mask)
    of_neighbours = joint if p.ndim == 4 else joint[1]  # within a plane
    return of_neighbours, mutual_information(joint).mean()
