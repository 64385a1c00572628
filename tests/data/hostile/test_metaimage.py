"""MetaImage files whose header or voxels are damaged."""

import contextlib
import zlib

import numpy as np
import pytest
from damage import NOISE, in_one_folder, metaimage
from folders import image_values, write_metaimage
from hypothesis import given
from hypothesis import strategies as st

from mijax.data.formats.imagefile import read_image
from mijax.errors import UserError

METAIMAGES = {
    "terabytes": {"DimSize": "100000 100000 100000"},
    "exabytes": {"DimSize": "2000000000 2000000000 2000000000"},
    "axis above 64 bits": {"DimSize": "99999999999999999999 5 4"},
    "product above 64 bits": {"DimSize": "4294967296 4294967296 1"},
    "negative axis": {"DimSize": "-6 5 4"},
    "no voxel": {"DimSize": "0 5 4"},
    "axes of text": {"DimSize": "a b c"},
    "axes of many digits and a letter": {"DimSize": "1" * 99 + "x"},
    "axes missing": {"DimSize": None},
    "two of three axes": {"DimSize": "6 5"},
    "a slice too many": {"DimSize": "6 5 5"},
    "a slice too few": {"DimSize": "6 5 3"},
    "axis NaN": {"DimSize": "nan 5 4"},
    "no axes": {"NDims": "0"},
    "minus three axes": {"NDims": "-3"},
    "two axes": {"NDims": "2", "DimSize": "6 20"},
    "eleven axes": {"NDims": "11"},
    "number of axes missing": {"NDims": None},
    "number of axes of text": {"NDims": "three"},
    "type that there is not": {"ElementType": "MET_FOO"},
    "type of text": {"ElementType": "MET_STRING"},
    "type none": {"ElementType": "MET_NONE"},
    "type missing": {"ElementType": None},
    "type wider": {"ElementType": "MET_DOUBLE"},
    "type narrower": {"ElementType": "MET_UCHAR"},
    "2 channels": {"ElementNumberOfChannels": "2"},
    "a thousand million channels": {"ElementNumberOfChannels": "1000000000"},
    "spacing NaN": {"ElementSpacing": "nan 1 1"},
    "spacing infinite": {"ElementSpacing": "1 inf 1"},
    "spacing zero": {"ElementSpacing": "0 0 0"},
    "spacing of a galaxy": {"ElementSpacing": "1e30 1e30 1e30"},
    "spacing of nothing": {"ElementSpacing": "1e-30 1e-30 1e-30"},
    "origin NaN": {"Offset": "nan nan nan"},
    "origin infinite": {"Offset": "inf 0 0"},
    "directions zero": {"TransformMatrix": "0 0 0 0 0 0 0 0 0"},
    "directions NaN": {"TransformMatrix": "nan 0 0 0 1 0 0 0 1"},
    "directions flat": {"TransformMatrix": "1 0 0 1 0 0 0 0 1"},
    "compressed, but not": {"CompressedData": "True"},
    "header longer than the file": {"HeaderSize": "1000000000"},
    "voxels missing": {"ElementDataFile": "other.raw"},
    "voxels nowhere": {"ElementDataFile": ""},
    "no line of voxels": {"ElementDataFile": None},
    "voxels in the folder above": {"ElementDataFile": "../a.raw"},
    "voxels climb": {"ElementDataFile": "sub/../../../etc/passwd"},
    "voxels climb by backslashes": {"ElementDataFile": "..\\a.raw"},
    "voxels from the root": {"ElementDataFile": "/etc/passwd"},
    "voxels of a drive": {"ElementDataFile": "C:\\a.raw"},
    "voxels of a device": {"ElementDataFile": "/dev/zero"},
    "voxels in the folder itself": {"ElementDataFile": "."},
    "voxels under a long name": {"ElementDataFile": "a" * 5000},
    "voxels under a name with a zero": {"ElementDataFile": "a\0.raw"},
    "voxels under a name with an escape": {"ElementDataFile": "a\x1b[2J.raw"},
    "voxels a file a slice": {"ElementDataFile": "a%03d.raw 1 4 1"},
    "voxels in a list of files": {"ElementDataFile": "LIST\n/etc/passwd"},
    "voxels in the header itself": {"ElementDataFile": "a.mhd"},
}


