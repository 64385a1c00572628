"""DICOM that is no volume: one line each, with names and numbers."""

import shutil
import sys

import numpy as np
import pytest
from dicom_files import (
    AXIAL,
    positions,
    pydicom,
    stored_values,
    uids,
    write_enhanced,
    write_series,
)

from mijax.data.scans import find_scans, read_scan
from mijax.errors import UserError

PLACES = positions(6)
SIX = stored_values((6, 6, 5))


def refusal(folder, **options):
    """The one line that a folder gives, when its scan is found or read."""
    with pytest.raises(UserError) as caught:
        (scan,) = find_scans(folder, channels=1, **options)
        read_scan(scan, channels=1)
    line = str(caught.value)
    assert len(line.splitlines()) == 1 and line.isprintable() and str(folder) in line
    assert len(line) < 600
    return line


def set_to(**content):
    """Values by name for every slice; by None they are taken away."""

    def change(made, i):
        for name, value in content.items():
            if value is None:
                delattr(made, name)
            else:
                setattr(made, name, value(i) if callable(value) else value)

    return change


def colour(made, i):
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.PixelData = 3 * made.PixelData


def cut(made, i):
    if i == 3:
        made.PixelData = made.PixelData[:-2]


def one_spacing(made, i):
    if i == 3:
        made.PixelSpacing = [0.8, 0.75]


def syntax(uid):
    def change(made, i):
        made.PixelData = pydicom.encaps.encapsulate([b"\0" * 64])
        made.file_meta.TransferSyntaxUID = uid

    return change


def jpeg_ls_of(columns):
    def change(made, i):
        values = np.sort(stored_values((64, 48)), axis=0)  # what an encoder makes smaller
        made.Rows, made.Columns = values.shape
        made.PixelData = values.tobytes()
        made.compress(uids.JPEGLSLossless)
        made.Columns = columns

    return change


def jpeg_of_32_bits(made, i):
    syntax(uids.JPEGBaseline8Bit)(made, i)
    made.BitsAllocated, made.BitsStored, made.HighBit = 32, 8, 7


