"""Training slices that stream from the host: the batches, and so the run, of a resident set."""

import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mijax import parallel
from mijax.errors import UserError
from mijax.methods import Unlabelled
from mijax.runs.folder import start_run
from mijax.training import train
from mijax.training.batches import UNCROPPED, Cropping, PerRole, TrainingSet, pick, take
from mijax.training.feed import fits, stream
from mijax.training.ragged import arrays_of, packed
from mijax.training.training_set import foreground_places

BATCHES = PerRole(3, 5, 2)


def training_set(*, labelled=True, unlabelled=True, held_out=True):
    draw = np.random.default_rng(0)
    image, label = draw.random((7, 4, 4, 1), np.float32), draw.integers(3, size=(7, 4, 4))
    others = draw.random((11, 4, 4, 1), np.float32)
    return TrainingSet(
        *((image, label) if labelled else (None, None)),
        Unlabelled(others, np.linspace(0, 1, 11, dtype=np.float32), np.arange(11))
        if unlabelled
        else None,
        (image + 1, label) if held_out else None,
    )


@pytest.mark.parametrize(
    "left_out", [{}, {"labelled": False}, {"unlabelled": False, "held_out": False}]
)
def test_the_batches_of_a_resident_set(left_out):
    check_stream(training_set(**left_out), batches=BATCHES)


def test_the_patches_of_resident_volumes():
    draw = np.random.default_rng(0)
    shapes = [(4, 9, 9), (5, 8, 11), (4, 12, 7)]
    image, others = (packed(
        [draw.random((*shape, 1), np.float32) for shape in shapes[:n]], box=(4, 8, 8)
    ) for n in (2, 3))  # fmt: skip
    label = packed([draw.integers(3, size=s).astype(np.uint8) for s in shapes[:2]], box=(4, 8, 8))
    unlabelled = Unlabelled(others, np.zeros(3, np.float32), np.arange(3))
    places = foreground_places(arrays_of(label), 3, seed=0)
    check_stream(
        TrainingSet(image, label, unlabelled, None, places),
        batches=PerRole(3, 5, None),
        cropping=Cropping((3, 6, 6), (4, 8, 8), 0.5),
    )


def check_stream(slices, *, batches, cropping=UNCROPPED):
    key = np.array([1, 2], np.uint32)
    dispatches = [(4, 1), (5, 3), (8, 2)]
    picks_of = jax.jit(lambda step: pick(key, step, slices, batches, cropping))
    options = {"mesh": parallel.make_mesh(), "batches": batches, "cropping": cropping}
    found = list(stream(slices, key, dispatches, **options))
    assert len(found) == len(dispatches)
    for (start, length), taken in zip(dispatches, found, strict=True):
        for i in range(length):
            picks = jax.device_get(picks_of(start + i))
            wanted = take(slices, picks, cropping), picks
            jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), taken, wanted)


def test_the_same_run(tiny, uninterrupted, restored, tmp_path):
    config = tiny("local_contrast", stream=True)  # whose pseudo-labels go by index
    streamed = jax.device_get(train(start_run(tmp_path, config)))
    _, resident = restored(uninterrupted("local_contrast"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), streamed, resident)


def test_what_fits():
    size = sum(x.nbytes for x in jax.tree.leaves(training_set()))

    def device(limit):
        return SimpleNamespace(memory_stats=lambda: {"bytes_limit": limit})

    assert fits(training_set(), device(3 * size)) and not fits(training_set(), device(2 * size))
    assert fits(training_set(), SimpleNamespace(memory_stats=lambda: None))


def test_without_grain(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    with pytest.raises(UserError, match=r"needs grain, .*pip install"):
        next(stream(training_set(), None, [], mesh=None, batches=BATCHES))
