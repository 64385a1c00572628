"""DICOM series to volumes: values and geometry as SimpleITK reads them."""

import locale
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    oblique,
    positions,
    pydicom,
    stored_values,
    uids,
    write_enhanced,
    write_series,
)

from mijax.data.formats.imagefile import itk_affine
from mijax.data.scans import find_scans, read_scan
from mijax.errors import Notice

sitk.ProcessObject.GlobalWarningDisplayOff()
SAGITTAL = (0.0, 1, 0, 0, 0, -1)


def by_itk(folder, uid="1.2.3.5"):
    """(x, y, z) and RAS+ affine of a series as SimpleITK reads it."""
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uid)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    image = reader.Execute()
    return sitk.GetArrayFromImage(image).T, itk_affine(image)


def read(folder, **options):
    (scan,) = find_scans(folder, channels=1, **options)
    return read_scan(scan, channels=1)


def shuffled(made, i):
    """Numbers that say nothing of the place, and one slope a slice as of PET."""
    made.InstanceNumber = (7 * i) % 5
    made.RescaleSlope = 0.25 + i


def inverted(made, i):
    made.PhotometricInterpretation = "MONOCHROME1"


def big_endian(made, i):
    values = np.frombuffer(made.PixelData, np.uint16)
    made.PixelData = values.astype(">u2").tobytes()
    made.file_meta.TransferSyntaxUID = uids.ExplicitVRBigEndian


def implicit(made, i):
    made.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian


def compressed(syntax):
    return lambda made, i: made.compress(syntax)


LARGER = np.sort(stored_values((4, 64, 48)), axis=1)  # what encoders make smaller


SERIES = {
    "axial": {},
    "oblique": {"orientation": oblique()},
    "sagittal": {"orientation": SAGITTAL},
    "reversed": {"places": positions(4)[::-1]},
    "shuffled": {"change": shuffled, "places": positions(4)[[2, 0, 3, 1]]},
    "names that mislead": {"names": "{}.txt"},
    "signed": {"values": stored_values(bits=16, signed=True), "bits": 16, "intercept": 0.0},
    "signed in 12 bits": {"values": stored_values(bits=12, signed=True), "slope": 0.1},
    "16 bits": {"values": stored_values(bits=16), "bits": 16, "slope": 0.013},
    "8 bits": {"values": stored_values(bits=8).astype(np.uint8), "bits": 8},
    "monochrome 1": {"change": inverted, "slope": 0.5},
    "monochrome 1, signed": {
        "change": inverted,
        "values": stored_values(bits=16, signed=True),
        "bits": 16,
    },
    "big endian": {"change": big_endian},
    "implicit": {"change": implicit},
    "RLE": {"change": compressed(uids.RLELossless), "values": LARGER},
    "JPEG-LS": {"change": compressed(uids.JPEGLSLossless), "values": LARGER},
}


@pytest.mark.parametrize("name", SERIES)
def test_values_and_geometry_are_those_of_simpleitk(tmp_path, name):
    options = {"values": stored_values(), **SERIES[name]}
    write_series(tmp_path, options.pop("values"), **options)
    values, affine = by_itk(tmp_path)
    found = read(tmp_path)
    assert found.image.dtype == np.float32 and found.name == "1.2.3.5"
    np.testing.assert_allclose(found.image[..., 0], values, atol=1e-4, rtol=1e-6)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    assert len(np.unique(values)) > 50


def test_a_voxel_lies_where_the_standard_puts_it(tmp_path):
    """PS3.3 C.7.6.2.1.1: P = S + X Δi i + Y Δj j, of column i and row j, in LPS."""
    row, column = np.reshape(oblique(), (2, 3))
    places, values = positions(4, orientation=oblique()), stored_values()
    write_series(tmp_path, values, orientation=oblique(), spacing=(0.8, 0.7))
    found = read(tmp_path)
    i, j, z = 4, 2, 3
    assert found.image[i, j, z, 0] == values[z, j, i] - 1024
    place = places[z] + row * 0.7 * i + column * 0.8 * j
    np.testing.assert_allclose(found.affine @ [i, j, z, 1], [*place * [-1, -1, 1], 1], atol=1e-6)