TWICE = positions(3)[[0, 0, 1, 1, 2, 2]]
BAD = {
    "a gap": (
        {"places": np.delete(positions(7), 3, axis=0)},
        "a gap: 2 and 3 are 5 mm apart, the 6 slices 2.5 mm as a rule, so that 1 may be missing",
    ),
    "a gap at an end": (
        {"places": np.delete(positions(9), [1, 2, 3], axis=0)},
        "a gap: 0 and 1 are 10 mm apart, the 6 slices 2.5 mm as a rule, so that 3 may be missing",
    ),
    "a tilt": (
        {"places": PLACES + np.outer(np.arange(6), [0, 2.5 * np.tan(np.radians(12)), 0])},
        "sheared by 12.0° (a tilted gantry)",
    ),
    "beside": (
        {"places": PLACES + np.outer(np.eye(6)[2], [1.5, 0, 0])},
        "2 lies 1.5 mm beside the line of the other slices",
    ),
    "two at a place": (
        {"places": PLACES[[0, 1, 2, 3, 3, 5]]},
        "3 and 4 lie at one place, 18.50 mm along the normal, and 1 of its 5 places have several",
    ),
    "times": (
        {"places": TWICE, "change": set_to(TemporalPositionIdentifier=lambda i: i % 2 + 1)},
        "4-D, 2 volumes of 3 slices each (TemporalPositionIdentifier 1, 2)",
    ),
    "b-values": (
        {"places": TWICE, "change": set_to(DiffusionBValue=lambda i: 1000.0 * (i % 2))},
        "4-D, 2 volumes of 3 slices each (DiffusionBValue 0.0, 1000.0)",
    ),
    "nothing that differs": ({"places": TWICE}, "4-D, 2 volumes of 3 slices each;"),
    "spacings": ({"change": one_spacing}, "PixelSpacing is from 0.8×0.7 to 0.8×0.75 mm"),
    "no spacing": (
        {"change": set_to(PixelSpacing=None)},
        "6 of its 6 images cannot be slices: 0: no PixelSpacing, or no 2 numbers in it",
    ),
    "no numbers": (
        {"change": set_to(ImagePositionPatient=[0.0, 1.0])},
        "no ImagePositionPatient, or no 3 numbers in it",
    ),
    "spacing 0": ({"change": set_to(PixelSpacing=[0.0, 1.0])}, "PixelSpacing is not positive"),
    "no directions": (
        {"change": set_to(ImageOrientationPatient=[1.0, 0, 0, 1, 0, 0])},
        "ImageOrientationPatient is no pair of unit vectors at a right angle",
    ),
    "colour": ({"change": colour}, "colour (3 samples a pixel, 'RGB')"),
    "palette": (
        {"change": set_to(PhotometricInterpretation="PALETTE COLOR")},
        "colour (1 samples a pixel, 'PALETTE COLOR')",
    ),
    "slope 0": ({"slope": 0.0}, "RescaleSlope is 0"),
    "a table": (
        {"change": set_to(ModalityLUTSequence=[pydicom.Dataset()])},
        "a table of values (ModalityLUTSequence)",
    ),
    "overflow": ({"slope": 1e300}, "values that are NaN or infinite"),
    "half a slice": ({"change": cut}, "3: its pixels cannot be read"),
    "no decoder": (
        {"change": syntax(uids.HTJ2K)},
        "no decoder of High-Throughput JPEG 2000 Image Compression is installed (pylibjpeg - ",
    ),
    # At the first and the third GDCM ends the process, the second it cuts.
    "a larger header": ({"change": jpeg_ls_of(55)}, "0: its pixels cannot be read"),
    "a smaller header": ({"change": jpeg_ls_of(40)}, "0: its pixels cannot be read"),
    "bits that no JPEG has": ({"change": jpeg_of_32_bits}, "cannot be read (32 bits allocated)"),
    "a film": ({"change": syntax(uids.MPEG2MPML)}, "decompress the series, by gdcmconv --raw or"),
    "a name that leads elsewhere": (
        {"uid": "../../1"},
        "SeriesInstanceUID cannot be '../../1'",
    ),
    "more bits than there are": (
        {"change": set_to(BitsStored=12, HighBit=3)},
        "its pixels cannot be read (12 bits up to bit 3 of 16)",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", BAD)
def test_no_volume(tmp_path, name):
    options, line = BAD[name]
    write_series(tmp_path, SIX, **options)
    assert line in refusal(tmp_path)


def test_rounded_positions_are_no_gap_and_no_tilt(tmp_path):
    write_series(tmp_path, SIX, places=PLACES + np.random.default_rng(0).normal(0, 0.01, (6, 3)))
    assert find_scans(tmp_path, channels=1)[0].stack


def test_copies_of_files(tmp_path):
    (path, *_) = write_series(tmp_path, SIX)
    (tmp_path / "more").mkdir()
    shutil.copy(path, tmp_path / "more" / "copy")
    line = refusal(tmp_path)
    assert f"1 slice twice: {path} and {tmp_path / 'more' / 'copy'} have one SOPInstanceUID" in line


def test_sizes(tmp_path):
    write_series(tmp_path, SIX)
    larger = stored_values((2, 7, 5))
    write_series(tmp_path, larger, places=positions(8)[6:], names="more{}")
    assert "slices of several sizes: 6 of 6×5, 2 of 7×5" in refusal(tmp_path)


def test_one_slice_that_is_damaged_is_not_left_out(tmp_path):
    def last(made, i):
        if i == 5:
            del made.ImagePositionPatient

    write_series(tmp_path, SIX, change=last)
    assert "1 of its 6 images cannot be slices: 5: no ImagePositionPatient" in refusal(tmp_path)


def test_a_header_that_ends_early(tmp_path):
    path = write_series(tmp_path, SIX)[2]
    whole = path.read_bytes()
    for size in (200, 300, 400, 700, len(whole) - SIX[0].nbytes - 150):
        path.write_bytes(whole[:size])
        assert refusal(tmp_path).startswith(f"{path}: "), size


def test_no_thickness(tmp_path):
    write_series(tmp_path, SIX[:1], change=set_to(SliceThickness=None))
    assert "one slice, and neither SliceThickness nor SpacingBetweenSlices" in refusal(tmp_path)


def one_frame_less(made):
    made.NumberOfFrames = 7


def huge(made):
    made.Rows = made.Columns = 65535


def times_of_frames(made):
    for i, frame in enumerate(made.PerFrameFunctionalGroupsSequence):
        frame.FrameContentSequence[0].TemporalPositionIndex = i % 2 + 1


@pytest.mark.parametrize(
    ("places", "change", "line"),
    [
        (PLACES, one_frame_less, "7 frames, 6 of them placed"),
        (PLACES, huge, "takes 96 GiB, and 4 GiB can be read"),
        (TWICE, times_of_frames, "2 volumes of 3 slices each (TemporalPositionIndex 1, 2)"),
        (np.delete(positions(7), 3, axis=0), None, "a gap: ct frame 3 and ct frame 4 are 5 mm"),
    ],
)
def test_frames_that_are_no_volume(tmp_path, places, change, line):
    write_enhanced(tmp_path / "ct", SIX, places=places, change=change)
    assert line in refusal(tmp_path)


def test_a_folder_of_no_images(tmp_path):
    write_series(tmp_path, SIX[:1], change=set_to(Modality="SEG"))
    assert "1 DICOM files, and none is an image" in refusal(tmp_path)


def test_no_such_series(tmp_path):
    write_series(tmp_path, SIX, uid="1.5")
    line = refusal(tmp_path, series=["1.6"])
    assert "no series '1.6'; there are 1.5 'thorax' (6 slices of 6×5)" in line


def test_a_series_among_other_formats(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"")
    assert "--series is of DICOM files, and there is none" in refusal(tmp_path, series=["1.6"])


def test_several_channels(tmp_path):
    write_series(tmp_path, SIX)
    with pytest.raises(UserError, match="a DICOM series has one channel; 2 needed"):
        find_scans(tmp_path, channels=2)


def test_without_the_extra(tmp_path, monkeypatch):
    write_series(tmp_path, SIX)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(UserError, match=r"needs pydicom.*pip install -e '.\[dicom\]'"):
        find_scans(tmp_path, channels=1)


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")
def test_random_damage_is_read_or_refused(tmp_path):
    """Bytes of headers changed one at a time: a volume or a line, never anything else."""
    paths = write_series(tmp_path, SIX[:3], orientation=AXIAL, uid=uids.generate_uid())
    whole, random = paths[1].read_bytes(), np.random.default_rng(0)
    ends = len(whole) - SIX[0].nbytes
    refused = 0
    for _ in range(150):
        spoilt = bytearray(whole)
        for at in random.integers(128, ends, 3):
            spoilt[at] = random.integers(256)
        paths[1].write_bytes(spoilt)
        try:
            for scan in find_scans(tmp_path, channels=1):
                read_scan(scan, channels=1)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 20
