"""Label maps slice by slice: those of the whole probabilities, in a fraction of their memory."""

import itertools
import tracemalloc
from types import SimpleNamespace

import ml_collections
import nibabel as nib
import numpy as np
import pytest

from mijax.configs import phantom
from mijax.data import Volume, to_native
from mijax.data.patches import slice_volume
from mijax.inference.batching import predict_stacks
from mijax.inference.volumes import most_probable, segment
from mijax.metrics import largest_components

BATCH = 4


def network(classes):
    """Probabilities of each pixel and class, from the pixel alone and full of equal ones."""

    def predict(weights, images):
        waves = np.sin(9 * images[..., :1] * np.arange(1, classes + 1, dtype=np.float32))
        probs = np.exp(np.round(2 * waves))
        return probs / probs.sum(-1, keepdims=True)

    return predict


def parts_of(classes, slices, predict=None):
    predict = predict or network(classes)
    return SimpleNamespace(predict=predict, slices=slices, batch=BATCH, stride=16, patch=None)


def slices(**changes):
    config = ml_collections.ConfigDict(phantom.get_config("supervised").data.patches)
    config.update({"size": (32, 32), **changes})
    return config


def volume(shape, axcodes="RAS", seed=0):
    image = np.random.default_rng(seed).random((*shape, 1), np.float32)
    turn = nib.orientations.axcodes2ornt(axcodes)
    affine = nib.orientations.inv_ornt_aff(turn, shape) @ np.diag([1.0, 1.5, 3.0, 1.0])
    return Volume(axcodes, image, None, affine)


def whole(parts, volume):
    """The probabilities in one piece, the other way to the labels."""
    cut = slice_volume(volume, parts.slices, stored=False, multiple=16)
    (probs,) = predict_stacks(parts.predict, None, [cut.image], batch=BATCH)
    return to_native(probs, cut.grid)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
@pytest.mark.parametrize(
    "options", [{}, {"fit": "resize"}, {"spacing": 1.3}, {"fit": "crop", "size": (9, 7)}]
)
def test_labels_are_those_of_the_whole_probabilities(plane, options):
    volumes = [
        volume(shape, axcodes, seed)
        for seed, (shape, axcodes) in enumerate(
            itertools.product([(17, 13, 6), (5, 8, 11)], ["RAS", "LPS", "SLP", "AIL"])
        )
    ]
    volumes.append(volume((40, 12, 3)))  # exceeds the size
    parts = parts_of(5, slices(plane=plane, **options))
    found = list(segment(parts, None, volumes, stored=False))
    asked = segment(parts, None, volumes, stored=False, probabilities=True)
    assert len(found) == len(volumes)
    for (one, none), (again, soft), given in zip(found, asked, volumes, strict=True):
        expected = whole(parts, given)
        assert none is None and np.array_equal(one, again)
        assert one.dtype == np.uint8 and one.shape == given.image.shape[:3]
        np.testing.assert_array_equal(soft, expected)
        np.testing.assert_array_equal(one, most_probable(expected))
        assert len(np.unique(one)) > 1


def peak(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_that_of_a_few_slices_however_many_there_are():
    """Ninety slices of 64 × 64 at 30 classes are 44 MB of probabilities."""
    classes = 30
    parts = parts_of(classes, slices(size=(32, 32), fit="resize"))
    few, many = volume((64, 64, 10)), volume((64, 64, 90))

    def label(given):
        return lambda: next(segment(parts, None, [given], stored=False))

    label(few)()  # what is imported on the way
    per_slice = 64 * 64 * 4 * classes
    image = many.image.nbytes
    assert peak(label(many)) < image * 5 + per_slice * 10  # and all probabilities are 90
    assert peak(label(many)) - peak(label(few)) < 6 * image


def test_largest_component_is_of_the_labels_alone():
    parts, given = parts_of(4, slices()), volume((20, 17, 6))
    ((plain, probs),) = segment(parts, None, [given], stored=False, probabilities=True)
    ((labels, same),) = segment(
        parts, None, [given], stored=False, probabilities=True, largest_component=True
    )
    np.testing.assert_array_equal(labels, largest_components(plain))
    np.testing.assert_array_equal(probs, same)
    assert 0 < np.count_nonzero(labels) < np.count_nonzero(plain)
    ((again, highest),) = segment(
        parts, None, [given], stored=False, confidence=True, largest_component=True
    )
    np.testing.assert_array_equal(again, labels)
    np.testing.assert_array_equal(highest, np.where(labels == plain, probs.max(-1), np.nan))


def test_mirror_averages_four_predictions():
    """A network that also looks at where a pixel lies, which mirror images see elsewhere."""

    def predict(weights, images):
        _, h, w, _ = images.shape
        place = np.arange(h)[:, None] / h + np.arange(w) ** 2 / w**2
        first = 1 / (1 + np.exp(-images[..., 0] * place))
        return np.stack([first, 1 - first], -1).astype(np.float32)

    parts, given = parts_of(2, slices(intensity="minmax"), predict), volume((32, 32, 5))
    ((labels, probs),) = segment(
        parts, None, [given], stored=False, probabilities=True, mirror=True
    )
    expected = 0
    for axes in ((), (0,), (1,), (0, 1)):
        turned = given._replace(image=np.flip(given.image, axes))
        ((_, one),) = segment(parts, None, [turned], stored=False, probabilities=True)
        expected = expected + np.flip(one, axes) / 4
    np.testing.assert_allclose(probs, expected, atol=1e-6)
    np.testing.assert_array_equal(labels, probs.argmax(-1))
    assert np.abs(probs - one).max() > 0.1