@pytest.mark.parametrize("case", METAIMAGES)
def test_metaimage_header(tmp_path, refused, case):
    metaimage(tmp_path / "a.mhd", **METAIMAGES[case])
    assert "a.mhd: " in refused(lambda: read_image(tmp_path / "a.mhd")).replace("a.raw", "a.mhd")


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"DistanceUnits": "um"}, "a length in 'um'; save it in mm"),
        ({"DistanceUnits": "cm"}, "a length in 'cm'; save it in mm"),
        ({"ElementToIntensityFunctionSlope": "2"}, "FunctionSlope 2; save it with its values"),
        ({"ElementToIntensityFunctionOffset": "-1024"}, "FunctionOffset -1024; save it with"),
        ({"ElementToIntensityFunctionSlope": "x"}, "FunctionSlope' cannot be 'x'"),
        ({"DistanceUnits": "mm", "ElementToIntensityFunctionOffset": "0.0"}, None),
    ],
)
def test_metaimage_fields_that_simpleitk_passes_over(tmp_path, refused, fields, line):
    metaimage(tmp_path / "a.mhd", **fields)
    if line:
        refused(lambda: read_image(tmp_path / "a.mhd"), "a.mhd: ", line)
    else:
        np.testing.assert_array_equal(read_image(tmp_path / "a.mhd")[0], image_values(0) // 1)


def test_metaimage_with_colons_that_climbs(tmp_path, refused):
    """SimpleITK takes a colon for an equals sign."""
    metaimage(tmp_path / "a.mhd", ElementDataFile="../a.raw")
    path = tmp_path / "a.mhd"
    path.write_text(path.read_text().replace(" = ", " : "))
    refused(lambda: read_image(path), "a.mhd: ElementDataFile")


METAIMAGE_FILES = {
    "empty": b"",
    "noise": NOISE,
    "zeros": bytes(5000),
    "a line without end": b"ObjectType = " + b"x" * 2**21,
    "lines without end": b"Comment = x\n" * 2**18,
    "text": b"hello\n",
    "header alone": b"ObjectType = Image\nNDims = 3\n",
    "not UTF-8": b"ObjectType = \xff\xfe\nNDims = \xff\nElementDataFile = \xff\n",
}


@pytest.mark.parametrize("name", ["a.mhd", "a.mha"])
@pytest.mark.parametrize("case", METAIMAGE_FILES)
def test_metaimage_file(tmp_path, refused, case, name):
    (tmp_path / name).write_bytes(METAIMAGE_FILES[case])
    refused(lambda: read_image(tmp_path / name), f"{name}: ")


@pytest.mark.parametrize("behind", [b"", b"x" * 2000], ids=["nothing", "more"])
def test_metaimage_bomb(tmp_path, refused, behind):
    path = tmp_path / "a.mhd"
    write_metaimage(path, image_values(0).astype(np.int16), compressed=True, announced=False)
    path.with_suffix(".zraw").write_bytes(zlib.compress(bytes(2**25)) + behind)
    refused(lambda: read_image(path), "a.zraw: more than the 240 bytes of voxels")


def in_one_file(path, values, *, kind="True", local="LOCAL", size=None, more="") -> None:
    """A compressed MetaImage, header and voxels in one file; its stream is as long as it says."""
    write_metaimage(path.with_suffix(".mhd"), values, compressed=True)
    header, stream = (path.with_suffix(x).read_bytes() for x in (".mhd", ".zraw"))
    text = header.decode().replace("CompressedData = True", f"{more}CompressedData = {kind}")
    text = text.replace(f"{path.stem}.zraw", local)
    if size is not None:
        text = text.replace(f"CompressedDataSize = {len(stream)}\n", size.format(len(stream) - 1))
    path.write_bytes(text.encode() + stream)


@pytest.mark.parametrize("kind", ["True", "T", "1"])
@pytest.mark.parametrize("local", ["LOCAL", "Local", "local"])
def test_metaimage_in_one_file_in_all_spellings(tmp_path, kind, local):
    values = image_values(0).astype(np.int16)
    in_one_file(tmp_path / "a.mha", values, kind=kind, local=local)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mha")[0], values)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"size": ""}, "compressed, and no CompressedDataSize"),
        ({"size": "CompressedDataSize = 0\n"}, "compressed, and no CompressedDataSize"),
        ({"size": "CompressedDataSize = {}\n"}, "truncated"),
        ({"more": "HeaderSize = 5\n"}, "compressed, and HeaderSize is not 0"),
        ({"more": "HeaderSize = -1\n"}, "compressed, and HeaderSize is not 0"),
        ({"more": "HeaderSize = 5\n", "kind": "False"}, "HeaderSize 5 ends within the header"),
    ],
)
def test_a_stream_of_which_simpleitk_would_read_noise(tmp_path, refused, fields, line):
    in_one_file(tmp_path / "a.mha", image_values(0).astype(np.int16), **fields)
    refused(lambda: read_image(tmp_path / "a.mha"), "a.mha: ", line)


def test_compressed_voxels_beside_a_header_that_skips_some(tmp_path, refused):
    write_metaimage(tmp_path / "a.mhd", image_values(0).astype(np.int16), compressed=True)
    text = (tmp_path / "a.mhd").read_text()
    (tmp_path / "a.mhd").write_text(f"HeaderSize = 5\n{text}")
    refused(lambda: read_image(tmp_path / "a.mhd"), "a.mhd: compressed, and HeaderSize is not 0")


def test_nothing_to_skip_is_no_reason_to_trust_the_voxels(tmp_path, refused):
    path = tmp_path / "a.mha"
    in_one_file(path, image_values(0).astype(np.int16), more="HeaderSize = 0\n")
    path.write_bytes(path.read_bytes()[:-40])
    refused(lambda: read_image(path), "a.mha: truncated")


def test_compressed_metaimage_larger_than_a_chunk(tmp_path):
    values = np.random.default_rng(0).integers(0, 4, (256, 256, 20)).astype(np.int16)
    write_metaimage(tmp_path / "a.mhd", values, compressed=True)
    np.testing.assert_array_equal(read_image(tmp_path / "a.mhd")[0], values)


numbers = st.sampled_from(["0", "1", "-1", "6", "1e9", "nan", "2147483648", "x", ""])


@in_one_folder(40)
@given(
    st.sampled_from(["DimSize", "ElementSpacing", "Offset", "TransformMatrix", "HeaderSize"]),
    st.lists(numbers, max_size=9).map(" ".join),
)
def test_any_numbers_in_a_metaimage_header(tmp_path, key, value):
    metaimage(tmp_path / "a.mhd", **{key: value})
    with contextlib.suppress(UserError):
        assert np.isfinite(read_image(tmp_path / "a.mhd")[1]).all()
