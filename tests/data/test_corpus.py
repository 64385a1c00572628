"""A corpus of hostile inputs: each gives one line, takes little memory, leaves nothing behind."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import resource
import struct
import tarfile
import time
import tracemalloc
import urllib.error
import zlib
from http.client import IncompleteRead

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from folders import (
    AFFINE,
    image_values,
    label_values,
    write_metaimage,
    write_msd,
    write_nnunet,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mijax.data import Volume, open_source, read_splits, to_slices
from mijax.data.formats.imagefile import read_image
from mijax.data.sources.acdc import acdc_recipe
from mijax.data.sources.folder import folder_recipe
from mijax.data.sources.layout import read_layout
from mijax.data.sources.promise12 import promise12_recipe
from mijax.data.sources.spleen import fetch_spleen
from mijax.errors import UserError

sitk.ProcessObject.GlobalWarningDisplayOff()
MEMORY = 2**23  # bytes that Python and NumPy may take for a hostile file
NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module", autouse=True)
def bounded_memory():
    """Of the whole process, with what C++ takes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # KiB


def tree(folder) -> set[str]:
    """Everything under a folder but its cache, without following links."""
    found = set()
    for path, folders, files in os.walk(os.fsencode(folder)):
        folders[:] = [name for name in folders if name != b"cache"]
        found |= {os.path.join(path, name) for name in folders + files}
    return found


@pytest.fixture
def refused(tmp_path):
    """(call, words of the message) -> message, when all bounds were kept."""

    def check(call, *words: str) -> str:
        before, start = tree(tmp_path), time.process_time()
        tracemalloc.start()
        try:
            with pytest.raises(UserError) as caught:
                call()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        message = str(caught.value)
        assert len(message.splitlines()) == 1 and message.isprintable()
        assert len(message) < 1000
        for word in words:
            assert word in message
        assert peak < MEMORY
        assert time.process_time() - start < 5
        assert tree(tmp_path) == before
        return message

    return check


# NIfTI


def nifti(kind=nib.Nifti1Image, **fields) -> bytes:
    """A small volume with these fields of its header, in which nothing else is wrong."""
    image = kind(image_values(0), AFFINE)
    content = image.to_bytes()
    header = type(image.header)(content[: image.header.sizeof_hdr], check=False)
    for name, value in fields.items():
        if name == "dim":
            value = [*value, *[1] * (8 - len(value))]
        header[name] = value
    return header.binaryblock + content[header.sizeof_hdr :]


def qform(**fields) -> dict:
    return {"sform_code": 0, "qform_code": 1, **fields}


