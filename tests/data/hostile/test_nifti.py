"""NIfTI files whose header or gzip stream is damaged."""

import gzip
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from damage import (
    BOMB,
    GOOD,
    INF,
    MEMORY,
    NAN,
    NOISE,
    PACKED,
    edited,
    in_one_folder,
    nifti,
    reads_or_refuses,
)
from folders import AFFINE, image_values
from hypothesis import given
from hypothesis import strategies as st

from mijax.data.formats.imagefile import read_image


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
        "bomb behind": BOMB,
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
