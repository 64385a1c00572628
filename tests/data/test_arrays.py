"""A data set in one .npz file."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.pack import quantised
from mijax.data import UNLABELLED, Case, Volume, open_source, write_arrays
from mijax.data.sources.arrays import arrays_recipe
from mijax.errors import UserError

CLASSES = ("background", "organ")
AFFINE = np.diag([1.5, 1.5, 5.0, 1.0])


def volumes(channels=1):
    draw = np.random.default_rng(0)
    for name, labelled in (("b", True), ("a", False)):
        image = draw.integers(0, 255, (5, 4, 3, channels), dtype=np.uint8)
        label = (image[..., 0] > 100).astype(np.uint8) if labelled else None
        yield Case(name, f"patient of {name}", labelled), Volume(name, image, label, AFFINE)


@pytest.fixture
def file(tmp_path):
    write_arrays(tmp_path / "set.npz", volumes(), classes=CLASSES)
    return tmp_path / "set.npz"


def opened(file):
    return open_source("arrays", directory=str(file), cache="unused")


def test_volumes_come_back_as_they_were(file):
    source = opened(file)
    assert source.classes == CLASSES and source.channels == 1
    assert source.cases == (Case("a", "patient of a", False), Case("b", "patient of b", True))
    for case, given in volumes():
        found = source.volume(case.name)
        assert found.image.dtype == np.float32 and (found.image == given.image).all()
        assert (found.affine == AFFINE).all()
        assert (found.label is None) == (given.label is None)
        assert given.label is None or (found.label == given.label).all()


def test_what_goes_by_the_content_of_a_file_knows_that_it_was_rewritten(file):
    before = arrays_recipe(str(file)).key
    assert arrays_recipe(str(file)).key == before
    write_arrays(file, reversed([*volumes()]), classes=CLASSES)
    assert arrays_recipe(str(file)).key != before


def test_a_file_is_replaced_whole_or_not_at_all(file):
    before, source = file.read_bytes(), opened(file)

    def broken():
        yield next(volumes())
        raise ValueError("no second one")

    with pytest.raises(ValueError, match="no second one"):
        write_arrays(file, broken(), classes=CLASSES)
    assert file.read_bytes() == before and [*file.parent.iterdir()] == [file]
    first = source.cases[0]
    write_arrays(file, ((c, source.volume(c.name)) for c in [first]), classes=CLASSES)
    assert opened(file).cases == (first,)


def test_the_file_is_closed_in_between(file):
    source = opened(file)
    source.volume("a")
    assert str(file) not in map(os.path.realpath, Path("/proc/self/fd").iterdir())


def test_numpy_alone_can_write_one_and_leave_the_channel_axis_out(tmp_path):
    image = np.arange(24.0).reshape(4, 3, 2)
    parts = {"classes": CLASSES, "cases": ["x"], "patients": ["x"]}
    np.savez(tmp_path / "set.npz", **parts, **{"image/x": image, "affine/x": np.eye(4)})
    assert (opened(tmp_path / "set.npz").volume("x").image == image[..., None]).all()


def test_voxels_that_nobody_annotated(tmp_path):
    case, volume = next(volumes())
    volume.label[0] = UNLABELLED
    write_arrays(tmp_path / "set.npz", [(case, volume)], classes=CLASSES)
    assert (opened(tmp_path / "set.npz").volume("b").label == volume.label).all()


@pytest.mark.parametrize("save", [None, np.savez_compressed])
def test_a_byte_that_was_flipped_is_a_line(file, tmp_path, save):
    """By LZMA as we write them, and by zlib."""
    path = tmp_path / "damaged.npz"
    with np.load(file) as content:
        shutil.copy(file, path) if save is None else save(path, **content)
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("image/b.npy")
        start = member.header_offset + 30 + len(member.filename) + 20
    content = bytearray(path.read_bytes())
    for place in range(start, start + member.compress_size - 20):
        content[place] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged\.npz: (case b cannot be read|not a data set)"):
        opened(path).volume("b")


def test_options_of_the_source_it_was_packed_from_say_nothing(file):
    open_source("arrays", directory=str(file), cache="unused", testing=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"classes": None}, "not a data set of arrays"),
        ({"patients": ["x", "y"]}, "not a data set of arrays"),
        ({"image/x": np.zeros((2, 2))}, "not a data set of arrays"),
        ({"affine/x": None}, "case x cannot be read"),
        ({"affine/x": np.zeros((4, 4))}, "no invertible"),
        ({"image/x": np.full((2, 2, 2), np.nan)}, "not finite"),
        ({"label/x": np.full((2, 2, 2), 2)}, "none of the 2 classes"),
        ({"label/x": np.zeros((2, 2, 3), int)}, "another shape"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(tmp_path, change, says):
    parts = {
        "classes": CLASSES, "cases": ["x"], "patients": ["x"],
        "image/x": np.zeros((2, 2, 2)), "label/x": np.zeros((2, 2, 2), int), "affine/x": np.eye(4),
    }  # fmt: skip
    parts = {k: v for k, v in (parts | change).items() if v is not None}
    np.savez(tmp_path / "set.npz", **parts)
    with pytest.raises(UserError, match=says):
        opened(tmp_path / "set.npz").volume("x")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not a zip", b"\x80\x04pickle"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(UserError, match="not a data set of arrays"):
        opened(tmp_path / "set.npz")
    with pytest.raises(UserError, match="no such file"):
        opened(tmp_path / "other.npz")


def test_it_is_read_without_tfds(file):
    program = (
        "import sys; from mijax.data import open_source;"
        f"open_source('arrays', directory={str(file)!r}, cache='').volume('a');"
        "assert not {'tensorflow_datasets', 'SimpleITK', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_packed_volume_has_its_unit():
    """Its levels alone, 0 to 63, would be other intensities under a window of Hounsfield units."""
    image = np.random.default_rng(0).uniform(-1000, 800, (8, 8, 8, 1)).astype(np.float32)
    packed = quantised(Volume("a", image, None, np.eye(4)), 64)
    assert packed.image.dtype == np.float32 and len(np.unique(packed.image)) <= 64
    low, high = np.percentile(image, [0.1, 99.9])
    np.testing.assert_allclose(packed.image, np.clip(image, low, high), atol=(high - low) / 126)
