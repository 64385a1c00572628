"""Labels of a part: an ignore label, slices that nobody annotated, classes that nobody drew."""

import json

import nibabel as nib
import numpy as np
import pytest
from folders import (
    SHAPE,
    label_values,
    write_description,
    write_msd,
    write_nifti,
    write_nnunet,
)

from mijax.data import (
    UNLABELLED,
    Annotation,
    Case,
    Drawn,
    Volume,
    check_annotation,
    open_source,
    prepare,
    read_annotation,
    to_slices,
    write_annotation,
)
from mijax.data.index import index
from mijax.data.volume import Geometry
from mijax.errors import UserError

CLASSES = ("background", "a", "b")


def volume_of(label, axcodes="RAS"):
    """A case whose file has its axes in that order."""
    ras, target = (nib.orientations.axcodes2ornt(codes) for codes in ("RAS", axcodes))
    turn = nib.orientations.ornt_transform(ras, target)
    affine = np.diag([1.0, 1.5, 3.0, 1.0]) @ nib.orientations.inv_ornt_aff(turn, label.shape)
    label = nib.orientations.apply_orientation(label, turn)
    return Volume("case", np.zeros((*label.shape, 1), np.float32), label, affine)


@pytest.mark.parametrize("ignored", [3, 4, 1000])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("layout", ["msd", "nnunet"])
def test_the_label_to_ignore(tmp_path, layout, dtype, ignored):
    label = label_values(0).astype(dtype)
    expected = label.astype(np.uint8)
    label[2:4, 1], expected[2:4, 1] = ignored, UNLABELLED
    if layout == "msd":
        root = write_msd(tmp_path / "set", labelled=1, unlabelled=0, tests=0)
        names = {"0": "background", "1": "a", "2": "b", str(ignored): "ignore"}
        write_description(root, modality={"0": "MRI"}, labels=names)
        case = "case_00"
    else:
        root, case = write_nnunet(tmp_path / "set", cases=1, channels=1), "c0"
        names = {"background": 0, "a": 1, "b": 2, "ignore": ignored}
        write_description(root, channel_names={"0": "MRI"}, labels=names, file_ending=".nii.gz")
    write_nifti(root / "labelsTr" / f"{case}.nii.gz", label)
    source = open_source("folder", directory=str(root), cache=str(tmp_path / "cache"))
    assert source.classes == CLASSES
    found = source.volume(case).label
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)
    label[0, 0, 0] = 255  # what mijax has inside is no label of a file
    write_nifti(root / "labelsTr" / f"{case}.nii.gz", label)
    with pytest.raises(UserError, match=f"label value 255 is none of .*, nor {ignored}, to ignore"):
        open_source("folder", directory=str(root), cache=str(tmp_path / "cache"))


def drawn_of(slices=None, classes=None, **options):
    return Annotation({"case": Drawn(slices, classes)}, **options)


@pytest.mark.parametrize(("axcodes", "axis"), [("RAS", 2), ("LPI", 2), ("SLP", 0), ("RSA", 1)])
def test_slices_that_are_not_listed_are_unlabelled(axcodes, axis):
    """Indices are those of the file, whichever way its axes point."""
    volume = volume_of(label_values(0, (4, 5, 6)), axcodes)
    found = drawn_of((0, 4)).restrict(volume, CLASSES)
    before, after = (np.moveaxis(x.label, axis, 0) for x in (volume, found))
    np.testing.assert_array_equal(after[[0, 4]], before[[0, 4]])
    assert (after[[1, 2, 3, 5]] == UNLABELLED).all()
    assert volume.label.max() == 2  # that of the source is left as it is


def test_the_plane_is_that_of_the_slices():
    found = drawn_of((1,), plane="sagittal").restrict(volume_of(label_values(0)), CLASSES).label
    assert (found[[0, *range(2, SHAPE[0])]] == UNLABELLED).all() and found[1].max() <= 2


def test_empty_slices_are_unlabelled_by_flag():
    label = label_values(0)
    label[..., 1] = 0
    label[..., 2] = 0
    label[0, 0, 2] = UNLABELLED  # somebody looked at this one
    found = Annotation({}, empty_is_unlabelled=True).restrict(volume_of(label), CLASSES).label
    assert (found[..., 1] == UNLABELLED).all()
    np.testing.assert_array_equal(found[..., [0, 2, 3]], label[..., [0, 2, 3]])
    assert Annotation({}).restrict(volume_of(label), CLASSES).label is not None


def test_classes_that_were_not_drawn():
    label = np.minimum(label_values(0), 1)
    volume = drawn_of(classes=("a",)).restrict(volume_of(label), CLASSES)
    assert volume.undrawn == (2,)
    np.testing.assert_array_equal(volume.label, label)
    assert drawn_of(classes=CLASSES).restrict(volume, CLASSES).undrawn == ()
    with pytest.raises(UserError, match="label of case case has a, which is none of the classes"):
        drawn_of(classes=("b",)).restrict(volume_of(label), CLASSES)
    cases = {"x": Drawn(None, ("a",)), "y": Drawn((1,), ("a",)), "z": Drawn(None, ("background",))}
    assert Annotation(cases | {"w": Drawn((0,), None)}).undrawn(CLASSES) == ((1, 2), (2,))