NIFTI_HEADERS = {
    "terabytes": {"dim": [3, 32767, 32767, 32767]},
    "exabytes": {"dim": [4, 32767, 32767, 32767, 32767]},
    "more than an index holds": {"dim": [7, *[32767] * 7]},
    "gigabytes": {"dim": [3, 2000, 1000, 500]},
    "one axis is absurd": {"dim": [3, 32767, 5, 4]},
    "a slice too many": {"dim": [3, 6, 5, 5]},
    "a slice too few": {"dim": [3, 6, 5, 3]},
    "a voxel": {"dim": [3, 1, 1, 1]},
    "no voxel": {"dim": [3, 0, 5, 4]},
    "negative axis": {"dim": [3, -6, 5, 4]},
    "two negative axes": {"dim": [3, -6, -5, 4]},
    "long vector of FreeSurfer": {"dim": [3, -1, 1, 1], "glmin": 2**31 - 1},
    "long vector of no length": {"dim": [3, -1, 1, 1], "glmin": 0},
    "no axes": {"dim": [0, 6, 5, 4]},
    "one axis": {"dim": [1, 120]},
    "two axes": {"dim": [2, 30, 4]},
    "five axes": {"dim": [5, 6, 5, 1, 2, 2]},
    "eight axes": {"dim": [8, 6, 5, 4]},
    "minus three axes": {"dim": [-3, 6, 5, 4]},
    "type unknown": {"datatype": 0},
    "type binary": {"datatype": 1},
    "type that there is not": {"datatype": 9999},
    "type negative": {"datatype": -1},
    "type complex": {"datatype": 32, "dim": [3, 3, 5, 4]},
    "type colour": {"datatype": 128, "dim": [3, 8, 5, 4]},
    "type colour and alpha": {"datatype": 2304},
    "type twice as wide": {"datatype": 64},
    "type a quarter as wide": {"datatype": 2},
    "offset NaN": {"vox_offset": NAN},
    "offset infinite": {"vox_offset": INF},
    "offset minus infinite": {"vox_offset": -INF},
    "offset negative": {"vox_offset": -352},
    "offset within the header": {"vox_offset": 16},
    "offset before the end of the header": {"vox_offset": 336},
    "offset a row too far": {"vox_offset": 368},
    "offset a terabyte": {"vox_offset": 1e12},
    "offset of any size": {"vox_offset": 3e38},
    "slope infinite": {"scl_slope": INF},
    "slope minus infinite": {"scl_slope": -INF},
    "intercept NaN": {"scl_slope": 1, "scl_inter": NAN},
    "intercept infinite": {"scl_slope": 2, "scl_inter": -INF},
    "voxel size NaN": {"pixdim": [1, NAN, 1, 1, 1, 1, 1, 1]},
    "voxel size infinite": {"pixdim": [1, 1, INF, 1, 1, 1, 1, 1]},
    "voxel size NaN, qform": qform(pixdim=[1, 1, 1, NAN, 1, 1, 1, 1]),
    "voxel size infinite, qform": qform(pixdim=[1, INF, 1, 1, 1, 1, 1, 1]),
    "voxel size of a galaxy": qform(pixdim=[1, 1e30, 1e30, 1e30, 1, 1, 1, 1]),
    "voxel size of nothing": qform(pixdim=[1, 1e-30, 1e-30, 1e-30, 1, 1, 1, 1]),
    "voxel size NaN, no form": {"sform_code": 0, "pixdim": [1, NAN, 1, 1, 1, 1, 1, 1]},
    "rotation NaN": qform(quatern_b=NAN),
    "rotation infinite": qform(quatern_c=INF),
    "rotation longer than one": qform(quatern_d=5),
    "origin NaN, qform": qform(qoffset_x=NAN),
    "affine NaN": {"srow_x": [NAN, 0, 0, 0]},
    "affine infinite": {"srow_y": [0, INF, 0, 0]},
    "affine as large as it goes": {"srow_z": [0, 0, 3e38, 0]},
    "affine of nothing": {"srow_z": [0, 0, 1e-38, 0]},
    "origin NaN": {"srow_x": [1, 0, 0, NAN]},
    "origin infinite": {"srow_z": [0, 0, 1, -INF]},
    "affine of zeros": {f"srow_{axis}": [0] * 4 for axis in "xyz"},
    "affine flat": {"srow_z": [1, 0, 0, 0]},
    "header of no size": {"sizeof_hdr": 0, "magic": b"abc"},
    "magic of another format": {"magic": b"abcd"},
    "magic of nothing": {"magic": b""},
    "magic of NIfTI-2": {"magic": b"n+2"},
    "header says NIfTI-2": {"sizeof_hdr": 540, "magic": b"n+2"},
}
NIFTI2_HEADERS = {
    "2**62 voxels": {"dim": [3, 2**62, 1, 1]},
    "2**189 voxels": {"dim": [3, *[2**63 - 1] * 3]},
    "least axis": {"dim": [3, -(2**63), 1, 1]},
    "2**40 axes": {"dim": [2**40, 6, 5, 4]},
    "offset 2**62": {"vox_offset": 2**62},
    "offset negative": {"vox_offset": -(2**63)},
    "slope infinite": {"scl_slope": INF},
    "affine 1e300": {f"srow_{axis}": [1e300, 1e300, 1e300, 0] for axis in "xyz"},
    "voxel size 1e300": qform(pixdim=[1, *[1e300] * 3, 1, 1, 1, 1]),
    "magic of NIfTI-1": {"magic": b"n+1"},
    "type unknown": {"datatype": 0},
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("case", NIFTI_HEADERS)
def test_nifti_header(tmp_path, refused, case, ending):
    content = nifti(**NIFTI_HEADERS[case])
    path = tmp_path / f"scan{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".nii.gz" else content)
    refused(lambda: read_image(path), f"scan{ending}: ")


@pytest.mark.parametrize("case", NIFTI2_HEADERS)
def test_nifti2_header(tmp_path, refused, case):
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(nib.Nifti2Image, **NIFTI2_HEADERS[case]))
    refused(lambda: read_image(path), "scan.nii: ")


def test_what_the_corpus_damages_can_be_read(tmp_path):
    for number, kind in enumerate((nib.Nifti1Image, nib.Nifti2Image)):
        path = tmp_path / f"{number}.nii"
        path.write_bytes(nifti(kind))
        values, affine = read_image(path)
        np.testing.assert_array_equal(values, image_values(0))
        np.testing.assert_array_equal(affine, AFFINE)


def test_slope_nan_is_none(tmp_path):
    """nibabel itself writes NaN where it does not scale."""
    path = tmp_path / "scan.nii"
    path.write_bytes(nifti(scl_slope=NAN, scl_inter=NAN))
    np.testing.assert_array_equal(read_image(path)[0], image_values(0))


GOOD = nifti()
PACKED = gzip.compress(GOOD, mtime=0)
NOISE = np.random.default_rng(0).bytes(5000)


def edited(content: bytes, position: int) -> bytes:
    content = bytearray(content)
    content[position] ^= 0xFF
    return bytes(content)


