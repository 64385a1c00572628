"""Which files are which scans, and what of them can be read."""

import nibabel as nib
import numpy as np
import pytest
from folders import write_description

from mijax.data.outputs import missing_outputs
from mijax.data.scans import Scan, check_apart, find_scans, not_scans, read_scan
from mijax.data.sources.layout import read_layout
from mijax.errors import UserError


def save(path, *shape, value=1):
    nib.save(nib.Nifti1Image(np.full(shape, value, np.int16), np.eye(4)), path)


def found(folder, channels):
    return {
        scan.name: scan.problem or [path.name for path in scan.images]
        for scan in find_scans(folder, channels=channels)
    }


def touch(folder, *names):
    for name in names:
        (folder / name).write_text("")


def test_files_of_one_channel(tmp_path):
    touch(tmp_path, "b.nii", "a_0000.nii.gz", "c.d.mha", "e.mhd", "e.raw", "f.nrrd")
    touch(tmp_path, ".hidden.nii.gz", "._f.nrrd", "notes.txt", "g.png")
    (tmp_path / "folder.nii").mkdir()
    assert found(tmp_path, 1) == {
        "a": ["a_0000.nii.gz"],
        "b": ["b.nii"],
        "c.d": ["c.d.mha"],
        "e": ["e.mhd"],
        "f": ["f.nrrd"],
    }
    assert found(tmp_path / "c.d.mha", 1) == {"c.d": ["c.d.mha"]}
    assert found(tmp_path / "a_0000.nii.gz", 1) == {"a": ["a_0000.nii.gz"]}


@pytest.mark.parametrize("description", ["modality", "channel_names"])
@pytest.mark.parametrize(
    ("image", "label", "case"),
    [("c{}_0000", "c{}", "c{}"), ("c{}_0000", "c{}_0000", "c{}_0000"), ("c{}", "c{}", "c{}")],
)
@pytest.mark.filterwarnings("ignore::mijax.errors.Notice")  # of names of the other layout
def test_a_file_has_one_name_whoever_reads_it(tmp_path, description, image, label, case):
    """From the beginning, where the labels are named as nnU-Net and the MSD name them."""

    def names():
        layout = read_layout(tmp_path, kind="folder", patient_pattern="", test_images=True)
        scans = find_scans(tmp_path / "imagesTr", channels=1, numbered=layout.numbered)
        assert [scan.name for scan in scans] == [entry.case.name for entry in layout.entries]
        return [scan.name for scan in scans]

    labels = {"0": "background", "1": "a"}
    write_description(tmp_path, **{description: {"0": "CT"}}, labels=labels, file_ending=".nii")
    for folder in ("imagesTr", "labelsTr"):
        (tmp_path / folder).mkdir()
    touch(tmp_path / "imagesTr", *(f"{image.format(number)}.nii" for number in range(3)))
    before = names()
    for number in range(3):
        touch(tmp_path / "labelsTr", f"{label.format(number)}.nii")
        assert names() == [case.format(n) for n in range(3)]
    assert before == names() or label == image == "c{}_0000"


def test_endings_in_any_case(tmp_path):
    touch(tmp_path, "a.NII.GZ", "b.Nii", "c.MHA", "d.NRRD", "e_0000.NII")
    assert list(found(tmp_path, 1)) == ["a", "b", "c", "d", "e"]
    assert found(tmp_path / "a.NII.GZ", 1) == {"a": ["a.NII.GZ"]}


def test_what_is_no_scan_is_named(tmp_path):
    def named(path=tmp_path, output=tmp_path / "out"):
        return not_scans(path, find_scans(path, channels=1), output=output)

    touch(tmp_path, "a.nii", ".hidden.png", "notes.txt", "g.png", "e.raw", "f.raw", "f.mhd")
    (tmp_path / "f.mhd").write_text("ElementDataFile = f.raw\n")
    (tmp_path / "folder.nii").mkdir()
    assert named().startswith(
        f"{tmp_path}: not taken: 'e.raw', 'folder.nii/', 'g.png', 'notes.txt'; only .nii.gz, "
    )
    assert named(tmp_path / "a.nii") is None
    for path in (tmp_path / "e.raw", tmp_path / "g.png", tmp_path / "notes.txt"):
        path.unlink()
    (tmp_path / "folder.nii").rmdir()
    assert named() is None
    (tmp_path / "out").mkdir()
    assert named() is None and "'out/'" in named(output=tmp_path / "elsewhere")
    assert named(output=tmp_path / "elsewhere" / ".." / "out") is None


def test_files_of_several_channels(tmp_path):
    touch(tmp_path, "a_0001.nii", "a_0000.nii", "b.nii", "c_0003.nii", "d_1_0000.mha")
    touch(tmp_path, "d_1_0001.mha", "e_0000.nii")
    assert found(tmp_path, 2) == {
        "a": ["a_0000.nii", "a_0001.nii"],
        "b": ["b.nii"],
        "c_0003": ["c_0003.nii"],
        "d_1": ["d_1_0000.mha", "d_1_0001.mha"],
        "e_0000": ["e_0000.nii"],
    }


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 5, 1, 2)])
def test_a_file_of_all_channels_is_a_case_whatever_its_name(tmp_path, shape):
    """Two scans as the MSD names them would be the two channels of one in nnU-Net."""
    save(tmp_path / "prostate_0000.nii", *shape)
    save(tmp_path / "prostate_0001.nii", *shape)
    save(tmp_path / "a_0000.nii", 3, 4, 5)
    save(tmp_path / "a_0001.nii", 3, 4, 5)
    touch(tmp_path, "b_0000.nii", "b_0001.nii")  # damaged; still two channels
    assert found(tmp_path, 2) == {
        "a": ["a_0000.nii", "a_0001.nii"],
        "b": ["b_0000.nii", "b_0001.nii"],
        "prostate_0000": ["prostate_0000.nii"],
        "prostate_0001": ["prostate_0001.nii"],
    }
    scans = {scan.name: scan for scan in find_scans(tmp_path, channels=2)}
    assert read_scan(scans["prostate_0001"], channels=2).image.shape == (3, 4, 5, 2)
    (tmp_path / "prostate_0001.nii").unlink()
    save(tmp_path / "prostate_0001.nii", 3, 4, 5)  # one of them is enough to show it
    assert "prostate_0000" in found(tmp_path, 2)


