"""Every bad folder or file gives one line that names it."""

import gzip

import nibabel as nib
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

from mijax.data import open_source
from mijax.data.formats.imagefile import read_image
from mijax.errors import UserError


def refused(tmp_path, root, *, name="folder", **options) -> str:
    with pytest.raises(UserError) as caught:
        open_source(name, directory=str(root), cache=str(tmp_path / "cache"), **options)
    message = str(caught.value)
    assert "\n" not in message
    assert not list((tmp_path / "cache").rglob("dataset_info.json"))
    return message


@pytest.fixture
def msd(tmp_path):
    return write_msd(tmp_path / "set")


@pytest.fixture
def nnunet(tmp_path):
    return write_nnunet(tmp_path / "set")


IMAGE = "imagesTr/case_01.nii.gz"
LABEL = "labelsTr/case_01.nii.gz"


def test_unknown_source_or_option(tmp_path, msd):
    assert "phantom" in refused(tmp_path, msd, name="acdcc")
    assert "'patients'" in refused(tmp_path, msd, name="msd", patients=3)


@pytest.mark.parametrize("name", ["msd", "nnunet", "folder", "spleen", "acdc", "promise12"])
def test_missing_folder(tmp_path, name):
    message = refused(tmp_path, tmp_path / "nowhere", name=name)
    assert "nowhere: no such folder" in message and "--config.data.source.dir" in message


def test_no_folder_given(tmp_path):
    assert "--config.data.source.dir" in refused(tmp_path, "", name="msd")


def test_description_missing_or_unreadable(tmp_path, msd):
    description = msd / "dataset.json"
    for text, expected in (
        ("{", "not JSON"),
        ("[]", "one JSON object"),
        ("{}", "neither"),
        ('{"modality": {}}', '"modality"'),
        ('{"modality": {"0": "CT"}}', '"labels"'),
    ):
        description.write_text(text)
        message = refused(tmp_path, msd)
        assert "dataset.json" in message and expected in message
    description.unlink()
    assert "dataset.json: missing" in refused(tmp_path, msd)


@pytest.mark.parametrize(
    "values", [("0", "2"), ("1", "2"), ("0", "a"), ("0", "1.5"), ("0",), ("0", "00")]
)
def test_label_values_without_gaps(tmp_path, msd, values):
    labels = {value: f"class {value}" for value in values}
    write_description(msd, modality={"0": "CT"}, labels=labels)
    assert "label values must be 0" in refused(tmp_path, msd)


def test_no_class_is_called_as_the_mean_over_them(tmp_path, msd):
    write_description(msd, modality={"0": "CT"}, labels={"0": "background", "1": "mean"})
    assert 'a class is called "mean", as tables' in refused(tmp_path, msd)


def test_no_images(tmp_path, msd):
    for path in (msd / "imagesTr").iterdir():
        path.unlink()
    assert "imagesTr: no images" in refused(tmp_path, msd)
    (msd / "imagesTr").rmdir()
    assert "imagesTr: no images" in refused(tmp_path, msd)