NIFTI_FILES = {
    "a.nii": {
        "empty": b"",
        "a byte": b"\\",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "noise": NOISE,
        "text": b"<!DOCTYPE html>\n<title>404</title>\n" * 20,
        "zip": b"PK\3\4" + NOISE,
        "gzip": PACKED,
        "bytes swapped by twos": b"".join(GOOD[i : i + 2][::-1] for i in range(0, len(GOOD), 2)),
        "shifted": b"\0" + GOOD,
        "twice": GOOD * 2,
        "a byte more": GOOD + b"\0",
        **{f"cut at {n}": GOOD[:n] for n in (4, 347, 348, 351, 352, 353, 500, len(GOOD) - 1)},
    },
    "a.nii.gz": {
        "a byte": b"\x1f",
        "magic": b"\x1f\x8b",
        "method": edited(PACKED, 2),
        "of nothing": gzip.compress(b""),
        "of text": gzip.compress(b"hello\n" * 100),
        "of noise": gzip.compress(NOISE),
        "of gzip": gzip.compress(PACKED),
        "cut within the volume": gzip.compress(GOOD[:-1]),
        "cut within the header": gzip.compress(GOOD[:300]),
        "checksum": edited(PACKED, -8),
        "length": edited(PACKED, -4),
        "text behind": PACKED + b"hello",
        "volume behind": PACKED * 2,
        "flags": PACKED[:3] + b"\xff" + PACKED[4:],
        **{f"flipped at {n}": edited(PACKED, n) for n in (10, 15, 60, 200, len(PACKED) // 2)},
        **{f"cut by {n}": PACKED[:-n] for n in (1, 4, 8, 9, 50, 300)},
        "bomb behind": gzip.compress(GOOD + bytes(2**25)),
        "bomb in many members": PACKED + gzip.compress(bytes(2**16)) * 500,
        "bomb alone": gzip.compress(bytes(2**25)),
        "bomb before": gzip.compress(bytes(2**25) + GOOD),
        "bomb of terabytes": gzip.compress(nifti(dim=[3, 32767, 32767, 900]) + bytes(2**25)),
        "bomb in the extension": gzip.compress(
            nifti(vox_offset=2**25)[:348] + struct.pack("<4Bii", 1, 0, 0, 0, 2**31 - 16, 0)
            + bytes(2**24)
        ),
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "case"), [(name, case) for name, cases in NIFTI_FILES.items() for case in cases]
)
def test_nifti_file(tmp_path, refused, name, case):
    (tmp_path / name).write_bytes(NIFTI_FILES[name][case])
    refused(lambda: read_image(tmp_path / name), f"{name}: ")


def test_extension_that_claims_gigabytes_is_passed_over(tmp_path):
    path = tmp_path / "a.nii.gz"
    extension = struct.pack("<4Bii", 1, 0, 0, 0, 2**31 - 16, 0) + bytes(2**24)
    content = nifti(vox_offset=348 + len(extension))
    path.write_bytes(gzip.compress(content[:348] + extension + content[352:]))
    tracemalloc.start()
    values, _ = read_image(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(values, image_values(0))
    assert peak < MEMORY


@pytest.mark.parametrize("fit", ["pad", "crop", "resize"])
def test_voxels_of_ten_metres_in_slices_of_millimetres(refused, fit):
    volume = Volume("a", image_values(0)[..., None], None, np.diag([1e4, 1e4, 1, 1]))
    options = {"size": 8, "plane": "axial", "intensity": "zscore"}
    refused(
        lambda: to_slices(volume, fit=fit, spacing=1.0, **options),
        "case a: ",
        "data.slices.spacing",
    )


def reads_or_refuses(path) -> None:
    try:
        values, affine = read_image(path)
    except UserError as error:
        assert path.name in str(error) and len(str(error).splitlines()) == 1
    else:
        assert values.ndim in (3, 4) and np.isfinite(affine).all()


def in_one_folder(examples: int):
    """All examples write to the same folder, one after the other."""
    return settings(
        max_examples=examples, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


@in_one_folder(150)
@given(st.dictionaries(st.integers(0, 351), st.integers(0, 255), min_size=1, max_size=8))
def test_any_bytes_in_a_nifti_header(tmp_path, changes):
    content = bytearray(GOOD)
    for position, value in changes.items():
        content[position] = value
    (tmp_path / "a.nii").write_bytes(content)
    reads_or_refuses(tmp_path / "a.nii")


@in_one_folder(60)
@given(st.integers(0, len(PACKED) - 1), st.integers(1, 255), st.integers(0, 20))
def test_any_byte_of_a_gzip_stream(tmp_path, position, flip, cut):
    content = bytearray(PACKED)
    content[position] ^= flip
    (tmp_path / "a.nii.gz").write_bytes(content[: len(content) - cut])
    reads_or_refuses(tmp_path / "a.nii.gz")


# MetaImage

METAIMAGES = {
    "terabytes": {"DimSize": "100000 100000 100000"},
    "exabytes": {"DimSize": "2000000000 2000000000 2000000000"},
    "axis above 64 bits": {"DimSize": "99999999999999999999 5 4"},
    "product above 64 bits": {"DimSize": "4294967296 4294967296 1"},
    "negative axis": {"DimSize": "-6 5 4"},
    "no voxel": {"DimSize": "0 5 4"},
    "axes of text": {"DimSize": "a b c"},
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


def metaimage(path, **fields) -> None:
    """A good MetaImage with these lines of its header changed, added or (None) left out."""
    write_metaimage(path, image_values(0).astype(np.int16))
    lines = dict(line.split(" = ", 1) for line in path.read_text().splitlines())
    last = {"ElementDataFile": lines.pop("ElementDataFile")}
    lines = {**lines, **{key: fields[key] for key in fields if key not in last}}
    lines |= {key: fields.get(key, value) for key, value in last.items()}
    text = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    path.write_text(text)


@pytest.mark.parametrize("case", METAIMAGES)
def test_metaimage_header(tmp_path, refused, case):
    metaimage(tmp_path / "a.mhd", **METAIMAGES[case])
    assert "a.mhd: " in refused(lambda: read_image(tmp_path / "a.mhd")).replace("a.raw", "a.mhd")


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


@pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
def test_voxels_whose_name_has_another_unicode_form(tmp_path, refused, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".mhd":
        metaimage(path, ElementDataFile="Sch\u00e4del.raw")
    else:
        nrrd(path, **{"data file": "Sch\u00e4del.raw"})
    (tmp_path / "a.raw").rename(tmp_path / "Scha\u0308del.raw")
    refused(lambda: read_image(path), f"a{ending}: ", "in another Unicode form; rename it")


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


# NRRD

NRRDS = {
    "terabytes": {"sizes": "100000 100000 100000"},
    "exabytes": {"sizes": "999999999 999999999 999999999"},
    "axis above 64 bits": {"sizes": "99999999999999999999 5 4"},
    "negative axis": {"sizes": "-6 5 4"},
    "no voxel": {"sizes": "0 5 4"},
    "axes of text": {"sizes": "a b c"},
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
    "origin NaN": {"space origin": "(nan,0,0)"},
    "origin infinite": {"space origin": "(0,-inf,0)"},
    "origin of two numbers": {"space origin": "(0,0)"},
    "origin of nothing": {"space origin": ""},
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


def nrrd(path, **fields) -> None:
    """A good NRRD header and its a.raw, with these fields changed, added or (None) left out."""
    path.with_suffix(".raw").write_bytes(image_values(0).astype(np.int16).tobytes(order="F"))
    lines = {
        "type": "short",
        "dimension": "3",
        "space": "left-posterior-superior",
        "sizes": "6 5 4",
        "space directions": "(1,0,0) (0,1.5,0) (0,0,3)",
        "kinds": "domain domain domain",
        "endian": "little",
        "encoding": "raw",
        "space origin": "(1,2,3)",
        "data file": "a.raw",
        **fields,
    }
    text = "".join(f"{key}: {value}\n" for key, value in lines.items() if value is not None)
    path.write_text(f"NRRD0004\n# a comment\n{text}name:=Jane: {'x' * 2000}\n")


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


@pytest.mark.parametrize("content", [RAW, ZIPPED], ids=["raw", "gzip"])
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


# Links, names and what is no file


def link(target):
    return lambda path: path.symlink_to(target)


PATHS = {
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "link to nothing": link("nowhere"),
    "link to itself": lambda path: path.symlink_to(path.name),
    "link to a device": link("/dev/zero"),
    "link to a folder": link("/tmp"),
    "link to a terminal": link("/dev/tty"),
    "link out of the folder": link("../../outside"),
    "link from the root": lambda path: path.symlink_to(path.parents[2] / "outside"),
    "link to a link out": lambda path: (
        (path.parent / ".hidden").symlink_to("../../outside"),
        path.symlink_to(".hidden"),
    ),
}


def fill(root, name: str, make) -> None:
    """A folder of a data set whose file of this name is made so."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root.parent / "outside").write_bytes(GOOD)
    (root / name).unlink(missing_ok=True)
    make(root / name)


MSD = {"modality": {"0": "CT"}, "labels": {"0": "background", "1": "a"}}
NNUNET = {
    "channel_names": {"0": "CT"},
    "labels": {"background": 0, "a": 1},
    "file_ending": ".mhd",
}


def description(root, content) -> None:
    root.mkdir(exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["imagesTr/a.nii", "labelsTr/b.nii", "imagesTs/c.nii"])
@pytest.mark.parametrize("case", PATHS)
def test_path_in_msd(tmp_path, refused, case, name):
    root = tmp_path / "set"
    description(root, MSD)
    fill(root, "imagesTr/b.nii", lambda path: path.write_bytes(GOOD))
    fill(root, name, PATHS[case])
    refused(lambda: folder_recipe(str(root), kind="msd"), name.split("/")[1])


@pytest.mark.parametrize("case", PATHS)
def test_path_in_nnunet_and_promise12(tmp_path, refused, case):
    root = tmp_path / "set"
    description(root, NNUNET)
    fill(root, "imagesTr/Case00.mhd", PATHS[case])
    refused(lambda: promise12_recipe(str(root), testing=False), "Case00.mhd")
    (root / "imagesTr" / "Case00.mhd").rename(root / "imagesTr" / "Case00_0000.mhd")
    if case != "link to itself":  # which the new name makes a link to nothing
        refused(lambda: folder_recipe(str(root), kind="nnunet"), "Case00_0000.mhd")


@pytest.mark.parametrize("case", PATHS)
def test_path_of_the_voxels(tmp_path, refused, case):
    root = tmp_path / "set"
    metaimage(root / "Case00.mhd")
    fill(root, "Case00.raw", PATHS[case])
    refused(lambda: promise12_recipe(str(root), testing=False), "Case00.raw")


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
@pytest.mark.parametrize("target", ["../outside", "imagesTr", "/dev"])
def test_folder_that_is_a_link(tmp_path, refused, target):
    root = tmp_path / "set"
    description(root, MSD)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.nii").write_bytes(GOOD)
    (root / "imagesTr").symlink_to(target)
    refused(lambda: folder_recipe(str(root), kind="msd"), "imagesTr")


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
@pytest.mark.parametrize("name", ["Case00.mhd", "Case00.nrrd"])
@pytest.mark.parametrize("case", PATHS)
def test_path_of_the_voxels_in_nnunet(tmp_path, refused, case, name):
    root = tmp_path / "set"
    ending = name.removeprefix("Case00")
    description(root, {**NNUNET, "file_ending": ending})
    (root / "imagesTr").mkdir()
    path = root / "imagesTr" / f"Case00_0000{ending}"
    metaimage(path) if ending == ".mhd" else nrrd(path, **{"data file": "Case00_0000.raw"})
    fill(root, "imagesTr/Case00_0000.raw", PATHS[case])
    refused(lambda: folder_recipe(str(root), kind="nnunet"), "Case00_0000.raw")


def test_links_out_of_the_folder_are_followed_where_that_is_asked_for(tmp_path, refused):
    """As where a hospital keeps the images in one store and the data sets are links into it."""
    root = write_msd(tmp_path / "set")
    (tmp_path / "store").mkdir()
    for number, path in enumerate(sorted(root.glob("*/[!.]*.nii.gz"))):
        path.symlink_to(path.rename(tmp_path / "store" / f"{number}.gz"))
    options = {"directory": str(root), "cache": str(tmp_path / "cache")}
    refused(
        lambda: open_source("folder", **options), "a link out of", "data.source.follow_links=True"
    )
    source = open_source("folder", **options, follow_links=True)
    np.testing.assert_array_equal(source.volume("case_01").image[..., 0], image_values(1))
    np.testing.assert_array_equal(source.volume("case_01").label, label_values(1))


def test_every_source_has_the_option_to_follow_links(tmp_path):
    (tmp_path / "outside").write_bytes(GOOD)
    metaimage(tmp_path / "store" / "Case00.mhd")
    (tmp_path / "set" / "training" / "patient001").mkdir(parents=True)
    for name, target in (
        ("Case00.mhd", "store/Case00.mhd"),
        ("Case00.raw", "store/Case00.raw"),
        ("training/patient001/patient001_frame01.nii", "outside"),
    ):
        (tmp_path / "set" / name).symlink_to(tmp_path / target)
    for recipe in (acdc_recipe, promise12_recipe):
        with pytest.raises(UserError, match="a link out of"):
            recipe(str(tmp_path / "set"), testing=False)
        assert len(recipe(str(tmp_path / "set"), testing=False, follow_links=True).cases) == 1


def test_links_within_the_folder_are_followed(tmp_path):
    root = tmp_path / "set"
    description(root, MSD)
    (root / "store").mkdir()
    (root / "store" / "1").write_bytes(GOOD)
    fill(root, "imagesTr/a.nii", link("../store/1"))
    (tmp_path / "alias").symlink_to("set")
    (case,) = folder_recipe(str(tmp_path / "alias"), kind="msd").cases
    assert case.name == "a"


@pytest.mark.parametrize(
    "name", [b"a\xff", b"\xc3(", b"a\nb", b"a\rb", b"\x1b[2J", b"\xe2\x80\xa8"]
)
def test_name_that_no_line_can_show(tmp_path, refused, name):
    root = tmp_path / "set"
    for folder, ending in (("imagesTr", b".nii"), ("test", b"")):
        (root / folder).mkdir(parents=True)
        description(root, MSD)
        path = os.path.join(os.fsencode(root / folder), name + ending)
        with open(path, "wb") as file:
            file.write(GOOD)
    refused(lambda: folder_recipe(str(root), kind="msd"), "imagesTr: the file name ", "rename it")
    part = os.path.join(os.fsencode(root), b"test" + name)
    os.mkdir(part)
    with open(os.path.join(part, b"Case00.mhd"), "wb"):
        pass
    refused(lambda: promise12_recipe(str(root), testing=True), "the folder name 'test")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("imagesTr/a.nii", "imagesTr/a.nii.gz"),
        ("imagesTr/a.nii", "imagesTs/a.nii"),
        ("imagesTr/a.nii.gz", "imagesTs/a.nii"),
        ("labelsTr/a.nii", "labelsTr/a.nii.gz"),
        ("imagesTr/b.nii", "labelsTr/a.nii"),
    ],
)
def test_duplicated_case(tmp_path, refused, first, second):
    root = tmp_path / "set"
    description(root, MSD)
    for name in ("imagesTr/c.nii", first, second):
        fill(root, name, lambda path: path.write_bytes(GOOD))
    refused(lambda: folder_recipe(str(root), kind="msd"), str(root))


def test_acdc_frames_that_are_no_files(tmp_path, refused):
    folder = tmp_path / "set" / "training" / "patient001"
    folder.mkdir(parents=True)
    for name, make in (
        ("patient001_frame01.nii", link("nowhere")),
        ("patient001_frame1.nii", lambda path: path.write_bytes(GOOD)),
        ("patient001_frame02.nii", lambda path: path.mkdir()),
    ):
        make(folder / name)
        refused(lambda: acdc_recipe(str(tmp_path / "set"), testing=False), "patient001", "frame0")
        for path in folder.iterdir():
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    (folder / "patient001_frame01.nii").write_bytes(GOOD)
    (folder / "Info.cfg").write_text(f"ED: {'9' * 5000}\nES: 1\n")
    refused(lambda: acdc_recipe(str(tmp_path / "set"), testing=False), "Info.cfg")


# dataset.json


def nested(depth: int, start: str = "[", end: str = "]") -> str:
    return start * depth + end * depth


HUGE = "9" * 5000
DESCRIPTIONS = {
    "nothing": b"",
    "blanks": b" \n" * 100,
    "NUL": bytes(100),
    "not UTF-8": b'{"modality": {"0": "\xff"}}',
    "UTF-16": json.dumps(MSD).encode("utf-16"),
    "gzip": PACKED,
    "noise": NOISE,
    "cut": json.dumps(MSD).encode()[:-3],
    "two objects": json.dumps(MSD).encode() * 2,
    "number": b"3",
    "null": b"null",
    "true": b"true",
    "text": b'"modality"',
    "NaN": b"NaN",
    "list of objects": b"[{}]",
    "nested lists": nested(10**5).encode(),
    "nested objects": nested(10**5, '{"a":', "}").encode(),
    "nested and never closed": b"[" * 10**6,
    "nested training": (json.dumps(MSD)[:-1] + f', "training": {nested(10**5)}}}').encode(),
    "number of 5000 digits": f'{{"numTraining": {HUGE}}}'.encode(),
    "a key twice": b'{"modality": {"0": "CT"}, "modality": {"0": "CT"}}',
    "a class twice": b'{"modality": {"0": "CT"}, "labels": {"0": "b", "1": "a", "1": "c"}}',
}
WRONG = {  # what is put in place of a field
    "null": None,
    "number": 3,
    "text": "CT",
    "list": ["CT"],
    "true": True,
    "empty": {},
    "key with a line break": {"0\n": "CT"},
    "key that is a lone surrogate": {"\ud800": "CT"},
}
FIELDS = {
    f"{layout} {key}: {case}": (layout, key, value)
    for layout, keys in (("msd", ("modality", "labels")), ("nnunet", ("channel_names", "labels")))
    for key in keys
    for case, value in WRONG.items()
} | {
    f"{layout} {key}: {case}": (layout, key, value)
    for layout, key, cases in (
        (
            "msd",
            "labels",
            {
                "name null": {"0": None, "1": "a"},
                "name a list": {"0": [], "1": "a"},
                "name an object": {"0": {}, "1": "a"},
                "name nested": {"0": json.loads(nested(300)), "1": "a"},
                "name of two lines": {"0": "background", "1": "a\nb"},
                "name empty": {"0": "background", "1": ""},
                "names equal": {"0": "a", "1": "a"},
                "value of 5000 digits": {"0": "background", HUGE: "a"},
                "value NaN": {"0": "background", "nan": "a"},
                "value negative": {"0": "background", "-1": "a"},
                "value empty": {"0": "background", "": "a"},
                "10000 classes": {str(n): f"c{n}" for n in range(10**4)},
                "10000 classes without one": {str(n): f"c{n}" for n in range(1, 10**4)},
            },
        ),
        (
            "nnunet",
            "labels",
            {
                "value null": {"background": 0, "a": None},
                "value true": {"background": 0, "a": True},
                "value a fraction": {"background": 0, "a": 1.0},
                "value NaN": {"background": 0, "a": NAN},
                "value infinite": {"background": 0, "a": INF},
                "value an object": {"background": 0, "a": {"b": 1}},
                "value nested": {"background": 0, "a": {"b": json.loads(nested(300))}},
                "region nested": {"background": 0, "a": json.loads(nested(300))},
                "region of 100000": {"background": 0, "a": list(range(10**5))},
                "values equal": {"background": 0, "a": 0},
                "value of text": {"background": 0, "a": "b" * 10**5},
            },
        ),
        (
            "nnunet",
            "file_ending",
            {
                "null": None,
                "number": 3,
                "list": [".nii"],
                "empty": "",
                "dot": ".",
                "climbs": "./../../x.nii",
                "slash": ".nii/x",
                "line break": ".nii\n",
                "NUL": ".nii\0",
            },
        ),
    )
    for case, value in cases.items()
}
CLIMBING = ["../x.nii", "../../x", "/etc/passwd", "a/../../x", "..\\x", "C:\\x", "\\\\host\\x"]


def root_with(tmp_path, content: bytes):
    root = tmp_path / "set"
    for name in ("imagesTr/a.nii", "imagesTr/a_0000.mhd"):
        fill(root, name, lambda path: path.write_bytes(GOOD))
    (root / "dataset.json").write_bytes(content)
    return root


def layout_of(root, kind="folder"):
    return read_layout(root, kind=kind, patient_pattern="", test_images=True)


@pytest.mark.parametrize("kind", ["folder", "msd", "nnunet"])
@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_description(tmp_path, refused, case, kind):
    root = root_with(tmp_path, DESCRIPTIONS[case])
    refused(lambda: layout_of(root, kind), "dataset.json: ")


@pytest.mark.parametrize("case", FIELDS)
def test_field_of_description(tmp_path, refused, case):
    layout, key, value = FIELDS[case]
    content = {**(MSD if layout == "msd" else NNUNET), key: value}
    root = root_with(tmp_path, json.dumps(content).encode())
    refused(lambda: layout_of(root, layout), "dataset.json: ", key.split("_")[0][:5])


@pytest.mark.parametrize("name", CLIMBING)
@pytest.mark.parametrize(
    "field",
    [
        lambda name: {"training": [{"image": "./imagesTr/a.nii", "label": name}]},
        lambda name: {"training": [{"image": name}]},
        lambda name: {"test": ["./imagesTs/b.nii", name]},
        lambda name: {"dataset": {"a": {"images": [name], "label": "a"}}},
    ],
    ids=["label", "image", "test", "dataset"],
)
def test_description_that_climbs(tmp_path, refused, field, name):
    content = {**MSD, **field(name)}
    root = root_with(tmp_path, json.dumps(content).encode())
    refused(lambda: layout_of(root), "dataset.json: ", next(iter(field(name))), "outside")


@pytest.mark.parametrize("case", PATHS)
def test_path_of_the_description(tmp_path, refused, case):
    root = tmp_path / "set"
    fill(root, "imagesTr/a.nii", lambda path: path.write_bytes(GOOD))
    fill(root, "dataset.json", PATHS[case])
    refused(lambda: layout_of(root), "dataset.json: ")


def test_description_of_terabytes(tmp_path, refused):
    root = root_with(tmp_path, b"")
    os.truncate(root / "dataset.json", 2**40)  # a hole; takes no room
    refused(lambda: layout_of(root), "dataset.json: ")


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
@in_one_folder(50)
@given(
    st.sampled_from([MSD, NNUNET]),
    st.dictionaries(st.sampled_from([*MSD, *NNUNET, "training", "test", "dataset"]), values),
)
def test_any_values_in_a_description(tmp_path, base, changes):
    root = root_with(tmp_path, json.dumps({**base, **changes}).encode())
    try:
        layout = layout_of(root)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(root) in str(error)
    else:
        assert all(isinstance(name, str) for name in layout.classes)


# splits.json

SPLITS = {"labelled": ["a"], "unlabelled": [], "validation": ["b"], "test": []}
SPLITS_FILES = {
    **{case: DESCRIPTIONS[case] for case in DESCRIPTIONS},
    "a split missing": json.dumps({**SPLITS, "test": None}).encode(),
    "a split more": json.dumps({**SPLITS, "other": []}).encode(),
    "a split twice": (json.dumps(SPLITS)[:-1] + ', "test": ["a"]}').encode(),
    **{
        f"a name {case}": json.dumps({**SPLITS, "test": ["c", value]}).encode()
        for case, value in {
            "null": None,
            "number": 1,
            "NaN": NAN,
            "true": True,
            "list": ["a"],
            "object": {"a": 1},
            "nested": json.loads(nested(300)),
            "of two lines": "a\nb",
            "with an escape": "a\x1b[2J",
            "with NUL": "a\0",
            "lone surrogate": "\udcff",
            "of 100000 letters": "a" * 10**5,
        }.items()
    },
    **{
        f"a split {case}": json.dumps({**SPLITS, "labelled": value}).encode()
        for case, value in {"text": "a", "number": 1, "true": True, "object": {"a": 1}}.items()
    },
}


@pytest.mark.parametrize("case", SPLITS_FILES)
def test_splits_file(tmp_path, refused, case):
    path = tmp_path / "splits.json"
    path.write_bytes(SPLITS_FILES[case])
    refused(lambda: read_splits(path), "splits.json: ")


@pytest.mark.parametrize("case", PATHS)
def test_path_of_the_splits(tmp_path, refused, case):
    if "out" in case or "root" in case:  # a file of splits may lie anywhere; this one is NIfTI
        (tmp_path / "outside").write_bytes(GOOD)
    (tmp_path / "a" / "b").mkdir(parents=True)
    PATHS[case](tmp_path / "a" / "b" / "splits.json")
    refused(lambda: read_splits(tmp_path / "a" / "b" / "splits.json"), "splits.json: ")


@in_one_folder(40)
@given(st.dictionaries(st.sampled_from(list(SPLITS)), values))
def test_any_values_in_splits(tmp_path, changes):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({**SPLITS, **changes}))
    try:
        splits = read_splits(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and "splits.json" in str(error)
    else:
        assert all(isinstance(name, str) for names in splits for name in names)


# Archives


def member(name: str, content: bytes = b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def archive_of(*members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(*member("Task09_Spleen", type=tarfile.DIRTYPE, mode=0o755)[:1])
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return file.getvalue()


INSIDE = "Task09_Spleen/dataset.json"
WHOLE = archive_of(member(INSIDE, b"{}" * 1000))
ARCHIVES = {
    "climbs": archive_of(member("../escaped", b"x")),
    "climbs from within": archive_of(member("Task09_Spleen/../../../escaped", b"x")),
    "folder climbs": archive_of(member("../../escaped", type=tarfile.DIRTYPE, mode=0o755)),
    "link out": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="../../../secret")),
    "link from the root": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="/etc/passwd")),
    "link within": archive_of(member(INSIDE, type=tarfile.SYMTYPE, linkname="a")),
    "link and a file through it": archive_of(
        member("Task09_Spleen/a", type=tarfile.SYMTYPE, linkname="../.."),
        member("Task09_Spleen/a/escaped", b"x"),
    ),
    "hard link out": archive_of(member(INSIDE, type=tarfile.LNKTYPE, linkname="../secret")),
    "hard link from the root": archive_of(member(INSIDE, type=tarfile.LNKTYPE, linkname="/secret")),
    "character device": archive_of(member(INSIDE, type=tarfile.CHRTYPE, devmajor=1, devminor=5)),
    "block device": archive_of(member(INSIDE, type=tarfile.BLKTYPE, devmajor=8)),
    "pipe": archive_of(member(INSIDE, type=tarfile.FIFOTYPE)),
    "cut within a member": WHOLE[:1700],
    "cut within a header": WHOLE[:700],
    "claims a terabyte": archive_of()[:512]
    + member(INSIDE, size=2**40)[0].tobuf(tarfile.GNU_FORMAT)
    + bytes(512),
    "empty": b"",
    "text": b"hello" * 300,
    "zeros": bytes(10240),
    "compressed": gzip.compress(WHOLE),
    "compressed bomb": gzip.compress(WHOLE + bytes(2**24)),
    "another folder": WHOLE.replace(b"Task09_Spleen", b"Task03_Spleen"),
    "file in place of the folder": tarfile.TarInfo("Task09_Spleen").tobuf() + bytes(1024),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_archive(tmp_path, refused, case):
    archive, cache = tmp_path / "archive.tar", tmp_path / "cache"
    archive.write_bytes(ARCHIVES[case])
    (tmp_path / "secret").write_text("not for the cache")
    md5 = hashlib.md5(ARCHIVES[case]).hexdigest()
    refused(lambda: fetch_spleen(cache, url=archive.as_uri(), md5=md5), "archive.tar: ")
    assert not list(cache.iterdir())


def test_absolute_member_stays_in_its_folder_and_goes_with_it(tmp_path):
    """tarfile's data filter takes the slash away."""
    archive, cache = tmp_path / "archive.tar", tmp_path / "cache"
    outside = tmp_path / "escaped"
    archive.write_bytes(archive_of(member(INSIDE, b"{}"), member(str(outside), b"x")))
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    folder = fetch_spleen(cache, url=archive.as_uri(), md5=md5)
    assert not outside.exists()
    assert [path.name for path in cache.rglob("*")] == ["Task09_Spleen", "dataset.json"]
    assert folder == cache / "Task09_Spleen"


class Answer(io.BytesIO):
    def __init__(self, content=b"", error=None, **headers):
        super().__init__(content)
        self.error, self.headers = error, headers

    def read(self, size=-1):
        if self.error and not (content := super().read(size)):
            raise self.error
        return content if self.error else super().read(size)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(WHOLE[:-1]),
        Answer(WHOLE + b"x"),
        Answer(b"<html>404</html>"),
        Answer(WHOLE, **{"Content-Length": str(2**60)}),
        Answer(WHOLE, **{"Content-Length": "many"}),
        Answer(WHOLE[:100], error=IncompleteRead(b"x")),
        Answer(WHOLE[:100], error=ConnectionResetError("reset")),
        Answer(WHOLE[:100], error=TimeoutError("timed out")),
        urllib.error.URLError("no such host"),
        IncompleteRead(b""),
    ],
    ids=["cut", "longer", "page", "huge", "length", "partial", "reset", "late", "host", "nothing"],
)
def test_download(tmp_path, refused, monkeypatch, answer):
    def urlopen(url, timeout):
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("urllib.request.urlopen", urlopen)
    md5 = hashlib.md5(WHOLE).hexdigest()
    refused(lambda: fetch_spleen(tmp_path / "cache", url="https://a/b.tar", md5=md5), "b.tar: ")
    assert not list((tmp_path / "cache").iterdir())


# Whole data sets


@pytest.mark.parametrize(
    "content",
    [NOISE, PACKED[:-9], NIFTI_FILES["a.nii.gz"]["bomb behind"]],
    ids=["noise", "cut", "bomb behind"],  # a gzip stream holds the time
)
@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_nothing_half_prepared_stays(tmp_path, refused, layout, content):
    """The last of the cases is bad, so that those before it were already being written."""
    root = (write_msd if layout == "msd" else write_nnunet)(tmp_path / "set")
    name = {"msd": "imagesTs/test_0.nii.gz", "nnunet": "labelsTr/c1.nii.gz"}[layout]
    (root / name).write_bytes(content)
    with pytest.raises(UserError, match=name) as caught:
        open_source(layout, directory=str(root), cache=str(tmp_path / "cache"))
    assert len(str(caught.value).splitlines()) == 1
    assert not [path for path in (tmp_path / "cache").rglob("*") if not path.is_dir()]