@pytest.mark.parametrize(
    ("channels", "names", "case"),
    [
        (1, ["a.nii", "a.nii.gz"], "a"),
        (1, ["a.mha", "a.mhd"], "a"),
        (2, ["a.nii", "a_0000.nii", "a_0001.nii"], "a"),
        (2, ["a_0000.nii", "a_0000.mha", "a_0001.nii"], "a"),
    ],
)
def test_a_name_that_two_cases_have(tmp_path, channels, names, case):
    touch(tmp_path, "z.nii", *names)
    result = found(tmp_path, channels)
    assert result.keys() == {case, "z"}
    assert f"case {case} is there twice" in result[case]
    assert all(name in result[case] for name in names)
    scan = next(s for s in find_scans(tmp_path, channels=channels) if s.name == case)
    with pytest.raises(UserError, match="is there twice"):
        read_scan(scan, channels=channels)


def test_names_in_either_unicode_form(tmp_path):
    touch(tmp_path, "Scha\u0308del_0000.nii", "Sch\u00e4del_0001.nii")
    assert found(tmp_path, 2) == {
        "Sch\u00e4del": ["Scha\u0308del_0000.nii", "Sch\u00e4del_0001.nii"]
    }
    touch(tmp_path, "Scha\u0308del.nii")
    assert r"'Scha\u0308del.nii'" in found(tmp_path, 2)["Sch\u00e4del"]


@pytest.mark.parametrize(
    ("name", "shown"), [("caf\udce9", r"caf\udce9"), ("a\nb", r"a\nb"), ("a\x1b[2J", r"a\x1b[2J")]
)
def test_a_name_that_no_line_or_table_can_show(tmp_path, name, shown):
    touch(tmp_path, f"{name}.nii")
    (scan,) = find_scans(tmp_path, channels=1)
    assert scan.name == shown
    assert scan.problem == f"{tmp_path}: {shown} is not plain UTF-8; rename it"


def test_links_are_followed_since_their_reader_names_them(tmp_path):
    save(tmp_path / "elsewhere.nii", 3, 4, 5)
    (tmp_path / "scans").mkdir()
    (tmp_path / "scans" / "a.nii").symlink_to(tmp_path / "elsewhere.nii")
    (scan,) = find_scans(tmp_path / "scans", channels=1)
    assert read_scan(scan, channels=1).image.shape == (3, 4, 5, 1)


def test_a_label_map_goes_where_no_scan_lies(tmp_path):
    """Nor where one is linked from, which the label map would take the place of."""
    for name in ("scans", "links", "out"):
        (tmp_path / name).mkdir()
    touch(tmp_path / "scans", "a.nii.gz")
    (tmp_path / "links" / "a.nii.gz").symlink_to(tmp_path / "scans" / "a.nii.gz")
    (tmp_path / "other").symlink_to(tmp_path / "scans")
    for given in ("scans", "links", "links/a.nii.gz"):
        scans = find_scans(tmp_path / given, channels=1)
        check_apart(tmp_path / given, scans, tmp_path / "out")
        for output in ("scans", "other", given.split("/")[0]):
            with pytest.raises(UserError, match=f"{output} holds the scans; choose another"):
                check_apart(tmp_path / given, scans, tmp_path / output)


def test_nothing_there(tmp_path):
    for path, message in [
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path, "no scan there"),
        (tmp_path / "a.txt", "not one of .nii.gz"),
    ]:
        touch(tmp_path, "a.txt")
        with pytest.raises(UserError, match=message):
            find_scans(path, channels=1)


def test_reading(tmp_path):
    save(tmp_path / "a_0000.nii", 3, 4, 5, value=1)
    save(tmp_path / "a_0001.nii", 3, 4, 5, 1, value=2)
    save(tmp_path / "b.nii.gz", 3, 4, 5, 2)
    save(tmp_path / "c.nii.gz", 3, 4, 5)
    save(tmp_path / "d_0000.nii.gz", 3, 4, 5)
    save(tmp_path / "d_0001.nii.gz", 3, 4, 6)
    scans = {scan.name: scan for scan in find_scans(tmp_path, channels=2)}
    a = read_scan(scans["a"], channels=2)
    assert a.image.shape == (3, 4, 5, 2) and a.label is None and a.name == "a"
    assert [a.image[..., c].mean() for c in (0, 1)] == [1, 2]
    assert read_scan(scans["b"], channels=2).image.shape == (3, 4, 5, 2)
    with pytest.raises(UserError, match="1 channel; 2 needed"):
        read_scan(scans["c"], channels=2)
    with pytest.raises(UserError, match="d_0001.nii.gz: shape"):
        read_scan(scans["d"], channels=2)


def test_two_scans_of_one_name_are_not_written_over_each_other(tmp_path):
    scans = [Scan("a", (tmp_path / folder / "a.nii.gz",)) for folder in "bc"]
    options = {"classes": 2, "probabilities": False, "overwrite": False}
    with pytest.raises(UserError, match=r"a.nii.gz would be written for two cases"):
        missing_outputs(tmp_path, scans, tmp_path / "out", **options)
