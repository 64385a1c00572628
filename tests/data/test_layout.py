"""Which files of a folder are taken, under which names, and what is said of the others."""

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from folders import (
    image_values,
    label_values,
    write_description,
    write_msd,
    write_nifti,
    write_nnunet,
)

from mijax.data import open_source
from mijax.data.formats.imagefile import read_image
from mijax.data.sources.layout import read_layout
from mijax.errors import Notice, UserError

V1 = {"modality": {"0": "T2", "1": "ADC"}, "labels": {"0": "background", "1": "a", "2": "b"}}


def layout_of(root, kind="folder", **options):
    options = {"patient_pattern": "", "test_images": True, **options}
    return read_layout(root, kind=kind, **options)


def noted(root, kind="folder", **options):
    """The layout, and what is told about the folder."""
    with pytest.warns(Notice) as caught:
        layout = layout_of(root, kind, **options)
    return layout, [str(warning.message) for warning in caught]


def files_of(layout):
    """Names of the files of each case, its label last."""
    return {
        entry.case.name: [p.name for p in (*entry.images, entry.label) if p]
        for entry in layout.entries
    }


def test_nothing_to_say_about_a_clean_folder(tmp_path):
    """Notices are errors in tests, as all warnings are."""
    layout_of(write_msd(tmp_path / "msd"))
    layout_of(write_nnunet(tmp_path / "nnunet"))


