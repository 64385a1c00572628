"""Files in other units, forms and shapes that hold one volume, and labels stored as fractions."""

import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from folders import AFFINE, SHAPE, image_values, label_values, write_nifti

from mijax.data.formats.imagefile import affines_of, read_image
from mijax.data.formats.imagewriter import write_image
from mijax.data.scans import Scan, read_scan
from mijax.data.sources.folder import read_volume
from mijax.data.sources.layout import Entry
from mijax.data.volume import Case
from mijax.errors import Notice, UserError

CLASSES = ("background", "a", "b")
UNITS = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}
TURN = np.array([[0.8, -0.6, 0, 0], [0.6, 0.8, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def volume_of(tmp_path, *, channels=1):
    """The case of image.nii and label.nii."""
    paths = (tmp_path / "image.nii",), tmp_path / "label.nii"
    entry = Entry(Case("a", "a", True), *paths)
    return read_volume(entry, classes=CLASSES, channels=channels)


def write(path, values, sform, qform=None, *, unit="mm", codes=(1, 1)):
    """A NIfTI file with these forms (the same where one is given) in that unit."""
    image = nib.Nifti1Image(values, None)
    image.header.set_xyzt_units(unit)
    image.set_sform(sform, codes[0])
    image.set_qform(sform if qform is None else qform, codes[1])
    image.set_data_dtype(values.dtype)
    nib.save(image, path)


def moved(by, affine=AFFINE):
    affine = affine.copy()
    affine[0, 3] += by
    return affine


# Units


@pytest.mark.parametrize("codes", [(1, 1), (1, 0), (0, 1)])
@pytest.mark.parametrize("unit", UNITS)
def test_lengths_are_millimetres_whatever_the_unit_as_in_itk(tmp_path, unit, codes):
    affine = moved(40, TURN @ AFFINE)
    write(tmp_path / "a.nii", image_values(0), affine, unit=unit, codes=codes)
    expected = np.diag([UNITS[unit]] * 3 + [1]) @ affine
    found = read_image(tmp_path / "a.nii")[1]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    sitk.WriteImage(sitk.ReadImage(str(tmp_path / "a.nii")), str(tmp_path / "a.mha"))
    np.testing.assert_allclose(found, read_image(tmp_path / "a.mha")[1], rtol=1e-5, atol=1e-5)


def test_a_label_of_itk_in_millimetres_lies_on_a_scan_in_microns(tmp_path):
    write(tmp_path / "image.nii", image_values(0), 1e3 * moved(40) @ np.diag([1, 1, 1, 1e-3]),
          unit="micron")  # fmt: skip
    label = sitk.Cast(sitk.ReadImage(str(tmp_path / "image.nii")) > 100, sitk.sitkUInt8)
    sitk.WriteImage(label, str(tmp_path / "label.nii"))
    volume = volume_of(tmp_path)
    np.testing.assert_array_equal(volume.label, image_values(0) > 100)
    np.testing.assert_allclose(volume.spacing, (1, 1.5, 3), rtol=1e-6)


@pytest.mark.parametrize("unit", UNITS)
def test_a_written_mask_keeps_the_unit_of_its_scan(tmp_path, unit):
    write(tmp_path / "image.nii", image_values(0), TURN @ AFFINE, unit=unit)
    write_image(tmp_path / "label.nii", label_values(0), reference=tmp_path / "image.nii")
    assert nib.load(tmp_path / "label.nii").header.get_xyzt_units()[0] == unit
    np.testing.assert_array_equal(volume_of(tmp_path).label, label_values(0))


# sform and qform

SCANNER, ATLAS = moved(5, TURN @ AFFINE), moved(-60)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ((ATLAS, SCANNER), (SCANNER, SCANNER)),  # drawn by a program that goes by the qform
        ((SCANNER, SCANNER), (ATLAS, SCANNER)),
        ((ATLAS, SCANNER), (moved(900), ATLAS)),
    ],
)
def test_voxels_are_the_same_where_any_two_forms_agree(tmp_path, image, label):
    write(tmp_path / "image.nii", image_values(0), *image)
    write(tmp_path / "label.nii", label_values(0), *label)
    with pytest.warns(Notice) as told:
        volume = volume_of(tmp_path)
    np.testing.assert_array_equal(volume.label, label_values(0))
    np.testing.assert_allclose(volume.affine, image[0], atol=1e-5)
    (line,) = (str(w.message) for w in told)
    assert "label.nii: its " in line and "image.nii" in line and "sform" in line and "mm" in line


def test_the_forms_that_count_agree_and_nothing_is_said(tmp_path):
    write(tmp_path / "image.nii", image_values(0), ATLAS, SCANNER)
    write(tmp_path / "label.nii", label_values(0), ATLAS, moved(900))
    assert volume_of(tmp_path).label is not None


@pytest.mark.parametrize("scale", [1.3, -1.0])
def test_forms_that_differ_in_size_or_side_are_told_of_though_a_label_has_both(tmp_path, scale):
    for name, values in (("image", image_values(0)), ("label", label_values(0))):
        write(tmp_path / f"{name}.nii", values, AFFINE @ np.diag([scale, 1, 1, 1]), AFFINE)
    with pytest.warns(Notice, match="image.nii: sform and qform differ by up to .* is taken"):
        volume_of(tmp_path)


def test_voxels_without_a_form_lie_where_nibabel_or_itk_put_them(tmp_path):
    write(tmp_path / "image.nii", image_values(0), AFFINE, codes=(0, 0))
    image = sitk.ReadImage(str(tmp_path / "image.nii"))
    sitk.WriteImage(sitk.Cast(image > 100, sitk.sitkUInt8), str(tmp_path / "label.nii"))
    with pytest.warns(Notice) as told:
        volume = volume_of(tmp_path)
    assert "agrees with the pixdim as ITK reads it of" in " ".join(str(w.message) for w in told)
    np.testing.assert_array_equal(volume.label, image_values(0) > 100)


def test_no_forms_agree_and_the_advice_moves_no_label_that_is_right(tmp_path):
    write(tmp_path / "image.nii", image_values(0), ATLAS, SCANNER)
    write(tmp_path / "label.nii", label_values(0), moved(900))
    with pytest.raises(UserError, match="if a viewer shows them in one place, resample"):
        volume_of(tmp_path)


def test_a_form_that_is_none_is_no_reason_to_refuse_the_other(tmp_path):
    write(tmp_path / "image.nii", image_values(0), SCANNER)
    content = bytearray((tmp_path / "image.nii").read_bytes())
    content[256:268] = np.array([np.nan, 5, 5], np.float32).tobytes()  # quatern_b, c, d
    (tmp_path / "image.nii").write_bytes(content)
    assert list(affines_of(tmp_path / "image.nii")) == ["sform"]
    write(tmp_path / "label.nii", label_values(0), ATLAS)
    with pytest.raises(UserError, match="affine differs"):
        volume_of(tmp_path)


# Affines that differ by little

CUBES = np.diag([1.5, 1.5, 1.5, 1])
NEARLY = {
    "0.005 mm of 1.5": moved(0.005, CUBES),
    "some per cent of a voxel": moved(0.04, CUBES),
    "a spacing of three digits": np.diag([1.501, 1.5, 1.5, 1]),
    "a little turned": CUBES + np.eye(4, k=1) * [0, 1e-3, 0, 0],
}
OTHERS = {
    "half a voxel": moved(0.75, CUBES),
    "a tenth of a voxel": moved(0.15, CUBES),
    "a spacing that adds up": np.diag([1.53, 1.5, 1.5, 1]),
    "flipped": np.diag([-1.5, 1.5, 1.5, 1]),
}


@pytest.mark.parametrize("case", NEARLY)
def test_a_few_per_cent_of_a_voxel_are_the_same_grid(tmp_path, case):
    write_nifti(tmp_path / "image.nii", image_values(0), CUBES)
    write_nifti(tmp_path / "label.nii", label_values(0), NEARLY[case])
    with pytest.warns(
        Notice, match="label.nii: affine differs from .*image.nii by up to 0.0"
    ) as told:
        volume = volume_of(tmp_path)
    assert len(told) == 1 and "taken as the same grid" in str(told[0].message)
    np.testing.assert_array_equal(volume.label, label_values(0))


@pytest.mark.parametrize("case", OTHERS)
def test_more_is_another_grid(tmp_path, case):
    write_nifti(tmp_path / "image.nii", image_values(0), CUBES)
    write_nifti(tmp_path / "label.nii", label_values(0), OTHERS[case])
    with pytest.raises(UserError, match="label.nii: affine differs from that of .*image.nii"):
        volume_of(tmp_path)


def test_rounding_is_not_worth_a_line(tmp_path):
    write_nifti(tmp_path / "image.nii", image_values(0), TURN @ AFFINE)
    write_nifti(tmp_path / "label.nii", label_values(0), np.round(TURN @ AFFINE, 6) + 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert volume_of(tmp_path).label is not None


# Axes


@pytest.mark.parametrize("length", [(1,), (1, 1), (1, 1, 1, 1)])
def test_axes_of_length_one_after_the_third_are_left_out(tmp_path, length):
    write_nifti(tmp_path / "image.nii", image_values(0).reshape(SHAPE + length))
    write_nifti(tmp_path / "label.nii", label_values(0).reshape(SHAPE + length[:1]))
    volume = volume_of(tmp_path)
    np.testing.assert_array_equal(volume.image, image_values(0)[..., None])
    np.testing.assert_array_equal(volume.label, label_values(0))
    write_image(tmp_path / "label.nii", label_values(1), reference=tmp_path / "image.nii")
    assert nib.load(tmp_path / "label.nii").shape == SHAPE
    np.testing.assert_array_equal(volume_of(tmp_path).label, label_values(1))


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_channels_as_itk_writes_them(tmp_path, ending):
    values = image_values(0, (*SHAPE, 2))
    image = sitk.GetImageFromArray(values.transpose(2, 1, 0, 3), isVector=True)
    sitk.WriteImage(image, str(tmp_path / f"a{ending}"))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}")[0], values)


@pytest.mark.parametrize("shape", [(6, 5, 4, 2, 3), (6, 5, 4, 2, 1, 3)])
def test_several_times_of_several_channels_are_refused(tmp_path, shape):
    write_nifti(tmp_path / "a.nii", np.zeros(shape, np.uint8))
    with pytest.raises(UserError, match=r"\(x, y, z\), or \(x, y, z, channel\), is needed"):
        read_image(tmp_path / "a.nii")


# Labels


def write_scaled(path, stored, slope, inter=0.0):
    """Whole numbers on disk under a header that scales them."""
    path.write_bytes(nib.Nifti1Image(stored, AFFINE).to_bytes())
    content = bytearray(path.read_bytes())
    content[112:120] = np.array([slope, inter], np.float32).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("factor", "slope", "inter", "dtype"),
    [
        (255, 1 / 255, 0, np.int16),
        (16384, 1 / 16384 * 1.00001, 0, np.int32),  # 1.00001, 2.00002
        (32767, 2 / 65535, 0, np.int32),  # 0.99998, 1.99997
        (10, 0.1, -0.0004, np.uint8),
    ],
)
def test_labels_that_a_scale_has_rounded(tmp_path, factor, slope, inter, dtype):
    write_nifti(tmp_path / "image.nii", image_values(0))
    write_scaled(
        tmp_path / "label.nii", (label_values(0).astype(int) * factor).astype(dtype), slope, inter
    )
    assert not set(np.unique(read_image(tmp_path / "label.nii")[0])) <= {0, 1, 2}
    np.testing.assert_array_equal(volume_of(tmp_path).label, label_values(0))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.5, "0.5"), (1.0015, "1.0015"), (1.998, "1.998"), (2.9999, "2.9999"), (3, "3"),
     (-0.002, "-0.002"), (np.inf, "inf")],
)  # fmt: skip
def test_what_is_no_label_is_shown_with_all_its_digits(tmp_path, value, shown):
    values = label_values(0).astype(np.float32)
    values[0, 0, 0] = value
    write_nifti(tmp_path / "image.nii", image_values(0))
    write_nifti(tmp_path / "label.nii", values)
    with pytest.raises(
        UserError, match=rf"label value {shown} is none of the 3 classes \(0 to 2\)"
    ):
        volume_of(tmp_path)


