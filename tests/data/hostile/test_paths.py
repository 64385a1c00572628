"""Links, names, and what is no file, in the folders of every layout."""

import os

import numpy as np
import pytest
from damage import GOOD, MSD, NNUNET, PATHS, fill, link, metaimage, nrrd
from folders import image_values, label_values, write_description, write_msd

from mijax.data import open_source
from mijax.data.formats.imagefile import read_image
from mijax.data.sources.acdc import acdc_recipe
from mijax.data.sources.folder import folder_recipe
from mijax.data.sources.promise12 import promise12_recipe
from mijax.errors import UserError


@pytest.mark.parametrize("name", ["imagesTr/a.nii", "labelsTr/b.nii", "imagesTs/c.nii"])
@pytest.mark.parametrize("case", PATHS)
def test_path_in_msd(tmp_path, refused, case, name):
    root = tmp_path / "set"
    write_description(root, **MSD)
    fill(root, "imagesTr/b.nii", lambda path: path.write_bytes(GOOD))
    fill(root, name, PATHS[case])
    refused(lambda: folder_recipe(str(root), kind="msd"), name.split("/")[1])


@pytest.mark.parametrize("case", PATHS)
def test_path_in_nnunet_and_promise12(tmp_path, refused, case):
    root = tmp_path / "set"
    write_description(root, **NNUNET)
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
    write_description(root, **MSD)
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
    write_description(root, **{**NNUNET, "file_ending": ending})
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
    write_description(root, **MSD)
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
        write_description(root, **MSD)
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
    ("first", "second", "expected"),
    [
        ("imagesTr/a.nii", "imagesTr/a.nii.gz", "case a is there twice"),
        ("imagesTr/a.nii", "imagesTs/a.nii", "case a is in imagesTr and in imagesTs"),
        ("imagesTr/a.nii.gz", "imagesTs/a.nii", "case a is in imagesTr and in imagesTs"),
        ("labelsTr/a.nii", "labelsTr/a.nii.gz", "case a is there twice"),
        ("imagesTr/b.nii", "labelsTr/a.nii", "a.nii: a label without an image"),
    ],
)
def test_case_that_is_there_twice_or_by_half(tmp_path, refused, first, second, expected):
    root = tmp_path / "set"
    write_description(root, **MSD)
    for name in ("imagesTr/c.nii", first, second):
        fill(root, name, lambda path: path.write_bytes(GOOD))
    refused(lambda: folder_recipe(str(root), kind="msd"), str(root), expected)


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


@pytest.mark.parametrize("ending", [".mhd", ".nrrd"])
def test_voxels_whose_name_has_another_unicode_form(tmp_path, refused, ending):
    path = tmp_path / f"a{ending}"
    if ending == ".mhd":
        metaimage(path, ElementDataFile="Sch\u00e4del.raw")
    else:
        nrrd(path, **{"data file": "Sch\u00e4del.raw"})
    (tmp_path / "a.raw").rename(tmp_path / "Scha\u0308del.raw")
    refused(lambda: read_image(path), f"a{ending}: ", "in another Unicode form; rename it")
