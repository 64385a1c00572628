"""Label maps as DICOM segmentations, read back by highdicom and SimpleITK."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_files import (
    AXIAL,
    highdicom,
    oblique,
    positions,
    pydicom,
    stored_values,
    write_enhanced,
    write_series,
)
from pydicom.sr.codedict import codes

import mijax
from mijax.data.formats.dicom.codes import ANATOMY, KNOWN, segments_of
from mijax.data.formats.dicom.segmentation import check_segmentation, write_segmentation
from mijax.data.scans import find_scans
from mijax.errors import UserError

CLASSES = ("background", "spleen", "left_ventricle", "Hippocampus")
SHAPE = (4, 8, 6)  # SimpleITK reads frames of whole bytes alone
sitk.ProcessObject.GlobalWarningDisplayOff()


def stack_in(folder):
    return find_scans(folder, channels=1)[0].stack


def labels_of(stack):
    """Of classes 1 and 3, with a slice that has neither; class 2 is empty."""
    labels = np.random.default_rng(1).choice([0, 1, 3], stack.shape).astype(np.uint8)
    labels[..., 1] = 0
    return labels


def written(folder, stack, labels=None, classes=CLASSES):
    path = folder / "seg.dcm"
    labels = labels_of(stack) if labels is None else labels
    write_segmentation(path, labels, stack, segments_of(classes))
    return path


def series(folder, orientation):
    write_series(
        folder,
        stored_values(SHAPE),
        orientation=orientation,
        places=positions(4, orientation=orientation)[::-1],
    )
    return stack_in(folder)


def frames(folder, orientation):
    places = positions(4, orientation=orientation)[[2, 0, 3, 1]]
    write_enhanced(folder / "ct", stored_values(SHAPE), places=places, orientation=orientation)
    return stack_in(folder)


@pytest.mark.parametrize("make", [series, frames])
@pytest.mark.parametrize("orientation", [AXIAL, oblique()])
def test_every_voxel_lies_where_it_was(tmp_path, make, orientation):
    """Highdicom puts a SEG together by the places of its frames, whatever their order."""
    stack = make(tmp_path / "in", orientation)
    seg = highdicom.seg.segread(written(tmp_path, stack))
    volume = seg.get_volume(combine_segments=True)
    back = volume.match_geometry(
        highdicom.Volume(
            np.zeros(stack.shape, np.uint8),
            np.diag([-1.0, -1, 1, 1]) @ stack.affine,
            coordinate_system="PATIENT",
        )
    )
    np.testing.assert_array_equal(back.array, labels_of(stack))
    assert seg.number_of_segments == 3


def test_simpleitk_reads_the_frames(tmp_path):
    """Each is the part of its segment in the slice at its place."""
    stack = series(tmp_path / "in", AXIAL)
    labels, path = labels_of(stack), written(tmp_path, stack)
    planes = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="GDCMImageIO"))
    places = {frame.position: z for z, frame in enumerate(stack.frames)}
    seg, found = pydicom.dcmread(path), set()
    for plane, frame in zip(planes, seg.PerFrameFunctionalGroupsSequence, strict=True):
        z = places[tuple(frame.PlanePositionSequence[0].ImagePositionPatient)]
        k = frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        np.testing.assert_array_equal(plane > 0, k == labels[..., z].T)
        found.add((k, z))
    assert found == {(k, z) for k in (1, 3) for z in (0, 2, 3)}


def test_what_it_says(tmp_path):
    stack = series(tmp_path / "in", AXIAL)
    seg = pydicom.dcmread(written(tmp_path, stack))
    assert (seg.Modality, seg.SegmentationType, seg.SegmentsOverlap) == ("SEG", "BINARY", "NO")
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == ("1.2.3", "1.2.3.4")
    assert [item.SegmentLabel for item in seg.SegmentSequence] == list(CLASSES[1:])
    first = seg.SegmentSequence[0]
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "78961009"
    assert first.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (first.SegmentAlgorithmType, first.SegmentAlgorithmName) == ("AUTOMATIC", "mijax")
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("mijax", mijax.__version__)
    (source,) = seg.ReferencedSeriesSequence
    assert source.SeriesInstanceUID == stack.uid
    instances = {item.ReferencedSOPInstanceUID for item in source.ReferencedInstanceSequence}
    assert instances == {frame.instance for frame in stack.frames}
    place = {frame.instance: frame.position for frame in stack.frames}
    for frame in seg.PerFrameFunctionalGroupsSequence:
        image = frame.DerivationImageSequence[0].SourceImageSequence[0]
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(position, place[image.ReferencedSOPInstanceUID])


def test_a_label_map_of_nothing(tmp_path):
    """The standard asks for one frame at least: all are kept."""
    stack = series(tmp_path / "in", AXIAL)
    path = written(tmp_path, stack, np.zeros(stack.shape, np.uint8))
    check_segmentation(path, stack)
    seg = highdicom.seg.segread(path)
    assert not seg.pixel_array.any() and seg.number_of_segments == 3


def test_of_slices_that_lack_what_may_be_empty(tmp_path):
    """Files that lost who the patient is."""
    write_series(tmp_path / "in", stored_values(SHAPE))
    assert "PatientName" not in pydicom.dcmread(tmp_path / "in" / "0")
    assert pydicom.dcmread(written(tmp_path, stack_in(tmp_path / "in"))).PatientName == ""


def test_who_the_patient_is_goes_along(tmp_path):
    def named(made, i):
        made.PatientName, made.PatientID, made.SpecificCharacterSet = "Müller", "7", "ISO_IR 192"

    write_series(tmp_path / "in", stored_values(SHAPE), change=named)
    seg = pydicom.dcmread(written(tmp_path, stack_in(tmp_path / "in")))
    assert (seg.PatientName, seg.PatientID) == ("Müller", "7")


def test_without_a_frame_of_reference(tmp_path):
    def lost(made, i):
        del made.FrameOfReferenceUID

    write_series(tmp_path / "in", stored_values(SHAPE), change=lost)
    with pytest.raises(UserError, match=r"no SEG of series 1.2.3.5 \(.*Frame Of Reference"):
        written(tmp_path, stack_in(tmp_path / "in"))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_of_a_header_that_cannot_be_read_whole(tmp_path, monkeypatch):
    stack = series(tmp_path / "in", AXIAL)
    monkeypatch.setattr(pydicom, "dcmread", lambda *_, **__: 1 / 0)
    with pytest.raises(UserError, match=r"no SEG of series 1.2.3.5 \(division by zero\)"):
        written(tmp_path, stack)


def test_what_is_no_whole_seg_of_the_series(tmp_path):
    stack = series(tmp_path / "in", AXIAL)
    path = written(tmp_path, stack)
    check_segmentation(path, stack)
    with pytest.raises(UserError, match=r"a SEG of series 1\.2\.3\.5"):
        check_segmentation(path, stack._replace(uid="1.9"))
    with pytest.raises(UserError, match="no SEG"):
        check_segmentation(tmp_path / "in" / "0", stack)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="no SEG, or "):
        check_segmentation(path, stack)


# Codes ---------------------------------------------------------------------------------------


def test_the_codes_that_are_known_are_those_of_the_standard():
    """As pydicom has them; it lacks myocardium, which SNOMED CT has as 74281007."""
    ours = {code.meaning: code.value for code in KNOWN.values()}
    assert ours.pop("Myocardium") == "74281007"
    for meaning, value in ours.items():
        assert getattr(codes.SCT, meaning.title().replace(" ", "")).value == value
    assert ANATOMY.value == codes.SCT.AnatomicalStructure.value
    assert {"RV", "Myo", "LV"} == {s.label for s in segments_of(("background", "RV", "Myo", "LV"))}


def test_codes_of_a_file(tmp_path):
    file = tmp_path / "codes.json"
    lesion = {
        "label": "Core of the tumour",
        "category": ["49755003", "SCT", "Morphologically Abnormal Structure"],
        "type": ["108369006", "SCT", "Neoplasm"],
    }
    file.write_text(json.dumps({"core": lesion, "spleen": {"type": ["1", "99LOCAL", "a part"]}}))
    core, spleen, liver = segments_of(("background", "core", "spleen", "liver"), file)
    assert core == ("Core of the tumour", tuple(lesion["category"]), tuple(lesion["type"]))
    assert spleen == ("spleen", ANATOMY, ("1", "99LOCAL", "a part"))
    assert liver.type.value == "10200004"
    file.write_text(json.dumps({"a\u0308": lesion}))  # as a Mac writes it
    assert segments_of(("background", "\u00e4"), file) == (core,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as codes"),
        ("[]", "codes are a JSON object"),
        ('{"ring": {"type": ["1", "SCT", "a"]}}', "'ring' is none of the classes core"),
        ('{"core": ["1", "SCT", "a"]}', 'core: needs "type"'),
        ('{"core": {"type": ["1", "SCT", "a"], "colour": "red"}}', 'core: needs "type"'),
        ('{"core": {"type": ["1", "SCT"]}}', r'"type" is \[CODE, SCHEME, MEANING\]'),
        ('{"core": {"type": [1, "SCT", "a"]}}', r'"type" is \[CODE, SCHEME, MEANING\]'),
        ('{"core": {"type": ["1", "SCT", "a\\\\b"]}}', r'"type" is \[CODE, SCHEME, MEANING\]'),
        ('{"core": {"type": ["1", "SCT", "a"], "label": ""}}', "a label is a text"),
    ],
)
def test_codes_that_are_none(tmp_path, content, message):
    file = tmp_path / "codes.json"
    file.write_text(content)
    with pytest.raises(UserError, match=message):
        segments_of(("background", "core"), file)


def test_a_class_without_a_code():
    line = r'no DICOM code of body, core; give them by --codes=FILE, JSON such as {"body": {"type"'
    with pytest.raises(UserError, match=line):
        segments_of(("background", "body", "spleen", "core"))