@pytest.mark.parametrize("ending", [".NII", ".Nii.GZ", ".MHA", ".NRRD"])
def test_endings_in_large_letters(tmp_path, ending):
    image = sitk.GetImageFromArray(image_values(0).T)
    sitk.WriteImage(image, str(tmp_path / f"a{ending.lower()}"), useCompression=True)
    path = (tmp_path / f"a{ending.lower()}").rename(tmp_path / f"b{ending}")
    np.testing.assert_array_equal(read_image(path)[0], image_values(0))


# Which side is left --------------------------------------------------------------------


def test_an_image_whose_forms_differ_is_told_of(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), np.diag([2.0, 2, 2, 1]))
    image.set_qform(np.diag([-2.0, 2, 2, 1]), code=1)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.warns(Notice, match=r"sform and qform differ by up to 12 mm; the sform is taken"):
        volume = read_scan(Scan("a", (tmp_path / "a.nii.gz",)), channels=1)
    assert (volume.affine == np.diag([2, 2, 2, 1])).all()


def test_an_image_without_a_form_is_told_of(tmp_path):
    image = nib.Nifti1Image(np.ones((4, 5, 6), np.float32), None)
    nib.save(image, tmp_path / "a.nii.gz")
    with pytest.warns(Notice, match="neither sform nor qform; its axes are taken as LAS"):
        read_scan(Scan("a", (tmp_path / "a.nii.gz",)), channels=1)


