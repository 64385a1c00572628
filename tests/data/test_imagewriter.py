"""Images written on the grid of another file: viewers lay one over the other."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel import orientations

from mijax.data.formats.header import check_header
from mijax.data.formats.imagefile import read_image
from mijax.data.formats.imagewriter import check_written, label_ending, write_image
from mijax.errors import UserError

SHAPE = (5, 4, 3)
LABELS = np.arange(60, dtype=np.uint8).reshape(SHAPE) % 3


def turned(codes="RAS", degrees=0.0):
    """An affine of voxels 0.7 × 1.3 × 2.5 mm in the orientation, turned about x and then z."""
    ornt = orientations.axcodes2ornt(codes)
    permutation = np.zeros((3, 3))
    permutation[ornt[:, 0].astype(int), range(3)] = ornt[:, 1]
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ permutation * (0.7, 1.3, 2.5)
    affine[:3, 3] = (-31.7, 12.25, 104.1)
    return affine


ORIENTATIONS = ["RAS", "LPS", "LAS", "PSR", "AIL", "SRP"]
FORMS = [(1, 1), (2, 0), (0, 1), (1, 2), (0, 0)]  # codes of qform and sform


@pytest.mark.parametrize("degrees", [0, 17.3])
@pytest.mark.parametrize(
    ("codes", "forms"), [*itertools.product(ORIENTATIONS, FORMS[:1])] + [("LPS", f) for f in FORMS]
)
def test_nifti_keeps_every_field_of_its_geometry(tmp_path, codes, forms, degrees):
    affine = turned(codes, degrees)
    scan = nib.Nifti1Image(np.zeros(SHAPE, np.int16), affine)
    scan.set_qform(affine, forms[0])
    scan.set_sform(turned("RAS") if forms[1] == 2 else affine, forms[1])
    scan.header.set_xyzt_units("micron", "sec")
    nib.save(scan, tmp_path / "scan.nii")
    write_image(tmp_path / "label.nii.gz", LABELS, reference=tmp_path / "scan.nii")
    before, after = nib.load(tmp_path / "scan.nii"), nib.load(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(after.dataobj, LABELS)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.get_data_dtype() == np.uint8
    same = ["dim", "pixdim", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c"]
    same += ["quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"]
    for field in same:
        assert after.header[field].tobytes() == before.header[field].tobytes(), field


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_nothing_else_of_the_scan_stays(tmp_path, kind, dtype):
    scan = kind(np.zeros((*SHAPE, 1), dtype), turned("PSR", 30))
    scan.header["cal_max"] = 240
    scan.header.set_intent("vector")
    scan.header.set_slope_inter(0.5, -3)
    scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"Jane Doe" * 9))
    nib.save(scan, tmp_path / "scan.nii.gz")
    write_image(tmp_path / "label.nii.gz", LABELS, reference=tmp_path / "scan.nii.gz")
    after = nib.load(tmp_path / "label.nii.gz")
    assert type(after) is kind and after.shape == SHAPE
    assert after.header["cal_max"] == 0 and after.header.get_intent()[0] == "none"
    assert not after.header.extensions
    np.testing.assert_array_equal(after.dataobj, LABELS)
    np.testing.assert_array_equal(after.affine, nib.load(tmp_path / "scan.nii.gz").affine)


@pytest.mark.parametrize("size", [0, -16, 7, 100_000])
def test_of_a_scan_whose_extension_is_damaged(tmp_path, size):
    scan = nib.Nifti1Image(np.ones(SHAPE, np.float32), turned("PSR", 30))
    scan.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"hello"))
    content = bytearray(scan.to_bytes())
    content[352:356] = np.int32(size).tobytes()
    (tmp_path / "scan.nii").write_bytes(content)
    write_image(tmp_path / "label.nii.gz", LABELS, reference=tmp_path / "scan.nii")
    values, affine = read_image(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(values, LABELS)
    np.testing.assert_array_equal(affine, read_image(tmp_path / "scan.nii")[1])


@pytest.mark.parametrize("ending", [".mha", ".mhd", ".nrrd"])
@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_itk_keeps_origin_spacing_and_direction(tmp_path, codes, ending):
    affine = turned(codes, 17.3)
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    scan = sitk.GetImageFromArray(np.zeros(SHAPE[::-1], np.int16))
    scan.SetSpacing(lengths.tolist())
    scan.SetOrigin(affine[:3, 3].tolist())
    scan.SetDirection((affine[:3, :3] / lengths).ravel().tolist())
    path = tmp_path / f"scan{ending}"
    sitk.WriteImage(scan, str(path))
    label = tmp_path / f"label{label_ending(path)}"
    assert label.suffix == (".mha" if ending == ".mhd" else ending)
    write_image(label, LABELS, reference=path)
    before, after = sitk.ReadImage(str(path)), sitk.ReadImage(str(label))
    assert after.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(after), LABELS.T)
    for get in ("GetSize", "GetOrigin", "GetSpacing", "GetDirection"):
        assert getattr(after, get)() == getattr(before, get)(), get
    # Probabilities are NIfTI: the same place in the world in the other convention.
    soft = np.random.default_rng(0).random((*SHAPE, 2), np.float32)
    write_image(tmp_path / "soft.nii.gz", soft, reference=path)
    values, found = read_image(tmp_path / "soft.nii.gz")
    np.testing.assert_array_equal(values, soft)
    np.testing.assert_allclose(found, read_image(path)[1], atol=1e-4)


def test_of_a_scan_that_says_by_a_negative_spacing_which_way_an_axis_goes(tmp_path):
    path = tmp_path / "scan.mha"
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros(SHAPE[::-1], np.int16)), str(path))
    content = path.read_bytes()
    assert b"ElementSpacing = 1 1 1" in content
    path.write_bytes(content.replace(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1 2 -3"))
    write_image(tmp_path / "label.mha", LABELS, reference=path)
    values, affine = read_image(tmp_path / "label.mha")
    np.testing.assert_array_equal(values, LABELS)
    np.testing.assert_array_equal(affine, np.diag([-1.0, -2, -3, 1]))
    np.testing.assert_array_equal(affine, read_image(path)[1])


def test_a_failure_leaves_no_file(tmp_path):
    nib.save(nib.Nifti1Image(LABELS, np.eye(4)), tmp_path / "scan.nii.gz")
    (tmp_path / "label.nii.gz").write_bytes(b"before")
    with pytest.raises(nib.spatialimages.HeaderDataError):
        write_image(
            tmp_path / "label.nii.gz",
            LABELS.astype(np.float16),  # NIfTI has no such type
            reference=tmp_path / "scan.nii.gz",
        )
    assert sorted(f.name for f in tmp_path.iterdir()) == ["label.nii.gz", "scan.nii.gz"]
    assert (tmp_path / "label.nii.gz").read_bytes() == b"before"


def test_probabilities_may_be_larger_than_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setitem(check_header.__kwdefaults__, "largest", 200)  # bytes, instead of 4 GiB
    nib.save(nib.Nifti1Image(LABELS, np.eye(4)), tmp_path / "scan.nii.gz")
    path, scan = tmp_path / "soft.nii.gz", tmp_path / "scan.nii.gz"
    nib.save(nib.Nifti1Image(np.ones((*SHAPE, 3), np.float32), np.eye(4)), path)
    check_written(path, reference=scan, classes=None)
    with pytest.raises(UserError, match="can be read; crop or resample it"):
        read_image(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="truncated"):
        check_written(path, reference=scan, classes=None)


@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_itk_on_a_full_disk_is_one_line_and_leaves_no_file(tmp_path, ending, monkeypatch):
    """It fails, or says nothing and leaves a file that is not whole."""
    image = sitk.GetImageFromArray(LABELS.T)
    sitk.WriteImage(image, str(tmp_path / f"scan{ending}"))
    (tmp_path / "out").mkdir()

    def nothing(image, path, **_):
        Path(path).touch()

    def half(image, path, write=sitk.WriteImage, **_):
        write(image * 0, path)

    def failing(*_, **__):
        raise RuntimeError("Exception thrown\nReason: No space left on device")

    for write, reason in (
        (nothing, "not all of it was written"),
        (half, "not all of it was written"),
        (failing, "No space left on device"),
    ):
        monkeypatch.setattr(sitk, "WriteImage", write)
        path = tmp_path / "out" / f"x{ending}"
        with pytest.raises(UserError, match=f"cannot write {path}: {reason}; free space there"):
            write_image(path, LABELS, reference=tmp_path / f"scan{ending}")
        assert not list((tmp_path / "out").iterdir())