@pytest.mark.parametrize("path", [IMAGE, LABEL, "imagesTs/test_0.nii.gz"])
@pytest.mark.parametrize("damage", ["cut", "text", "empty", "not gzip"])
def test_truncated_or_not_nifti(tmp_path, msd, path, damage):
    content = (msd / path).read_bytes()
    nifti = nib.Nifti1Image(image_values(0), AFFINE).to_bytes()
    damaged = {"cut": content[: len(content) // 2], "text": b"hello", "empty": b"",
               "not gzip": nifti}  # fmt: skip
    (msd / path).write_bytes(damaged[damage])
    message = refused(tmp_path, msd)
    assert path in message and "truncated or not NIfTI" in message


def test_truncated_uncompressed(tmp_path, msd):
    path = msd / "imagesTr" / "plain.nii"
    path.write_bytes(nib.Nifti1Image(image_values(0), AFFINE).to_bytes()[:-50])
    assert "plain.nii: truncated" in refused(tmp_path, msd)


@pytest.mark.parametrize("kind", ["header", "voxels"])
def test_all_bad_files_are_told_of_at_once(tmp_path, told, kind):
    root = write_msd(tmp_path / "set", labelled=30)

    def spoil(path):
        if kind == "header":
            path.write_bytes(b"hello")
        else:
            write_nifti(path, np.full(SHAPE, np.nan))

    bad = ["imagesTr/case_03.nii.gz", "labelsTr/case_07.nii.gz", "imagesTs/test_0.nii.gz"]
    for path in bad:
        spoil(root / path)
    message = refused(tmp_path, root)
    assert message.startswith("3 of 32 cases cannot be used, for the reasons above; repair")
    assert ("preparing msd: 32 volumes" in told) == (kind == "voxels")
    assert [line.split(": ")[0] for line in told[-3:]] == [f"{root}/{path}" for path in bad]
    for path in sorted((root / "imagesTr").glob("c*")):
        spoil(path)
    told.clear()
    assert refused(tmp_path, root).startswith("at least 20 of 32 cases cannot be used")
    assert len(told) == 20 + (kind == "voxels")


def test_headers_are_judged_before_any_voxel_is_read(tmp_path, msd, monkeypatch):
    """All that they show: shape, channels, a grid of the label that is another, more than 1 GiB."""
    monkeypatch.setattr("mijax.data.sources.folder.read_image", lambda path: pytest.fail("voxels"))
    write_nifti(msd / LABEL, label_values(0, (6, 5, 3)))
    assert f"{LABEL}: shape (6, 5, 3)" in refused(tmp_path, msd)
    write_nifti(msd / LABEL, label_values(0, (6, 5)))
    assert f"{LABEL}: shape (6, 5)" in refused(tmp_path, msd)
    write_nifti(msd / LABEL, label_values(0))
    write_nifti(msd / IMAGE, image_values(0, (*SHAPE, 2)))
    assert f"{IMAGE}: 2 channels; 1 needed" in refused(tmp_path, msd)
    header = nib.Nifti1Header()
    header.set_data_shape((1024, 1024, 256))
    (msd / IMAGE).write_bytes(gzip.compress(header.binaryblock))
    (msd / LABEL).unlink()
    assert "case case_01 takes 1.2 GiB, more than a record" in refused(tmp_path, msd)


def test_different_shapes(tmp_path, msd):
    write_nifti(msd / LABEL, label_values(0, (6, 5, 3)))
    message = refused(tmp_path, msd)
    assert LABEL in message and "(6, 5, 3)" in message and str(SHAPE) in message


def test_different_affines(tmp_path, msd):
    moved = AFFINE.copy()
    moved[0, 3] += 0.5e-3
    write_nifti(msd / "labelsTr/case_00.nii.gz", label_values(0), moved)  # rounding: accepted
    moved[0, 3] += 1
    write_nifti(msd / LABEL, label_values(0), moved)
    message = refused(tmp_path, msd)
    assert f"{LABEL}: affine differs from that of {IMAGE} by up to 1 mm" in message


@pytest.mark.parametrize("value", [3, -1, 1.5, np.nan])
def test_label_value_outside_the_classes(tmp_path, msd, value):
    values = label_values(0).astype(np.float32)
    values[1, 2, 3] = value
    write_nifti(msd / LABEL, values)
    message = refused(tmp_path, msd)
    assert LABEL in message and f"label value {value}" in message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_not_finite(tmp_path, msd, value):
    values = image_values(0).astype(np.float64)
    values[0, 0, 0] = value
    write_nifti(msd / IMAGE, values)
    message = refused(tmp_path, msd)
    assert IMAGE in message and "NaN or infinite, as float32, in 1 voxel;" in message


def test_singular_affine(tmp_path, msd):
    image = nib.Nifti1Image(image_values(0), None)
    image.header.set_sform(np.diag([1.0, 1.0, 0.0, 1.0]), code=1)
    nib.save(image, msd / IMAGE)
    message = refused(tmp_path, msd)
    assert IMAGE in message and "singular affine" in message


def test_wrong_number_of_axes_channels_or_kind_of_voxel(tmp_path, msd):
    write_nifti(msd / IMAGE, image_values(0, (*SHAPE, 2)))
    assert "2 channels; 1 needed" in refused(tmp_path, msd)
    write_nifti(msd / IMAGE, image_values(0, (6, 5)))
    assert "shape (6, 5)" in refused(tmp_path, msd)
    write_nifti(msd / IMAGE, np.ones(SHAPE, np.complex64))
    assert "complex64" in refused(tmp_path, msd)


def test_nnunet_channels(tmp_path, nnunet, told):
    write_nifti(nnunet / "imagesTr" / "c1_0001.nii.gz", image_values(0, (6, 5, 3)))
    assert "c1_0001.nii.gz: shape" in refused(tmp_path, nnunet)
    write_nifti(nnunet / "imagesTr" / "c1_0001.nii.gz", image_values(0), np.eye(4))
    assert "c1_0001.nii.gz: affine differs" in refused(tmp_path, nnunet)
    (nnunet / "imagesTr" / "c1_0001.nii.gz").unlink()
    assert "case c1 has channels 0000; 2 are needed" in refused(tmp_path, nnunet)
    write_nifti(nnunet / "imagesTr" / "other.nii.gz", image_values(0))
    assert "2 of 3 cases cannot be used" in refused(tmp_path, nnunet)
    assert "other.nii.gz: nnU-Net images are named" in told[-1]


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"background": 0, "whole": [1, 2], "core": 2}, "region"),
        ({f"c{n}": n for n in range(256)}, "255 classes at most"),
        ({"background": 0, "a": 2, "ignore": 1}, "without gaps"),
        ({"background": 0, "a": 1, "ignore": 1}, '"ignore" must have the highest value'),
        ({"background": 0, "a": 1, "ignore": [2]}, "region"),
        ({"background": 0, "a": 1, "ignore": "b"}, '"ignore" must have the highest value'),
        ({"background": 0, "a": 2}, "without gaps"),
    ],
)
def test_nnunet_labels(tmp_path, nnunet, labels, expected):
    write_description(nnunet, channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    assert expected in refused(tmp_path, nnunet)


def test_nnunet_file_ending(tmp_path, nnunet):
    description = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}}
    write_description(nnunet, **description)
    assert "file_ending" in refused(tmp_path, nnunet)
    for ending in (".tif", ".hdr", ".png"):  # which SimpleITK reads, whole or not
        write_description(nnunet, **description, file_ending=ending)
        assert f'"file_ending" {ending} is of a format that is not read; convert' in refused(
            tmp_path, nnunet
        )