@pytest.mark.parametrize("folder", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize("ending", [".NII.GZ", ".Nii.gz", ".nii"])
@pytest.mark.parametrize("write", [write_msd, write_nnunet])
def test_endings_in_any_case(tmp_path, write, folder, ending):
    root = write(tmp_path / "set")
    before = layout_of(root)
    path = sorted((root / folder).glob("[!.]*"))[0]
    other = path.with_name(path.name.removesuffix(".nii.gz") + ending)
    packed = tmp_path / "a.nii.gz" if ending.lower().endswith(".gz") else tmp_path / "a.nii"
    nib.save(nib.load(path), packed)
    packed.rename(other)
    path.unlink()
    layout = layout_of(root)
    assert [entry.case for entry in layout.entries] == [entry.case for entry in before.entries]
    assert any(other.name in names for names in files_of(layout).values())
    source = open_source("folder", directory=str(root), cache=str(tmp_path / "cache"))
    assert sum(case.labelled for case in source.cases) == 2


@pytest.mark.parametrize("ending", ["mha", "mhd", "nrrd"])
def test_other_formats_in_capitals(tmp_path, ending):
    """MetaImage above all, whose reader SimpleITK chooses by the ending in small letters."""
    image = sitk.GetImageFromArray(image_values(0))
    small, large = tmp_path / f"a.{ending}", tmp_path / f"b.{ending.upper()}"
    sitk.WriteImage(image, str(small))
    large.write_bytes(small.read_bytes())
    for one, other in zip(read_image(small), read_image(large), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_not_taken_is_named(tmp_path):
    root = write_msd(tmp_path / "set")
    (root / "imagesTr" / "more").mkdir()
    (root / "imagesTr" / "a\nb.txt").write_text("")
    (root / "labelsTr" / "case_02.mha").write_bytes(b"")
    for number in range(8):
        (root / "imagesTs" / f"{number}.dcm").write_bytes(b"")
    notes = [
        f"{root}/imagesTr: not taken: 'a\\nb.txt', 'more/'; only .nii.gz, .nii are",
        f"{root}/labelsTr: not taken: 'case_02.mha'; only .nii.gz, .nii are",
        f"{root}/imagesTs: not taken: '0.dcm', '1.dcm', '2.dcm', '3.dcm', '4.dcm', and 3 more; "
        "only .nii.gz, .nii are",
    ]
    assert noted(root)[1] == notes
    assert noted(root, test_images=False)[1] == notes[:2]


def test_voxels_beside_their_headers_are_taken(tmp_path):
    write_description(
        tmp_path, channel_names={"0": "CT"}, labels={"background": 0, "a": 1}, file_ending=".mhd"
    )
    (tmp_path / "imagesTr").mkdir()
    image = sitk.GetImageFromArray(image_values(0))
    sitk.WriteImage(image, str(tmp_path / "imagesTr" / "c_0000.mhd"))
    assert (tmp_path / "imagesTr" / "c_0000.raw").is_file()
    layout_of(tmp_path)
    (tmp_path / "imagesTr" / "d_0000.raw").write_bytes(b"")
    assert "not taken: 'd_0000.raw'; only .mhd are" in noted(tmp_path)[1][0]


@pytest.mark.parametrize("v1", [False, True])
def test_an_image_of_images_ts_may_get_a_label(tmp_path, v1):
    root = write_nnunet(tmp_path / "set") if v1 else write_msd(tmp_path / "set")
    if v1:
        write_description(root, **V1)
        for channel in range(2):
            write_nifti(root / "imagesTs" / f"test_0_{channel:04d}.nii.gz", image_values(1))
    write_nifti(root / "labelsTr" / "test_0.nii.gz", label_values(1))
    layout = noted(root)[0] if v1 else layout_of(root)
    (entry,) = (e for e in layout.entries if e.case.name == "test_0")
    assert entry.case.labelled and entry.label.parent.name == "labelsTr"
    assert {path.parent.name for path in entry.images} == {"imagesTs"}


def test_labels_of_labels_ts_are_not_read_and_that_is_told(tmp_path):
    root = write_msd(tmp_path / "set")
    write_nifti(root / "labelsTs" / "test_0.nii.gz", label_values(1))
    layout, (note,) = noted(root)
    assert not any(e.case.labelled for e in layout.entries if e.case.name == "test_0")
    assert note.startswith(f"{root}/labelsTs: not read, and imagesTs is taken as unlabelled; put")
    layout_of(root, test_images=False)  # no word of it
    (root / "labelsTs" / "gone.nii.gz").symlink_to(root / "nowhere")
    noted(root)  # which is not looked into


def test_labels_without_an_image_are_counted(tmp_path):
    root = write_msd(tmp_path / "set")
    for name in ("b", "a"):
        write_nifti(root / "labelsTr" / f"{name}.nii.gz", label_values(1))
    with pytest.raises(
        UserError, match=r"a.nii.gz: a label without an image in .*, one of 2; a label has"
    ):
        layout_of(root)


# nnU-Net v1 and folders converted by half: names and dataset.json of different kinds


@pytest.mark.parametrize("kind", ["folder", "msd"])
def test_nnunet_v1(tmp_path, kind):
    """That is, images as in v2 with the dataset.json of the MSD."""
    root = write_nnunet(tmp_path / "set")
    write_nifti(root / "imagesTs" / "t_0000.nii.gz", image_values(1))
    write_nifti(root / "imagesTs" / "t_0001.nii.gz", image_values(2))
    v2 = layout_of(root)
    write_description(root, **V1)
    v1, notes = noted(root, kind)
    assert v1.entries == v2.entries and v1.classes == v2.classes and len(v1.channels) == 2
    assert notes == [
        f"{root}/imagesTr: images are named CASE_0000 as in nnU-Net v1; each is taken for a "
        "channel of CASE"
    ]
    with pytest.warns(Notice):
        source = open_source(kind, directory=str(root), cache=str(tmp_path / "cache"))
    np.testing.assert_array_equal(source.volume("c1").image[..., 1], image_values(11))
    np.testing.assert_array_equal(source.volume("c1").label, label_values(1))


@pytest.mark.parametrize("channels", [1, 2])
def test_names_are_the_same_before_the_first_label(tmp_path, channels):
    """Of nnU-Net v1, where names end in the numbers of all channels, and no others."""
    root = write_nnunet(tmp_path / "set", channels=channels)
    one = V1 | {"modality": {"0": "T2"}}
    write_description(root, **V1 if channels == 2 else one)
    after = noted(root)[0].entries
    for path in (root / "labelsTr").iterdir():
        path.unlink()
    before = noted(root)[0].entries
    assert [entry.images for entry in before] == [entry.images for entry in after]
    assert [entry.case.name for entry in before] == ["c0", "c1"]
    if channels == 2:
        write_description(root, **one)  # a second number is none of a channel then
        assert list(files_of(layout_of(root))) == ["c0_0000", "c0_0001", "c1_0000", "c1_0001"]


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("v1", [True, False])
def test_a_channel_that_is_missing_is_a_problem_of_its_case(tmp_path, v1, labelled):
    root = write_nnunet(tmp_path / "set", cases=3)
    if v1:
        write_description(root, **V1)
    if not labelled:
        for path in (root / "labelsTr").iterdir():
            path.unlink()
    (root / "imagesTr" / "c1_0000.nii.gz").unlink()
    (root / "imagesTr" / "c2_0001.nii.gz").unlink()
    layout = noted(root)[0] if v1 else layout_of(root)
    assert [entry.problem for entry in layout.entries] == [
        None,
        f"{root}/imagesTr: case c1 has channels 0001; 2 are needed",
        f"{root}/imagesTr: case c2 has channels 0000; 2 are needed",
    ]


@pytest.mark.parametrize("labelled", [2, 0])
def test_description_of_v2_over_images_of_the_msd(tmp_path, labelled):
    root = write_msd(tmp_path / "set", labelled=labelled)
    names = files_of(layout_of(root))
    labels = {"background": 0, "a": 1, "b": 2}
    write_description(root, channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    layout, notes = noted(root)
    assert files_of(layout) == names
    assert notes == [
        f"{root}/imagesTr: images are not named CASE_0000 as in nnU-Net; each is taken for a "
        "whole case"
    ]


@pytest.mark.parametrize("write", [write_msd, write_nnunet])
def test_labels_written_in_the_other_way(tmp_path, write):
    root = write(tmp_path / "set")
    before = layout_of(root)
    for labels in ({"0": "background", "1": "a", "2": "b"}, {"b": 2, "background": 0, "a": 1}):
        channels = {"modality": {"0": "T1"}} if write is write_msd else {
            "channel_names": {"0": "T1", "1": "T2"}, "file_ending": ".nii.gz"
        }  # fmt: skip
        write_description(root, labels=labels, **channels)
        after = layout_of(root)
        assert (after.classes, after.entries) == (before.classes, before.entries)


def test_channels_are_in_the_order_of_their_numbers(tmp_path):
    """Python's json.dumps(..., sort_keys=True) writes 10 before 2."""
    root = write_nnunet(tmp_path / "set", channels=11)
    names = {str(channel): f"sequence {channel}" for channel in sorted(range(11), key=str)}
    labels = {"background": 0, "a": 1, "b": 2}
    write_description(root, channel_names=names, labels=labels, file_ending=".nii.gz")
    assert layout_of(root).channels == tuple(f"sequence {channel}" for channel in range(11))


def test_four_digits_at_the_end_of_names_of_the_msd(tmp_path):
    """prostate_0000, prostate_0001 are cases there, whatever nnU-Net would make of them."""
    root = tmp_path / "set"
    write_description(root, **V1)
    for number in (0, 1):
        for folder, values in (("imagesTr", image_values(0)), ("labelsTr", label_values(0))):
            write_nifti(root / folder / f"prostate_000{number}.nii.gz", values)
    layout = layout_of(root)
    assert list(files_of(layout)) == ["prostate_0000", "prostate_0001"]
    labels = {"background": 0, "a": 1, "b": 2}
    write_description(root, channel_names={"0": "CT"}, labels=labels, file_ending=".nii.gz")
    assert list(files_of(noted(root)[0])) == ["prostate_0000", "prostate_0001"]


def test_a_folder_of_data_sets(tmp_path):
    write_nnunet(tmp_path / "nnUNet_raw" / "Dataset004_Heart")
    with pytest.raises(UserError, match="missing; there is one in 'Dataset004_Heart', pass that"):
        layout_of(tmp_path / "nnUNet_raw")