def test_a_side_that_a_label_agrees_on_is_a_guess_as_well(tmp_path):
    for name, values in (("image", image_values(0)), ("label", label_values(0))):
        nib.save(nib.Nifti1Image(values, None), tmp_path / f"{name}.nii")
    with pytest.warns(Notice, match="neither sform nor qform; its axes are taken as LAS"):
        volume_of(tmp_path)


# At which angles its axes are -----------------------------------------------------------


def tilted(degrees):
    """As of a gantry that was tilted."""
    affine = AFFINE.copy()
    affine[1, 2] = affine[2, 2] * np.tan(np.radians(degrees))
    return affine


@pytest.mark.parametrize("label", [True, False])
def test_sheared_axes_are_told_of(tmp_path, label):
    write_nifti(tmp_path / "image.nii", image_values(0), TURN @ tilted(20))
    write_nifti(tmp_path / "label.nii", label_values(0), TURN @ tilted(20))
    scan = Scan("a", (tmp_path / "image.nii",))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        volume_of(tmp_path) if label else read_scan(scan, channels=1)
    lines = [str(w.message) for w in told if "sheared" in str(w.message)]
    assert lines == [
        f"{tmp_path / 'image.nii'}: axes sheared by 20.0°; slices and distances are as of right "
        "angles, so resample it to a straight grid"
    ]


