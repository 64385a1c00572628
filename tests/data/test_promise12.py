"""PROMISE12 in its exact layout: parts, compression, test set, and every way it can be wrong."""

import zlib

import nibabel as nib
import numpy as np
import pytest
from folders import (
    ACDC_SHAPE,
    promise12_image,
    promise12_label,
    write_metaimage,
    write_promise12,
)

from mijax.data import Case, draw_splits, open_source
from mijax.errors import UserError


def open_promise12(tmp_path, root, **options):
    return open_source("promise12", directory=str(root), cache=str(tmp_path / "cache"), **options)


def refused(tmp_path, root, capfd, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_promise12(tmp_path, root, **options)
    assert "\n" not in str(caught.value)
    assert "MetaImage" not in capfd.readouterr().err  # of SimpleITK itself
    return str(caught.value)


@pytest.fixture
def promise12(tmp_path):
    return write_promise12(tmp_path / "set")


def test_parts_raw_and_compressed(tmp_path, promise12):
    source = open_promise12(tmp_path, promise12)
    assert source.classes == ("background", "prostate") and source.channels == 1
    assert source.cases == tuple(Case(f"Case0{n}", f"Case0{n}", True) for n in range(3))
    for number in range(3):
        volume = source.volume(f"Case0{number}")
        np.testing.assert_array_equal(volume.image[..., 0], promise12_image(number))
        np.testing.assert_array_equal(volume.label, promise12_label(number))
        np.testing.assert_allclose(volume.spacing, (0.625, 0.625, 3.6), rtol=1e-6)
        assert "".join(nib.aff2axcodes(volume.affine)) == "LPS"
        np.testing.assert_allclose(volume.affine[:3, 3], (80.5, 70, 12.25))


@pytest.mark.parametrize("folder", ["", "training_data", "train/TrainingData_Part1"])
def test_where_cases_may_lie(tmp_path, folder):
    write_metaimage(tmp_path / "set" / folder / "Case07.mhd", promise12_image(7))
    cases = open_promise12(tmp_path, tmp_path / "set").cases
    assert cases == (Case("Case07", "Case07", False),)


def test_test_set_on_request(tmp_path, promise12):
    """It has a Case00 of its own, of another patient."""
    source = open_promise12(tmp_path, promise12, testing=True)
    assert len(source.cases) == 4
    assert source.cases[3] == Case("TestData_Case00", "TestData_Case00", False)
    volume = source.volume("TestData_Case00")
    np.testing.assert_array_equal(volume.image[..., 0], promise12_image(50))
    assert volume.label is None
    for path in (promise12 / "TestData").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="no folder TestData"):
        open_promise12(tmp_path, promise12, testing=True)


def test_splits(tmp_path):
    source = open_promise12(tmp_path, write_promise12(tmp_path / "set", cases=5), testing=True)
    splits = draw_splits(source.cases, labelled=2, validation=2, test=0, seed=0)
    assert [len(names) for names in splits] == [2, 2, 2, 0]
    assert "TestData_Case00" in splits.unlabelled


def test_changed_voxels_are_prepared_anew(tmp_path, promise12):
    open_promise12(tmp_path, promise12)
    header = promise12 / "TrainingData_Part1" / "Case00.mhd"
    before = header.read_bytes()
    write_metaimage(header, promise12_image(33))
    assert header.read_bytes() == before
    volume = open_promise12(tmp_path, promise12).volume("Case00")
    np.testing.assert_array_equal(volume.image[..., 0], promise12_image(33))


def test_missing_data_say_where_to_register(tmp_path, capfd):
    (tmp_path / "empty").mkdir()
    for root, start in (("", "no PROMISE12 folder given"), (tmp_path / "nowhere", "no such folder"),
                        (tmp_path / "empty", "no Case00.mhd")):  # fmt: skip
        message = refused(tmp_path, root, capfd)
        assert start in message
        assert "https://promise12.grand-challenge.org/" in message
        assert "https://zenodo.org/records/8026660" in message
        assert (
            "--config.data.source.dir=FOLDER, the folder that holds Case00.mhd, Case00.raw"
            in message
        )


@pytest.mark.parametrize("name", ["Case01.zraw", "Case01_segmentation.zraw"])
def test_header_without_its_voxels(tmp_path, promise12, capfd, name):
    (promise12 / "TrainingData_Part2" / name).unlink()
    message = refused(tmp_path, promise12, capfd)
    assert f"the file of its voxels, {name}, is missing" in message


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "flipped", "other"])
def test_damaged_compressed_voxels(tmp_path, promise12, capfd, damage, announced):
    """SimpleITK alone returns noise for most of these."""
    path = promise12 / "TrainingData_Part2" / "Case01.mhd"
    write_metaimage(path, promise12_image(1), compressed=True, announced=announced)
    voxels = path.with_suffix(".zraw")
    whole = voxels.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    damaged = {"cut": whole[: len(whole) // 2], "text": b"hello" * 100, "empty": b"",
               "flipped": flipped, "other": zlib.compress(bytes(10))}[damage]  # fmt: skip
    voxels.write_bytes(damaged)
    message = refused(tmp_path, promise12, capfd)
    expected = {"cut": "truncated", "empty": "truncated", "other": "10 bytes of voxels instead"}
    assert f"Case01.zraw: {expected.get(damage, 'damaged')}" in message
    assert message.endswith("copy it again")


@pytest.mark.parametrize("size", [0, 100, 500])
def test_raw_voxels_of_another_size(tmp_path, promise12, capfd, size):
    (promise12 / "TrainingData_Part1" / "Case00.raw").write_bytes(bytes(size))
    message = refused(tmp_path, promise12, capfd)
    assert f"Case00.raw: {size} bytes of voxels instead of 432" in message


def test_segmentation_that_does_not_fit(tmp_path, promise12, capfd):
    path = promise12 / "TrainingData_Part1" / "Case00_segmentation.mhd"
    write_metaimage(path, np.full(ACDC_SHAPE, 2, np.int8))
    assert "label value 2 is none of the 2 classes" in refused(tmp_path, promise12, capfd)
    write_metaimage(path, np.zeros((8, 9, 4), np.int8))
    assert "Case00_segmentation.mhd: shape (8, 9, 4)" in refused(tmp_path, promise12, capfd)
    write_metaimage(path, np.zeros(ACDC_SHAPE, np.int8))
    path.write_text(path.read_text().replace("Offset = -80.5", "Offset = -79.5"))
    message = refused(tmp_path, promise12, capfd)
    assert "affine differs from that of TrainingData_Part1/Case00.mhd by up to 1 mm" in message


def test_segmentation_without_image_or_case_there_twice(tmp_path, promise12, capfd):
    write_metaimage(promise12 / "Case00.mhd", promise12_image(0))
    message = refused(tmp_path, promise12, capfd)
    assert "TrainingData_Part1/Case00.mhd: case Case00 is there twice" in message
    (promise12 / "Case00.mhd").unlink()
    (promise12 / "TrainingData_Part1" / "Case00.mhd").unlink()
    message = refused(tmp_path, promise12, capfd)
    assert "Case00_segmentation.mhd: a segmentation without Case00.mhd" in message
