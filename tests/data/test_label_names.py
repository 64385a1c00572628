"""Names of labels for ITK-SNAP and 3D Slicer."""

import re

from mijax.data.formats.label_names import write_label_names


def test_each_class_has_its_value_its_name_and_a_colour_of_its_own(tmp_path):
    names = ["background", "left ventricle", 'the "core"']
    snap, slicer = (
        path.read_text().splitlines()[1:] for path in write_label_names(tmp_path, names)
    )
    assert snap[0] == '0 0 0 0 0 0 0 "background"'
    found = [re.fullmatch(r'(\d+) (\d+ \d+ \d+) 1 1 1 "(.+)"', line).groups() for line in snap[1:]]
    assert [(value, name) for value, _, name in found] == [
        ("1", "left ventricle"),
        ("2", "the 'core'"),
    ]
    assert len({colour for _, colour, _ in found}) == 2
    assert slicer[0] == "0 background 0 0 0 0"
    assert slicer[1] == f"1 left_ventricle {found[0][1]} 255"


def test_there_may_be_more_classes_than_colours(tmp_path):
    paths = write_label_names(tmp_path, [f"class {i}" for i in range(255)])
    assert all(len(path.read_text().splitlines()) == 256 for path in paths)