@pytest.mark.parametrize("orientation", [(1.0, 0, 0, 0, 1, 0), oblique()])
def test_frames_of_one_file(tmp_path, orientation):
    values, order = stored_values(), [2, 0, 3, 1]
    places = positions(4, orientation=orientation)
    path = write_enhanced(
        tmp_path / "MR.1", values, places=places[order], orientation=orientation,
        slopes=[1.0, 2, 3, 4],
    )  # fmt: skip
    write_series(tmp_path / "sorted", values[np.argsort(order)], orientation=orientation)
    affine = by_itk(tmp_path / "sorted")[1]  # ITK takes frames as they come
    found = read(path)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
    expected = values * np.reshape([1.0, 2, 3, 4], (4, 1, 1)) - 1024
    np.testing.assert_allclose(found.image[..., 0], expected[np.argsort(order)].T, atol=1e-4)


def test_frames_in_order_as_simpleitk_reads_them(tmp_path):
    path = write_enhanced(tmp_path / "ct", stored_values())
    image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    found = read(path)
    np.testing.assert_allclose(found.image[..., 0], sitk.GetArrayFromImage(image).T, atol=1e-4)
    np.testing.assert_allclose(found.affine, itk_affine(image), atol=1e-4)


@pytest.mark.parametrize(
    ("compressor", "syntax"), [("JPEG", uids.JPEGLosslessSV1), ("JPEG2000", uids.JPEG2000Lossless)]
)
def test_compressed_as_archives_do(tmp_path, compressor, syntax):
    for path in write_series(tmp_path, LARGER, intercept=0.0, names="{}.dcm"):
        image = sitk.ReadImage(str(path))
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(path))
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
        writer.KeepOriginalImageUIDOn()
        before = locale.setlocale(locale.LC_ALL)
        writer.Execute(image)
        locale.setlocale(locale.LC_ALL, before)  # GDCM leaves another where it writes
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read(tmp_path).image[..., 0], LARGER.T)


def overlaid(made, i):
    """What other programs put into the bits above those that are stored."""
    values = np.frombuffer(made.PixelData, np.uint16)
    made.PixelData = (values | 0xA000).astype(np.uint16).tobytes()


def test_bits_that_are_not_stored_do_not_count(tmp_path):
    values = stored_values()
    write_series(tmp_path, values, change=overlaid)
    np.testing.assert_array_equal(read(tmp_path).image[..., 0], values.T - 1024.0)


def test_one_slice_is_as_thick_as_it_says(tmp_path):
    write_series(tmp_path, stored_values((1, 6, 5)))
    found = read(tmp_path)
    assert found.image.shape == (5, 6, 1, 1)
    np.testing.assert_allclose(found.spacing, (0.7, 0.8, 2.5))


def test_a_distance_that_is_none_is_no_thickness(tmp_path):
    """Some scanners write a negative one."""

    def change(made, i):
        made.SpacingBetweenSlices, made.SliceThickness = -5.0, 3.0

    write_series(tmp_path, stored_values((1, 6, 5)), change=change)
    np.testing.assert_allclose(read(tmp_path).spacing, (0.7, 0.8, 3.0))


def test_slices_without_a_uid_are_no_copies(tmp_path):
    def change(made, i):
        made.SOPInstanceUID = ""

    values = stored_values()
    write_series(tmp_path, values, change=change)
    np.testing.assert_array_equal(read(tmp_path).image[..., 0], values.T - 1024.0)


# Which series ------------------------------------------------------------------------------


def of_no_image(made, i):
    made.Modality = "SEG"


def test_the_largest_series_of_each_study_is_taken(tmp_path):
    write_series(tmp_path / "a" / "b", stored_values((3, 6, 5)), uid="1.5")
    write_series(tmp_path / "c", stored_values((4, 6, 5)), uid="1.6")
    write_series(tmp_path / "seg", stored_values((1, 6, 5)), uid="1.8", change=of_no_image)
    (tmp_path / "c" / "notes.txt").write_text("no DICOM")
    line = (
        r"the largest series, 1.6 'thorax' \(4 slices of 6×5\), is taken; not taken: "
        r"1.5 'thorax' \(3 slices of 6×5\), and 1 DICOM file of no image; --series=UID takes "
        "another"
    )
    with pytest.warns(Notice, match=line):
        (scan,) = find_scans(tmp_path, channels=1)
    assert (scan.name, scan.stack.shape) == ("1.6", (5, 6, 4))
    (scan,) = find_scans(tmp_path, channels=1, series=["1.5"])
    assert (scan.name, scan.stack.shape) == ("1.5", (5, 6, 3))
    write_series(tmp_path / "d", stored_values((2, 6, 5)), uid="1.1", study="1.2.4")
    with pytest.warns(Notice, match="the largest of each study is taken; not taken: 1.5"):
        assert [scan.name for scan in find_scans(tmp_path, channels=1)] == ["1.1", "1.6"]


