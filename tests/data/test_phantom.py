"""The phantom: the same seed the same bytes, two nested classes, quick, and through TFDS."""

import time

import numpy as np
import pytest

from mijax.data import open_source
from mijax.data.sources.phantom import phantom_volume
from mijax.errors import UserError

SHAPE = (64, 64, 12)


def test_same_seed_same_bytes():
    first, again = phantom_volume(3, 5, SHAPE), phantom_volume(3, 5, SHAPE)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, again, strict=True))


def test_seed_and_index_both_matter():
    images = [phantom_volume(seed, index, SHAPE)[0] for seed in (0, 1) for index in (0, 1)]
    assert len({image.tobytes() for image in images}) == 4


@pytest.mark.parametrize("index", range(24))
def test_what_a_volume_is(index):
    image, label, affine, spacing = phantom_volume(0, index, SHAPE)
    assert image.shape == (*SHAPE, 1) and image.dtype == np.float32 and np.isfinite(image).all()
    assert label.shape == SHAPE and label.dtype == np.uint8
    assert set(np.unique(label)) == {0, 1, 2}
    np.testing.assert_array_equal(np.linalg.norm(affine[:3, :3], axis=0), spacing)
    np.testing.assert_array_equal(spacing, (1, 1, 4))
    core = label == 2
    for axis in (0, 1):  # the core never touches the background within a slice
        for step in (1, -1):
            assert not np.any(core & (np.roll(label, step, axis) == 0))
    border = np.concatenate([label[[0, -1]].ravel(), label[:, [0, -1]].ravel()])
    assert not border.any()


def test_quick():
    start = time.perf_counter()
    for index in range(10):
        phantom_volume(0, index, SHAPE)
    assert time.perf_counter() - start < 2  # 20 ms each, with room for a busy machine


def test_source(tmp_path):
    options = {"seed": 2, "patients": 3, "shape": (32, 24, 6)}
    source = open_source("phantom", directory="", cache=str(tmp_path), **options)
    assert source.classes == ("background", "body", "core")
    assert [case.labelled for case in source.cases] == [True] * 3
    assert len({case.patient for case in source.cases}) == 3
    image, label, affine, _ = phantom_volume(2, 1, (32, 24, 6))
    volume = source.volume(source.cases[1].name)
    np.testing.assert_array_equal(volume.image, image)
    np.testing.assert_array_equal(volume.label, label)
    np.testing.assert_array_equal(volume.affine, affine)
    other = open_source("phantom", directory="", cache=str(tmp_path), **options | {"seed": 3})
    assert not np.array_equal(other.volume(source.cases[1].name).image, image)


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"patients": 0}, {"shape": (64, 64)}, {"shape": (64, 64, 2)}]
)
def test_refused(tmp_path, options):
    with pytest.raises(UserError, match="data.source."):
        open_source(
            "phantom", directory="", cache=str(tmp_path), **{"seed": 0, "patients": 8} | options
        )