def test_a_file_that_simpleitk_would_read_whole_or_not(tmp_path):
    path = tmp_path / "a.gipl"
    sitk.WriteImage(sitk.GetImageFromArray(image_values(0)), str(path))
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"a.gipl: not one of .nii.gz, .nii, .mha, .mhd, .nrrd"):
        read_image(path)


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
def test_file_that_simpleitk_cannot_read(tmp_path, nnunet):
    write_description(
        nnunet, channel_names={"0": "CT"}, labels={"background": 0, "a": 1}, file_ending=".mha"
    )
    (nnunet / "imagesTr" / "c_0000.mha").write_bytes(b"hello")
    assert "c_0000.mha: SimpleITK cannot read it" in refused(tmp_path, nnunet)


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
@pytest.mark.parametrize("compressed", [True, False])
def test_damaged_metaimage_in_one_file(tmp_path, nnunet, compressed):
    write_description(
        nnunet, channel_names={"0": "CT"}, labels={"background": 0, "a": 1}, file_ending=".mha"
    )
    path = nnunet / "imagesTr" / "c_0000.mha"
    image = sitk.GetImageFromArray(image_values(0))
    sitk.WriteImage(image, str(path), useCompression=compressed)
    path.write_bytes(path.read_bytes()[:-20])
    message = refused(tmp_path, nnunet)
    expected = "truncated" if compressed else "460 bytes of voxels instead of 480"
    assert f"c_0000.mha: {expected}" in message


def test_cache_that_cannot_be_written(tmp_path, msd):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write the prepared data set"):
        open_source("msd", directory=str(msd), cache=str(tmp_path / "file"))