def test_rounded_axes_are_straight(tmp_path):
    write(tmp_path / "image.nii", image_values(0), TURN @ tilted(0.5), TURN @ AFFINE)
    write(tmp_path / "label.nii", label_values(0), TURN @ tilted(0.5), TURN @ AFFINE)
    volume_of(tmp_path)


# How large a voxel is ------------------------------------------------------------------


def write_without_size(path: Path) -> None:
    """An image whose header says nothing of its voxels' length along z, or along any axis."""
    if path.suffix == ".nii":
        image = nib.Nifti1Image(image_values(0), None)
        image.set_qform(np.diag([2.0, 2, 1, 1]), code=1)
        content = bytearray(image.to_bytes())
        content[88:92] = bytes(4)  # pixdim[3]
        path.write_bytes(content)
        return
    sitk.WriteImage(sitk.GetImageFromArray(image_values(0).T), str(path))
    key = b"ElementSpacing" if path.suffix == ".mha" else b"space directions"
    lines = path.read_bytes().split(b"\n", 14)
    path.write_bytes(b"\n".join(line for line in lines if not line.startswith(key)))


@pytest.mark.parametrize(
    ("ending", "axes"), [("nii", "z"), ("mha", "x, y, z"), ("nrrd", "x, y, z")]
)
def test_voxels_without_a_size_are_told_of(tmp_path, ending, axes):
    write_without_size(tmp_path / f"a.{ending}")
    with pytest.warns(Notice, match=f"no voxel size along {axes}; taken as 1 mm"):
        values, affine = read_image(tmp_path / f"a.{ending}")
    np.testing.assert_array_equal(values, image_values(0))
    assert np.linalg.norm(affine[:3, 2]) == 1


@pytest.mark.parametrize(
    ("ending", "key", "instead", "note"),
    [
        ("mha", b"TransformMatrix", [], "no TransformMatrix; its axes are taken as LPS"),
        ("nrrd", b"space:", [b"space dimension: 3"], "no space; taken as left-posterior-superior"),
        ("nrrd", b"space:", [b"space: 3D-right-handed"], "space 3d-right-handed; taken as left-po"),
    ],
)
def test_a_side_that_is_not_said_is_told_of(tmp_path, ending, key, instead, note):
    path = tmp_path / f"a.{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(image_values(0).T), str(path))
    lines = path.read_bytes().split(b"\n", 14)
    (place,) = (i for i, line in enumerate(lines) if line.startswith(key))
    path.write_bytes(b"\n".join([*lines[:place], *instead, *lines[place + 1 :]]))
    with pytest.warns(Notice, match=note):
        affine = read_image(path)[1]
    np.testing.assert_array_equal(np.diag(affine), [-1, -1, 1, 1])


def test_a_size_that_does_not_count_may_be_missing(tmp_path):
    content = bytearray(nib.Nifti1Image(image_values(0), np.eye(4)).to_bytes())
    content[80:92] = bytes(12)
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii")[1], np.eye(4))
