"""Sources: both layouts, several channels, caching, real volumes, and independence of JAX."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from folders import (
    AFFINE,
    SHAPE,
    image_values,
    label_values,
    write_description,
    write_msd,
    write_nifti,
    write_nnunet,
)

from mijax.data import Case, index, open_source, prepare
from mijax.errors import UserError

SHARED = Path(__file__).parents[2].parent / "shared" / "data"


def open_at(tmp_path, root, name="folder", **options):
    return open_source(name, directory=str(root), cache=str(tmp_path / "cache"), **options)


def test_msd_layout(tmp_path):
    source = open_at(tmp_path, write_msd(tmp_path / "set"))
    assert source.classes == ("background", "a", "b")
    assert source.channels == 1
    assert source.cases == (
        Case("case_00", "case_00", True),
        Case("case_01", "case_01", True),
        Case("case_02", "case_02", False),
        Case("test_0", "test_0", False),
    )
    volume = source.volume("case_01")
    np.testing.assert_array_equal(volume.image, image_values(1)[..., None])
    np.testing.assert_array_equal(volume.label, label_values(1))
    assert volume.image.dtype == np.float32 and volume.label.dtype == np.uint8
    np.testing.assert_array_equal(volume.affine, AFFINE)
    assert volume.affine.dtype == np.float64
    np.testing.assert_allclose(volume.spacing, (1, 1.5, 3))
    assert source.volume("case_02").label is None
    np.testing.assert_array_equal(source.volume("test_0").image, image_values(50)[..., None])
    with pytest.raises(UserError, match="no case nobody"):
        source.volume("nobody")


def test_cases_and_headers_are_there_before_any_voxel_is_read(tmp_path):
    root, cache = write_msd(tmp_path / "set"), str(tmp_path / "cache")
    found = index("msd", directory=str(root), cache=cache)
    assert len(found.cases) == 4 and found.geometry("case_02").shape == (6, 5, 4)
    assert not (tmp_path / "cache").exists()
    assert prepare(found, cache=cache).cases == found.cases


def test_test_images_can_be_left_out(tmp_path):
    source = open_at(tmp_path, write_msd(tmp_path / "set"), test_images=False)
    assert [case.name for case in source.cases] == ["case_00", "case_01", "case_02"]


def test_spleen_takes_a_folder_and_leaves_its_test_images(tmp_path):
    source = open_at(tmp_path, write_msd(tmp_path / "set"), "spleen")
    assert len(source.cases) == 3


def test_msd_channels_are_the_last_axis(tmp_path):
    root = write_msd(tmp_path / "set", labelled=1, unlabelled=0, tests=0)
    write_description(root, modality={"0": "T2", "1": "ADC"}, labels={"0": "background", "1": "p"})
    both = image_values(3, (*SHAPE, 2))
    write_nifti(root / "imagesTr" / "case_00.nii.gz", both)
    write_nifti(root / "labelsTr" / "case_00.nii.gz", (label_values(0) > 0).astype(np.float32))
    source = open_at(tmp_path, root)
    assert source.channels == 2
    np.testing.assert_array_equal(source.volume("case_00").image, both)
    np.testing.assert_array_equal(source.volume("case_00").label, label_values(0) > 0)


def test_uncompressed_and_scaled_integers(tmp_path):
    root = write_msd(tmp_path / "set", labelled=1, unlabelled=0, tests=0)
    write_nifti(root / "imagesTr" / "plain.nii", image_values(4).astype(np.int16))
    source = open_at(tmp_path, root)
    np.testing.assert_array_equal(
        source.volume("plain").image[..., 0], image_values(4).astype(np.int16)
    )


def test_nnunet_layout_stacks_channels(tmp_path):
    source = open_at(tmp_path, write_nnunet(tmp_path / "set"))
    assert source.classes == ("background", "a", "b")
    assert source.channels == 2
    assert [case.name for case in source.cases] == ["c0", "c1"]
    volume = source.volume("c1")
    np.testing.assert_array_equal(volume.image[..., 0], image_values(1))
    np.testing.assert_array_equal(volume.image[..., 1], image_values(11))
    np.testing.assert_array_equal(volume.label, label_values(1))


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_nnunet_other_endings_have_nibabels_geometry(tmp_path, ending):
    """SimpleITK writes the same object as NIfTI and as another format; both read the same."""
    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)  # (z, y, x)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.75, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    cos, sin = np.cos(0.3), np.sin(0.3)
    image.SetDirection((cos, -sin, 0, sin, cos, 0, 0, 0, 1))
    volumes = []
    for file_ending in (".nii.gz", ending):
        root = tmp_path / file_ending
        write_description(
            root, channel_names={"0": "T1"}, labels={"background": 0, "a": 1},
            file_ending=file_ending,
        )  # fmt: skip
        (root / "imagesTr").mkdir()
        sitk.WriteImage(image, str(root / "imagesTr" / f"c_0000{file_ending}"))
        volumes.append(open_at(tmp_path, root).volume("c"))
    assert volumes[0].image.shape == (4, 3, 2, 1)
    np.testing.assert_array_equal(volumes[0].image, volumes[1].image)
    np.testing.assert_allclose(volumes[0].affine, volumes[1].affine, atol=1e-4)


def test_patient_pattern(tmp_path):
    root = write_msd(tmp_path / "set", labelled=2, unlabelled=0, tests=0)
    source = open_at(tmp_path, root, patient_pattern=r"(case)_\d+")
    assert {case.patient for case in source.cases} == {"case"}
    source = open_at(tmp_path, root, patient_pattern=r"_\d+")
    assert [case.patient for case in source.cases] == ["_00", "_01"]
    with pytest.raises(UserError, match="finds no patient in case case_00"):
        open_at(tmp_path, root, patient_pattern=r"^(P\d+)")
    with pytest.raises(UserError, match="patient_pattern"):
        open_at(tmp_path, root, patient_pattern="(")


def test_names_meet_in_whatever_unicode_form_they_are(tmp_path):
    """ä as one character, and as a and ¨, as a Mac writes it."""
    root = write_msd(tmp_path / "set", labelled=0, unlabelled=1, tests=0)
    write_nifti(root / "imagesTr" / "Sch\u00e4del.nii.gz", image_values(0))
    write_nifti(root / "labelsTr" / "Scha\u0308del.nii.gz", label_values(0))
    source = open_at(tmp_path, root, patient_pattern="^case|a\u0308")
    assert source.cases[0] == Case("Sch\u00e4del", "\u00e4", True)
    np.testing.assert_array_equal(source.volume("Sch\u00e4del").label, label_values(0))
    write_nifti(root / "imagesTr" / "Scha\u0308del.nii.gz", image_values(0))
    with pytest.raises(UserError, match=r"Sch\u00e4del is there twice, also as 'Scha\\u0308del"):
        open_at(tmp_path, root)


def records(tmp_path):
    return {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*array_record*")}


def test_second_open_reads_what_the_first_wrote(tmp_path):
    root = write_msd(tmp_path / "set")
    open_at(tmp_path, root)
    first = records(tmp_path)
    again = open_at(tmp_path, root)
    assert records(tmp_path) == first and len(first) == 4
    np.testing.assert_array_equal(again.volume("case_00").label, label_values(0))


def test_progress_is_told_calmly(tmp_path, monkeypatch, told):
    """A volume takes four seconds here, and a line comes every ten."""
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr("mijax.progress.time.monotonic", lambda: next(clock))
    open_at(tmp_path, write_msd(tmp_path / "set", labelled=6))
    assert told == [
        "preparing msd: 8 volumes", "preparing msd: 4 of 8", "preparing msd: 7 of 8",
    ]  # fmt: skip


def test_changed_folder_is_prepared_anew(tmp_path):
    root = write_msd(tmp_path / "set")
    open_at(tmp_path, root)
    write_nifti(root / "labelsTr" / "case_02.nii.gz", label_values(2))
    source = open_at(tmp_path, root)
    np.testing.assert_array_equal(source.volume("case_02").label, label_values(2))
    path = root / "labelsTr" / "case_01.nii.gz"
    write_nifti(path, label_values(9))
    os.utime(path, ns=(1, 1))
    np.testing.assert_array_equal(open_at(tmp_path, root).volume("case_01").label, label_values(9))


def test_failed_preparation_leaves_nothing_behind(tmp_path):
    root = write_msd(tmp_path / "set")
    path = root / "imagesTr" / "case_01.nii.gz"
    whole, stat = path.read_bytes(), path.stat()
    path.write_bytes(b"x" * len(whole))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # the very same fingerprint
    with pytest.raises(UserError, match="case_01.nii.gz"):
        open_at(tmp_path, root)
    assert not records(tmp_path)
    path.write_bytes(whole)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert open_at(tmp_path, root).volume("case_01").label is not None


def test_what_a_kill_left_of_a_preparation_goes(tmp_path):
    root = write_msd(tmp_path / "set")
    open_at(tmp_path, root)
    folder = records(tmp_path).popitem()[0].parent
    shutil.rmtree(folder)
    old, new = (folder.with_name(f"incomplete.{name}_{folder.name}") for name in ("old", "new"))
    for left in (old, new):
        left.mkdir()
    os.utime(old, ns=(1, 1))
    open_at(tmp_path, root)
    assert new.exists() and not old.exists()  # another process may be at the new one


def test_damaged_cache_is_told(tmp_path):
    source = open_at(tmp_path, write_msd(tmp_path / "set"))
    for path in records(tmp_path):
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="damaged; delete this folder"):
        source.volume("case_00")


def test_needs_neither_jax_nor_tensorflow(tmp_path):
    root = write_msd(tmp_path / "set", labelled=1, unlabelled=0, tests=0)
    code = (
        "import sys, mijax.data as data\n"
        "assert 'tensorflow_datasets' not in sys.modules\n"
        f"data.open_source('msd', directory={str(root)!r}, cache={str(tmp_path / 'cache')!r})\n"
        "print([m for m in ('jax', 'flax', 'tensorflow') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == "[]\n"
    assert result.stderr == ""


@pytest.mark.skipif(not (SHARED / "Task04_Hippocampus").is_dir(), reason="no real volumes here")
def test_real_hippocampus(tmp_path):
    source = open_at(tmp_path, SHARED / "Task04_Hippocampus", "msd")
    assert len(source.cases) == 200 and all(case.labelled for case in source.cases)
    assert source.classes == ("background", "Anterior", "Posterior")
    for case in source.cases:
        volume = source.volume(case.name)
        assert volume.name == case.name
        assert set(np.unique(volume.label)) == {0, 1, 2}
        assert np.isfinite(volume.image).all() and volume.image.shape[:3] == volume.label.shape
        np.testing.assert_allclose(volume.spacing, 1)


@pytest.mark.skipif(not (SHARED / "Task09_Spleen_crop").is_dir(), reason="no real volumes here")
def test_real_spleen_crop(tmp_path):
    source = open_at(tmp_path, SHARED / "Task09_Spleen_crop", "spleen")
    assert [case.name for case in source.cases] == ["spleen_2"]
    volume = source.volume("spleen_2")
    assert volume.image.shape == (164, 166, 26, 1)
    np.testing.assert_allclose(volume.spacing, (0.79492, 0.79492, 5), atol=1e-4)
    assert set(np.unique(volume.label)) == {0, 1}
