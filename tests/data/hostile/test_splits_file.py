"""A splits.json that is not what it should be."""

import json

import pytest
from damage import GOOD, JSON_FILES, NAN, PATHS, in_one_folder, json_values, nested
from hypothesis import given
from hypothesis import strategies as st

from mijax.data import read_splits
from mijax.errors import UserError

SPLITS = {"labelled": ["a"], "unlabelled": [], "validation": ["b"], "test": []}
SPLITS_FILES = {
    **{case: JSON_FILES[case] for case in JSON_FILES},
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
@given(st.dictionaries(st.sampled_from(list(SPLITS)), json_values))
def test_any_values_in_splits(tmp_path, changes):
    path = tmp_path / "splits.json"
    path.write_text(json.dumps({**SPLITS, **changes}))
    try:
        splits = read_splits(path)
    except UserError as error:
        assert len(str(error).splitlines()) == 1 and "splits.json" in str(error)
    else:
        assert all(isinstance(name, str) for names in splits for name in names)