@pytest.mark.parametrize("series", [(), ("1.5",)])
def test_one_uid_in_two_studies_is_no_case(tmp_path, series):
    """As of careless anonymisers: the outputs of one would replace those of the other."""
    write_series(tmp_path / "a", stored_values((3, 6, 5)), uid="1.5")
    write_series(tmp_path / "b", stored_values((4, 6, 5)), uid="1.5", study="1.2.4")
    (scan,) = find_scans(tmp_path, channels=1, series=series)
    assert (scan.name, scan.stack, len(scan.images)) == ("1.5", None, 7)
    assert "series 1.5 is in 2 studies, as of " in scan.problem
    assert f"{tmp_path / 'a'}/" in scan.problem and f"{tmp_path / 'b'}/" in scan.problem


def test_of_a_localiser_one_orientation_is_taken(tmp_path):
    write_series(tmp_path, stored_values((3, 6, 5)), uid="1.5")
    write_series(tmp_path, stored_values((2, 6, 5)), uid="1.5", orientation=SAGITTAL, names="s{}")
    with pytest.warns(Notice, match="2 orientations; the largest volume, of 3 slices, is taken"):
        (scan,) = find_scans(tmp_path, channels=1)
    assert scan.stack.shape == (5, 6, 3) and len(scan.images) == 3


def no_place(made, i):
    del made.ImagePositionPatient


def test_pictures_are_not_taken_for_the_largest_volume(tmp_path):
    write_series(tmp_path, stored_values((2, 60, 50)), uid="1.5", change=no_place, names="p{}")
    write_series(tmp_path, stored_values((3, 6, 5)), uid="1.6")
    with pytest.warns(Notice, match="1.6 .* is taken; not taken: 1.5"):
        (scan,) = find_scans(tmp_path, channels=1)
    assert scan.name == "1.6"


def test_image_files_go_before_dicom(tmp_path):
    write_series(tmp_path / "dicom", stored_values())
    sitk.WriteImage(sitk.GetImageFromArray(stored_values()), str(tmp_path / "a.nii.gz"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [scan.name for scan in find_scans(tmp_path, channels=1)] == ["a"]
        named = find_scans(tmp_path, channels=1, series=["1.2.3.5"])
        assert [scan.name for scan in named] == ["1.2.3.5"]


# Files of scanners, which pydicom has for its own tests --------------------------------------

SCANNED = Path(pydicom.__file__).parent / "data" / "test_files"


@pytest.mark.parametrize(
    "name",
    [
        "693_J2KI",
        "CT_small",
        "J2K_pixelrep_mismatch",
        "MR_small",
        "MR_small_RLE",
        "MR_small_bigendian",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "MR_small_padded",
        "examples_overlay",
    ],
)
def test_slices_of_scanners(name):
    path = SCANNED / f"{name}.dcm"
    image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
    found = read(path)
    np.testing.assert_array_equal(found.image[..., 0], sitk.GetArrayFromImage(image).T)
    placed = itk_affine(image)[:, [0, 1, 3]]  # how thick a single slice is, ITK often does not say
    np.testing.assert_allclose(found.affine[:, [0, 1, 3]], placed, atol=1e-4)


def test_a_series_of_a_scanner():
    """Axial CT among series that are scouts; its files are named at random."""
    folder = SCANNED / "dicomdirtests" / "98892001"
    uid = "1.3.6.1.4.1.5962.1.1.0.0.0.1194734704.16302.0.6"
    with pytest.warns(Notice, match="98892001: the largest series, .* is taken; not taken: "):
        found = read(folder)
    values, affine = by_itk(folder / "CT5N", found.name)
    assert (found.name, values.shape) == (uid, (16, 16, 5))
    np.testing.assert_array_equal(found.image[..., 0], values)
    np.testing.assert_allclose(found.affine, affine, atol=1e-4)
