"""NRRD files whose header or voxels are damaged."""

import gzip

import numpy as np
import pytest
import SimpleITK as sitk
from damage import NOISE, edited, in_one_folder, nrrd, reads_or_refuses
from folders import image_values
from hypothesis import given
from hypothesis import strategies as st

from mijax.data.formats.imagefile import read_image

NRRDS = {
    "terabytes": {"sizes": "100000 100000 100000"},
    "exabytes": {"sizes": "999999999 999999999 999999999"},
    "axis above 64 bits": {"sizes": "99999999999999999999 5 4"},
    "negative axis": {"sizes": "-6 5 4"},
    "no voxel": {"sizes": "0 5 4"},
    "axes of text": {"sizes": "a b c"},
    "axes of many digits and a letter": {"sizes": "1" * 99 + "x"},
    "axes missing": {"sizes": None},
    "two of three axes": {"sizes": "6 5"},
    "a slice too many": {"sizes": "6 5 5"},
    "a slice too few": {"sizes": "6 5 3"},
    "no axes": {"dimension": "0"},
    "minus three axes": {"dimension": "-3"},
    "two axes": {"dimension": "2"},
    "four axes of space": {"dimension": "4", "sizes": "6 5 2 2", "kinds": None, "space": None,
                           "space directions": None, "space origin": None},
    "a channel for an axis": {"kinds": "domain domain list"},
    "two kinds": {"kinds": "domain domain"},
    "time": {"kinds": "domain domain time"},
    "number of axes missing": {"dimension": None},
    "number of axes of text": {"dimension": "three"},
    "type that there is not": {"type": "foo"},
    "type block": {"type": "block", "block size": "2"},
    "type missing": {"type": None},
    "type wider": {"type": "double"},
    "type narrower": {"type": "uchar"},
    "byte order missing": {"endian": None},
    "byte order of text": {"endian": "middle"},
    "spacing NaN": {"space directions": None, "spacings": "nan 1 1"},
    "spacing infinite": {"space directions": None, "spacings": "1 inf 1"},
    "spacing zero": {"space directions": None, "spacings": "0 0 0"},
    "two spacings": {"space directions": None, "spacings": "1 1"},
    "spacing of a galaxy": {"space directions": "(1e30,0,0) (0,1e30,0) (0,0,1e30)"},
    "spacing of nothing": {"space directions": "(1e-30,0,0) (0,1e-30,0) (0,0,1e-30)"},
    "directions NaN": {"space directions": "(nan,0,0) (0,1,0) (0,0,1)"},
    "directions infinite": {"space directions": "(1,0,0) (0,inf,0) (0,0,1)"},
    "directions zero": {"space directions": "(0,0,0) (0,0,0) (0,0,0)"},
    "directions flat": {"space directions": "(1,0,0) (1,0,0) (0,0,1)"},
    "a direction none": {"space directions": "none (0,1,0) (0,0,1)"},
    "two directions": {"space directions": "(1,0,0) (0,1,0)"},
    "directions in a plane": {"space directions": "(1,0) (0,1) (0,0)"},
    "directions of text": {"space directions": "left posterior superior"},
    "directions never closed": {"space directions": "(1,0,0) (0,1,0) (0,0,1"},
    "left and right of one way": {"space": "left-anterior-superior"},
    "the same in short": {"space": "LAS"},
    "origin NaN": {"space origin": "(nan,0,0)"},
    "origin infinite": {"space origin": "(0,-inf,0)"},
    "origin of two numbers": {"space origin": "(0,0)"},
    "origin of nothing": {"space origin": ""},
    "microns": {"space units": '"um" "um" "um"'},
    "centimetres along one axis": {"units": '"mm" "mm" "cm"'},
    "compressed, but not": {"encoding": "gzip"},
    "text": {"encoding": "ascii"},
    "bzip2": {"encoding": "bzip2"},
    "encoding that there is not": {"encoding": "foo"},
    "encoding missing": {"encoding": None},
    "bytes to skip beyond the file": {"byte skip": "1000000"},
    "bytes to skip negative": {"byte skip": "-2"},
    "lines to skip beyond the file": {"line skip": "1000000"},
    "lines to skip negative": {"line skip": "-1"},
    "voxels missing": {"data file": "other.raw"},
    "voxels nowhere": {"data file": ""},
    "no line of voxels": {"data file": None},
    "voxels in the folder above": {"data file": "../a.raw"},
    "voxels climb": {"data file": "sub/../../../etc/passwd"},
    "voxels climb by backslashes": {"data file": "..\\a.raw"},
    "voxels from the root": {"data file": "/etc/passwd"},
    "voxels of a drive": {"data file": "C:\\a.raw"},
    "voxels of a device": {"data file": "/dev/zero"},
    "voxels in the folder itself": {"data file": "."},
    "voxels under a long name": {"data file": "a" * 5000},
    "voxels under a name with a zero": {"data file": "a\0.raw"},
    "voxels under a name with an escape": {"data file": "a\x1b[2J.raw"},
    "voxels a file a slice": {"data file": "a%03d.raw 1 4 1"},
    "voxels in a list of files": {"data file": "LIST\n/etc/passwd"},
    "voxels in the header itself": {"data file": "a.nrrd"},
    "two files of voxels": {"data file": "a.raw\ndatafile: ../a.raw"},
    "a field of no value": {"content\nkinds": "domain domain domain"},
    "a field twice": {"type": "short\nTYPE: short"},
}  # fmt: skip


