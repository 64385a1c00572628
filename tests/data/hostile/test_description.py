"""A dataset.json that is not what it should be."""

import json
import os

import pytest
from damage import (
    GOOD,
    HUGE,
    INF,
    JSON_FILES,
    MSD,
    NAN,
    NNUNET,
    PATHS,
    fill,
    in_one_folder,
    json_values,
    nested,
)
from hypothesis import given
from hypothesis import strategies as st

from mijax.data.sources.layout import read_layout
from mijax.errors import UserError

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
@pytest.mark.parametrize("case", JSON_FILES)
def test_description(tmp_path, refused, case, kind):
    root = root_with(tmp_path, JSON_FILES[case])
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


@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of files that are not taken
@in_one_folder(50)
@given(
    st.sampled_from([MSD, NNUNET]),
    st.dictionaries(st.sampled_from([*MSD, *NNUNET, "training", "test", "dataset"]), json_values),
)
def test_any_values_in_a_description(tmp_path, base, changes):
    root = root_with(tmp_path, json.dumps({**base, **changes}).encode())
    try:
        layout = layout_of(root)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and str(root) in str(error)
    else:
        assert all(isinstance(name, str) for name in layout.classes)
