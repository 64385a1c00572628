"""python -m mijax.inspect, and a run that was given no size."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from mijax.errors import UserError
from mijax.inspect import describe

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from folders import SHAPE, write_description, write_msd, write_nifti

NEXT = "next: python -m mijax.plan --config configs/folder.py --config.data.source.dir="


def test_tables(tmp_path):
    """Voxels of 1, 1.5 and 3 mm; class b is in no label."""
    root = write_msd(tmp_path / "set")
    for path in (root / "labelsTr").iterdir():
        write_nifti(path, np.pad(np.ones((1, *SHAPE[1:]), np.uint8), ((0, 5), (0, 0), (0, 0))))
    lines = list(describe(root))
    text = "\n".join(" ".join(line.split()) for line in lines)
    for line in (
        f"{root}: 2 labelled cases and 2 unlabelled; 1 channel ('MRI')",
        "voxels along x 6 6 6",
        "mm a voxel along y 1.5 1.5 1.5",
        "axes of the files: RAS 4",
        "background 2 83.333%",
        "a 2 16.667%",
        "no labelled case shows b",
    ):
        assert f"{line}\n" in text
    assert lines[-1] == f"{NEXT}{root}"


def test_a_label_to_ignore(tmp_path):
    root = write_msd(tmp_path / "set", labelled=2, unlabelled=0, tests=0)
    description = json.loads((root / "dataset.json").read_text())
    description["labels"]["3"] = "ignore"
    (root / "dataset.json").write_text(json.dumps(description))
    (path,) = (root / "labelsTr").glob("case_01*")
    write_nifti(path, np.pad(np.ones((1, *SHAPE[1:]), np.uint8), ((0, 5), (0, 0), (0, 0)),
                             constant_values=3))  # fmt: skip
    lines = [" ".join(line.split()) for line in describe(root)]
    assert lines[0].endswith("('MRI'); 3 is the label to ignore")
    assert "not annotated 1 41.667%" in lines


def test_bad_files_are_listed_and_the_rest_is_described(tmp_path, told):
    root = write_msd(tmp_path / "set", labelled=3)
    (root / "imagesTr" / "case_00.nii.gz").write_bytes(b"hello")
    write_nifti(root / "labelsTr" / "case_01.nii.gz", np.full(SHAPE, 9, np.uint8))
    lines = []
    with pytest.raises(UserError, match="2 of 5 cases cannot be used, for the reasons above"):
        lines.extend(describe(root))
    assert [line.split(": ")[0] for line in told] == [
        f"{root}/imagesTr/case_00.nii.gz", "reading", f"{root}/labelsTr/case_01.nii.gz",
    ]  # fmt: skip


def test_what_headers_show_is_listed_as_well(tmp_path, told):
    """A header without the file of its voxels, a volume that is too large, a channel too many."""
    root = tmp_path / "set"
    labels = {"background": 0, "a": 1}
    write_description(root, channel_names={"0": "CT"}, labels=labels, file_ending=".mhd")
    (root / "imagesTr").mkdir()
    for name in ("a_0000", "b_0000", "c_0000", "d_0000", "d_0001"):
        image = sitk.GetImageFromArray(np.ones(SHAPE, np.float32))
        sitk.WriteImage(image, str(root / "imagesTr" / f"{name}.mhd"))
    (root / "imagesTr" / "a_0000.raw").unlink()
    large = root / "imagesTr" / "b_0000.mhd"
    large.write_text(large.read_text().replace("DimSize = 4 5 6", "DimSize = 1024 1024 256"))
    with pytest.raises(UserError, match="3 of 4 cases cannot be used, for the reasons above"):
        list(describe(root))
    assert told[0].startswith(f"{root}/imagesTr/a_0000.mhd: ")
    assert told[1].startswith("case b takes 1.2 GiB, more than a record holds")
    assert told[2] == f"{root}/imagesTr: case d has channels 0000, 0001; 1 are needed"


def test_an_image_of_two_patients_is_told(tmp_path, told):
    root = write_msd(tmp_path / "set")
    first, last, *_ = sorted((root / "imagesTr").glob("case*.nii.gz"))
    list(describe(root))
    assert "one image" not in "".join(told)
    last.write_bytes(first.read_bytes())
    list(describe(root))
    names = " and ".join(path.name.removesuffix(".nii.gz") for path in (first, last))
    assert told[-1].startswith(f"{names} are one image under 2 names")


def test_links_out_of_the_folder_are_told_and_the_next_command_takes_them(tmp_path, told):
    root, outside = write_msd(tmp_path / "set"), tmp_path / "outside.nii.gz"
    (root / "imagesTr" / "case_00.nii.gz").rename(outside)
    (root / "imagesTr" / "case_00.nii.gz").symlink_to(outside)
    *_, last = describe(root)
    assert told[0].startswith(f"{root}/imagesTr/case_00.nii.gz: a link out of {root}, one of 1;")
    assert last == f"{NEXT}{root} --config.data.source.follow_links=True"


def test_next_without_a_label_is_whom_to_annotate(tmp_path):
    root = write_msd(tmp_path / "set", labelled=0)
    *_, last = describe(root)
    assert last == f"{NEXT.replace('plan', 'select')}{root} --count N --output FIRST"


def test_needs_no_jax(tmp_path):
    code = (
        "import sys, pathlib, mijax.inspect\n"
        "list(mijax.inspect.describe(pathlib.Path(sys.argv[1])))\n"
        "print([m for m in ('jax', 'tensorflow_datasets') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(write_msd(tmp_path / "set"))]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_the_command(run_module, run_here, tmp_path):
    root = write_msd(tmp_path / "set")
    code, out, lines = run_module("mijax.inspect", root)
    assert code == 0 and out.splitlines()[-1] == f"{NEXT}{root}" and lines == []
    code, _, (line,) = run_here("mijax.inspect", tmp_path / "nowhere")
    assert code == 1 and line.endswith("no such folder; give the one that holds dataset.json")
    code, _, (line,) = run_here("mijax.inspect")
    assert code == 2 and "python -m mijax.inspect FOLDER" in line