@pytest.mark.parametrize("case", NRRDS)
def test_nrrd_header(tmp_path, refused, case):
    nrrd(tmp_path / "a.nrrd", **NRRDS[case])
    assert "a.nrrd: " in refused(lambda: read_image(tmp_path / "a.nrrd")).replace("a.raw", "a.nrrd")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"kinds": None},
        {"kinds": "??? none space"},
        {"space directions": "(1, 0, 0) (0, 1.5, 0) (0, 0, 3)"},
        {"thicknesses": "nan nan 3", "space units": '"mm" "mm" "mm"'},
        {"space units": '"Millimeter" "" "???"'},
        {"data file": None, "datafile": "./a.raw"},
        {"Type": "signed short", "type": None},
        {"byte skip": "-1"},
    ],
)
def test_nrrd_header_that_is_sound(tmp_path, fields):
    nrrd(tmp_path / "a.nrrd", **fields)
    values, affine = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(values, image_values(0).astype(np.int16))
    np.testing.assert_array_equal(affine[:3, 3], (-1, -2, 3))
    np.testing.assert_array_equal(np.diag(affine), (-1, -1.5, 3, 1))


def test_nrrd_of_channels(tmp_path):
    """An axis of another kind, without a direction, is that of the channels; as ITK writes it."""
    values = np.random.default_rng(0).integers(0, 99, (4, 5, 6, 2)).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(values, isVector=True), str(tmp_path / "a.nrrd"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.nrrd")[0], values.transpose(2, 1, 0, 3))


def whole_nrrd(*, compressed: bool) -> bytes:
    """Header and voxels in one file, as ITK writes them."""
    content = image_values(0).astype(np.int16).tobytes(order="F")
    header = (
        "NRRD0004\n# Complete NRRD file format specification at:\ntype: short\ndimension: 3\n"
        "space: left-posterior-superior\nsizes: 6 5 4\nkinds: domain domain domain\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\nendian: little\n"
        f"encoding: {'gzip' if compressed else 'raw'}\n\n"
    )
    return header.encode() + (gzip.compress(content, mtime=0) if compressed else content)


RAW, ZIPPED = whole_nrrd(compressed=False), whole_nrrd(compressed=True)
NRRD_FILES = {
    "empty": b"",
    "noise": NOISE,
    "zeros": bytes(5000),
    "magic": b"NRRD0004\n",
    "magic of the future": RAW.replace(b"NRRD0004", b"NRRD0009"),
    "a line without end": b"NRRD0004\ntype: " + b"x" * 2**21,
    "lines without end": b"NRRD0004\n" + b"# x\n" * 2**19,
    "not UTF-8": b"NRRD0004\ntype: \xff\xfe\n\n",
    "cut by a byte": RAW[:-1],
    "cut within the header": RAW[:100],
    "a byte more": RAW + b"\0",
    "compressed and cut": ZIPPED[:-20],
    "compressed and cut by a byte": ZIPPED[:-1],
    "compressed and flipped": edited(ZIPPED, len(ZIPPED) - 100),
    "compressed of fewer": ZIPPED.replace(b"6 5 4", b"6 5 9"),
    "compressed of more": ZIPPED.replace(b"6 5 4", b"6 5 2"),
    "bomb": ZIPPED[: ZIPPED.index(b"\n\n") + 2] + gzip.compress(bytes(2**25)),
}


OLD = RAW.replace(b"NRRD0004\n", b"NRRD00.01\r\n")


@pytest.mark.parametrize("content", [RAW, ZIPPED, OLD], ids=["raw", "gzip", "old"])
def test_nrrd_that_is_sound(tmp_path, content):
    (tmp_path / "a.nrrd").write_bytes(content)
    values, _ = read_image(tmp_path / "a.nrrd")
    np.testing.assert_array_equal(values, image_values(0).astype(np.int16))


@pytest.mark.parametrize("case", NRRD_FILES)
def test_nrrd_file(tmp_path, refused, case):
    (tmp_path / "a.nrrd").write_bytes(NRRD_FILES[case])
    refused(lambda: read_image(tmp_path / "a.nrrd"), "a.nrrd: ")


@in_one_folder(100)
@given(st.dictionaries(st.integers(0, 330), st.integers(0, 255), min_size=1, max_size=6))
def test_any_bytes_in_an_nrrd_header(tmp_path, changes):
    content = bytearray(RAW)
    for position, value in changes.items():
        content[position] = value
    (tmp_path / "a.nrrd").write_bytes(content)
    reads_or_refuses(tmp_path / "a.nrrd")
