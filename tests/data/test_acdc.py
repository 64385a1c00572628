"""ACDC in its exact layout: frames, patients, options, and every way it can be wrong."""

import shutil

import nibabel as nib
import numpy as np
import pytest
from folders import (
    ACDC_INFO,
    ACDC_SHAPE,
    acdc_header,
    acdc_image,
    acdc_label,
    write_acdc,
    write_acdc_patient,
)

from mijax.data import Case, draw_splits, open_source
from mijax.errors import UserError


def open_acdc(tmp_path, root, **options):
    return open_source("acdc", directory=str(root), cache=str(tmp_path / "cache"), **options)


def refused(tmp_path, root, **options) -> str:
    with pytest.raises(UserError) as caught:
        open_acdc(tmp_path, root, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def acdc(tmp_path):
    return write_acdc(tmp_path / "set")


def test_two_scans_a_patient(tmp_path, acdc):
    source = open_acdc(tmp_path, acdc)
    assert source.classes == ("background", "RV", "Myo", "LV") and source.channels == 1
    assert source.cases == tuple(
        Case(f"{patient}_{frame}", patient, True)
        for patient in ("patient001", "patient002")
        for frame in ("frame01", "frame12")
    )
    for patient in (1, 2):  # without an sform and with one
        volume = source.volume(f"patient{patient:03d}_frame12")
        np.testing.assert_array_equal(volume.image[..., 0], acdc_image(patient, 12))
        np.testing.assert_array_equal(volume.label, acdc_label(patient, 12))
        np.testing.assert_allclose(volume.spacing, (1.5625, 1.5625, 10))
        assert "".join(nib.aff2axcodes(volume.affine)) == "LPS"
        np.testing.assert_allclose(volume.affine[:3, 3], (5, 6, -7), atol=1e-6)


@pytest.mark.parametrize("place", ["database", "training", "."])
def test_older_and_newer_hand_outs(tmp_path, acdc, place):
    if place == "database":
        (tmp_path / "above").mkdir()
        acdc.rename(tmp_path / "above" / "database")
        root = tmp_path / "above"
    elif place == "training":
        root = acdc / "training"
    else:  # all patients in one folder
        for folder in [*(acdc / "training").iterdir(), *(acdc / "testing").iterdir()]:
            folder.rename(acdc / folder.name)
        root = acdc
    assert len(open_acdc(tmp_path, root).cases) == 4


def test_testing_patients_on_request(tmp_path, acdc):
    write_acdc_patient(acdc / "testing" / "patient102", labelled=False)
    cases = open_acdc(tmp_path, acdc, testing=True).cases
    assert cases[4:] == (
        Case("patient101_frame01", "patient101", True),
        Case("patient101_frame14", "patient101", True),
        Case("patient102_frame01", "patient102", False),
        Case("patient102_frame12", "patient102", False),
    )
    shutil.rmtree(acdc / "testing")
    assert "no testing/patient101" in refused(tmp_path, acdc, testing=True)


def test_only_the_frames_of_info(tmp_path, acdc):
    folder = acdc / "training" / "patient001"
    other = folder / "patient001_frame07.nii.gz"
    shutil.copy(folder / "patient001_frame01.nii.gz", other)
    assert len(open_acdc(tmp_path, acdc).cases) == 4
    (folder / "Info.cfg").write_bytes(ACDC_INFO.format(1, 7).replace("\n", "\r\n").encode())
    frames = [case.name[-7:] for case in open_acdc(tmp_path, acdc).cases[:2]]
    assert frames == ["frame01", "frame07"]
    (folder / "Info.cfg").unlink()
    cases = open_acdc(tmp_path, acdc).cases
    assert [case.name[-7:] for case in cases[:3]] == ["frame01", "frame07", "frame12"]
    assert [case.labelled for case in cases[:3]] == [True, False, True]


def test_unpacked_files(tmp_path, acdc):
    folder = acdc / "training" / "patient002"
    for path in folder.glob("*frame*.nii.gz"):
        nib.save(nib.load(path), path.with_suffix(""))
        path.unlink()
    volume = open_acdc(tmp_path, acdc).volume("patient002_frame01")
    np.testing.assert_array_equal(volume.label, acdc_label(2, 1))


def test_splits_keep_patients_together(tmp_path):
    root = write_acdc(tmp_path / "set", patients=9, tests=1)
    source = open_acdc(tmp_path, root, testing=True)
    drawn = set()
    for seed in range(5):
        splits = draw_splits(source.cases, labelled=2, validation=3, test=1, seed=seed)
        assert [len(names) for names in splits] == [4, 8, 6, 2]
        patients = [{name[:10] for name in names} for names in splits]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 10
        drawn.add(splits)
    assert len(drawn) == 5


def test_missing_data_say_where_to_register(tmp_path):
    (tmp_path / "empty" / "training").mkdir(parents=True)
    for root, start in (("", "no ACDC folder given"), (tmp_path / "nowhere", "no such folder"),
                        (tmp_path / "empty", "no patient001")):  # fmt: skip
        message = refused(tmp_path, root)
        assert start in message
        assert "https://www.creatis.insa-lyon.fr/Challenge/acdc/" in message
        assert "https://humanheart-project.creatis.insa-lyon.fr/database/" in message
        assert (
            "--config.data.source.dir=FOLDER, the folder that holds training/patient001" in message
        )


@pytest.mark.parametrize("damage", ["ED: 1\n", "ED: one\nES: 12\n", "", "ED 1\nES 12\n"])
def test_info_without_its_frames(tmp_path, acdc, damage):
    (acdc / "training" / "patient001" / "Info.cfg").write_text(damage)
    message = refused(tmp_path, acdc)
    assert "patient001/Info.cfg: no line" in message and "NUMBER" in message


def test_info_names_a_frame_that_is_not_there(tmp_path, acdc):
    folder = acdc / "training" / "patient001"
    (folder / "Info.cfg").write_text(ACDC_INFO.format(1, 13))
    message = refused(tmp_path, acdc)
    assert "Info.cfg: ES is frame 13, but patient001_frame13.nii.gz is not there" in message
    for path in folder.glob("*frame*"):
        path.unlink()
    assert "patient001: no patient001_frame01.nii.gz or the like" in refused(tmp_path, acdc)


def test_a_patient_is_there_twice(tmp_path, acdc):
    shutil.copytree(acdc / "training" / "patient002", acdc / "patient002")
    message = refused(tmp_path, acdc)
    assert "training/patient002: is there twice, also as" in message


def save(path, values, header=None):
    header = header or acdc_header(values.shape, values.dtype, sform=False)
    nib.save(nib.Nifti1Image(values, None, header), path)


def test_an_image_that_is_there_twice(tmp_path, acdc):
    path = acdc / "training" / "patient001" / "patient001_frame12_gt.nii"
    save(path, np.zeros(ACDC_SHAPE, np.uint8))
    assert "patient001_frame12_gt is there twice, patient001" in refused(tmp_path, acdc)


def test_ground_truth_that_does_not_fit(tmp_path, acdc):
    path = acdc / "training" / "patient001" / "patient001_frame12_gt.nii.gz"
    save(path, np.zeros((*ACDC_SHAPE[:2], 4), np.uint8))
    message = refused(tmp_path, acdc)
    assert "patient001_frame12_gt.nii.gz: shape (8, 9, 4)" in message and "(8, 9, 3)" in message
    save(path, np.full(ACDC_SHAPE, 4, np.uint8))
    message = refused(tmp_path, acdc)
    assert "patient001_frame12_gt.nii.gz: label value 4 is none of the 4 classes" in message
    header = acdc_header(ACDC_SHAPE, np.uint8, sform=False)
    header["qoffset_x"] += 2
    save(path, np.zeros(ACDC_SHAPE, np.uint8), header)
    assert "affine differs from that of patient001/patient001" in refused(tmp_path, acdc)
    header["qoffset_x"] -= 2 - 1e-5  # rounding of another program
    save(path, np.zeros(ACDC_SHAPE, np.uint8), header)
    assert len(open_acdc(tmp_path, acdc).cases) == 4