def test_the_source_has_what_counts(tmp_path):
    root, cache = write_msd(tmp_path / "set"), str(tmp_path / "cache")
    found = index("msd", directory=str(root), cache=cache)
    annotation = Annotation({"case_01": Drawn((2,), None)})
    source = prepare(found, cache=cache, annotation=annotation)
    assert (source.volume("case_01").label[..., [0, 1, 3]] == UNLABELLED).all()
    np.testing.assert_array_equal(source.volume("case_00").label, label_values(0))
    assert source.volume("case_02").label is None
    # What is prepared is whole: another annotation takes it from there.
    whole = prepare(found, cache=cache)
    np.testing.assert_array_equal(whole.volume("case_01").label, label_values(1))


def test_padding_is_labelled_and_told_apart():
    volume = drawn_of((1,)).restrict(volume_of(label_values(0)), CLASSES)
    options = {"spacing": None, "plane": "axial", "intensity": "minmax"}
    slices = to_slices(volume, size=(10, 12), fit="pad", **options)
    assert (slices.label == UNLABELLED).sum() == 3 * SHAPE[0] * SHAPE[1]
    shown = slices.label[:, *slices.inside]
    np.testing.assert_array_equal(shown, np.moveaxis(volume.label, 2, 0))
    resized = to_slices(volume, size=(12, 10), fit="resize", **options)
    assert set(np.unique(resized.label)) <= {0, 1, 2, UNLABELLED}


def test_written_and_read(tmp_path):
    drawn = {"a": Drawn((0, 2), None), "b": Drawn((), ("x", "y")), "c": Drawn(None, ("x",))}
    write_annotation(tmp_path / "annotation.json", drawn)
    assert read_annotation(tmp_path / "annotation.json") == drawn
    content = {"ba\u0308r": {"classes": ["a\u0308"]}}
    (tmp_path / "mac.json").write_text(json.dumps(content))
    assert read_annotation(tmp_path / "mac.json") == {"b\u00e4r": Drawn(None, ("\u00e4",))}


def test_a_class_in_a_form_of_unicode_that_a_mac_writes(tmp_path):
    """In dataset.json and in the annotation."""
    root = write_msd(tmp_path / "set", labelled=1)
    labels = {"background": 0, "a": 1, "a\u0308": 2}
    write_description(root, modality={"0": "MRI"}, labels=labels)
    found = index("msd", directory=str(root), cache="")
    assert found.classes == ("background", "a", "\u00e4")
    (tmp_path / "mac.json").write_text(json.dumps({"case_00": {"classes": ["a\u0308"]}}))
    drawn = read_annotation(tmp_path / "mac.json")
    check_annotation(
        drawn, found.cases, classes=found.classes, plane="axial", geometry=found.geometry
    )


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "cannot be read as an annotation"),
        ("[]", "names of cases for keys"),
        ('{"a": [0, 1]}', 'case a must be an object with "slices", "classes" or both'),
        ('{"a": {}}', 'with "slices", "classes" or both'),
        ('{"a": {"slice": [0]}}', 'with "slices", "classes" or both'),
        ('{"a": {"slices": 3}}', '"slices" of case a must be a list of numbers from 0 on'),
        ('{"a": {"slices": [-1]}}', "numbers from 0 on"),
        ('{"a": {"slices": [true]}}', "numbers from 0 on"),
        ('{"a": {"slices": [1.0]}}', "numbers from 0 on"),
        ('{"a": {"classes": []}}', '"classes" of case a must be a list of class names'),
        ('{"a": {"classes": [1]}}', "list of class names"),
        ('{"a": {"classes": ["x\\ny"]}}', "list of class names"),
        ('{"a\\nb": {"slices": [0]}}', "names of cases for keys"),
    ],
)
def test_files_that_are_no_annotation(tmp_path, content, expected):
    (tmp_path / "annotation.json").write_text(content)
    with pytest.raises(UserError) as caught:
        read_annotation(tmp_path / "annotation.json")
    message = str(caught.value)
    assert "annotation.json: " in message and expected in message and "\n" not in message


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        ({"c": Drawn((0,), None)}, "case c is not in the data set"),
        ({"a.nii.gz": Drawn((0,), None)}, "is not in the data set; names have no ending: a"),
        ({"b": Drawn((0,), None)}, "case b has no label; take it out"),
        ({"a": Drawn((0, 6), None)}, "case a has no slice 6; its 6 slices are 0 to 5"),
        ({"a": Drawn(None, ("x",))}, "case a has class 'x', which is none of background, a, b"),
    ],
)
def test_what_does_not_fit_the_data(drawn, expected):
    with pytest.raises(UserError, match=expected):
        check_annotation(
            drawn,
            [Case("a", "a", True), Case("b", "b", False)],
            classes=CLASSES,
            plane="axial",
            geometry=lambda name: Geometry((4, 5, 6), 1, np.eye(4)),
        )
    fitting = {"a": Drawn((0, 5), ("b", "background"))}
    check_annotation(
        fitting,
        [Case("a", "a", True)],
        classes=CLASSES,
        plane="axial",
        geometry=lambda name: Geometry((4, 5, 6), 1, np.eye(4)),
    )


def test_what_was_annotated_of_some_cases():
    drawn = {"a": Drawn((1,)), "b": Drawn(None, ("liver",))}
    whole = Annotation(drawn, plane="coronal")
    assert whole.of(["a", "c"]) == Annotation({"a": Drawn((1,))}, plane="coronal")
    assert whole.of(["b"]) == Annotation({"b": drawn["b"]})  # of classes in any plane
    assert not whole.of(["c"]).partial and whole._replace(empty_is_unlabelled=True).of([]).partial
