"""A bundle: the label maps of mijax in a process that has neither mijax nor JAX."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import nibabel as nib
import numpy as np
import pytest

from mijax.configs import common
from mijax.data import Splits, Volume, write_splits
from mijax.errors import UserError
from mijax.inference.bundle import describe, modules, write_bundle
from mijax.inference.model_card import model_card
from mijax.inference.network import make_network
from mijax.inference.runner import main, open_bundle
from mijax.inference.volumes import segment
from mijax.models import CLASSIFIER
from mijax.runs.folder import Run

PROGRAM = """
import importlib.abc, runpy, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in ("mijax", "jax", "jaxlib", "flax", "SimpleITK", "pydicom", "onnx"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def predict(bundle, *arguments):
    """Exit code and lines of ``predict.py``."""
    command = [sys.executable, "-c", PROGRAM, bundle / "predict.py", *arguments]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.stdout == "" and "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stderr.splitlines()


PAD = {"size": (16, 16), "fit": "pad"}
CASES = {
    "2-D, padded": ({}, {**PAD, "intensity": "minmax"}, 1),
    "2-D, of one spacing, two channels": (
        {"norm": "instance"},
        {**PAD, "spacing": 1.5, "plane": "coronal", "intensity": "window", "window": (0.2, 0.9)},
        2,
    ),
    "2-D, resized": ({}, {"size": (16, 24), "fit": "resize", "intensity": "zscore"}, 1),
    "3-D, whole, in windows": (
        {"strides": ((1, 2, 2),), "kernels": ((1, 3, 3), (3, 3, 3))},
        {"dims": 3, "size": (4, 12, 12), "fit": "whole", "spacing": 1.2, "depth_spacing": 3.0},
        1,
    ),
    "3-D, resized": ({}, {"dims": 3, "size": (8, 16, 16), "fit": "resize"}, 1),
}
# Of the training there is nothing: other orientations, thick slices, larger than any size.
SCANS = {
    "upright": ((14, 15, 5), np.diag([1.0, 1.0, 3.0, 1.0])),
    "turned": ((6, 22, 37), np.diag([-0.9, 1.7, 4.1, 1.0])[[2, 1, 0, 3]]),
}


def made(folder, *, model=None, slices=None, channels=1):
    """A ``Predictor`` of a run that nobody trained, with weights drawn from a seed."""
    config = common.get_config("supervised")
    config.name = "drawn"
    config.model.update({"widths": (6, 8), **(model or {})})
    config.data.patches.update({**PAD, **(slices or {})})
    (folder / "run").mkdir(parents=True)
    write_splits(folder / "run" / "splits.json", Splits(("a",), ("b", "c"), ("d",), ()))
    network = make_network(config, classes=3, devices=jax.devices()[:1])
    random = np.random.default_rng(0)
    image = np.zeros((1, *np.broadcast_to(8, config.data.patches.dims), channels), np.float32)
    shapes = jax.eval_shape(lambda x: network.model.init(jax.random.key(0), x, train=False), image)

    def draw(shape):
        if len(shape) == 1:
            return random.uniform(0.5, 1.5, shape).astype(np.float32)
        return (random.normal(size=shape) * 2 / np.sqrt(np.prod(shape[:-1]))).astype(np.float32)

    drawn = jax.tree.map(lambda x: draw(x.shape), shapes)
    last = drawn["params"][CLASSIFIER]
    last["kernel"] -= last["kernel"].mean(-2, keepdims=True)  # so that no class has nearly all
    last["bias"] *= 0
    return SimpleNamespace(
        run=Run(folder / "run", config),
        step=12,
        classes=("background", "one", "two"),
        channels=channels,
        numbered=True,
        network=network,
        weights={
            "params": {"network": drawn["params"]},
            "batch_stats": drawn.get("batch_stats", {}),
        },
        check_segments=lambda: None,
    )


def write_scans(folder, channels):
    """Files of ``SCANS``, and the volumes in them."""
    random, volumes = np.random.default_rng(1), []
    folder.mkdir()
    for name, (shape, affine) in SCANS.items():
        image = random.random((*shape, channels)).astype(np.float32)
        image = (image + np.roll(image, 1, 0) + np.roll(image, 1, 1)) / 3
        volumes.append(Volume(name, image, None, affine))
        nib.save(nib.Nifti1Image(image.squeeze(), affine), folder / f"{name}.nii.gz")
    return volumes


@pytest.mark.parametrize("name", CASES)
def test_same_label_maps_without_mijax(name, tmp_path, cache):
    model, slices, channels = CASES[name]
    predictor = made(tmp_path, model=model, slices=slices, channels=channels)
    volumes = write_scans(tmp_path / "scans", channels)
    write_bundle(predictor, tmp_path / "bundle")
    flags = ["--mirror", "--largest_component"] if name == "2-D, padded" else []
    arguments = ["--input", tmp_path / "scans", "--output", tmp_path / "labels", *flags]
    code, lines = predict(tmp_path / "bundle", *arguments)
    assert code == 0 and lines[-1].startswith("predict: 2 of 2 done, in "), lines
    found = segment(
        predictor.network,
        predictor.weights,
        volumes,
        stored=False,
        probabilities=True,
        **{flag.removeprefix("--"): True for flag in flags},
    )
    for (labels, probs), volume in zip(found, volumes, strict=True):
        image = nib.load(tmp_path / "labels" / f"{volume.name}.nii.gz")
        np.testing.assert_allclose(image.affine, volume.affine, atol=1e-6)
        assert image.get_data_dtype() == np.uint8
        assert np.sort(np.bincount(labels.ravel()))[-2] > 0.02 * labels.size  # not one class alone
        second, first = np.sort(probs, -1)[..., -2:].transpose(3, 0, 1, 2)
        other = np.asarray(image.dataobj) != labels
        assert not other[first - second > 1e-4].any()
        assert other.mean() < 1e-3


# What is wrong is one line -----------------------------------------------------------------


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(made(folder, slices={"spacing": 1.0}), folder / "bundle")
    return folder / "bundle"


@pytest.fixture
def copied_bundle(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy")


@pytest.fixture
def fails(tmp_path, capsys):
    """``fails(bundle, scan)``: the lines of a prediction that fails."""

    def run(folder, scan):
        assert main(folder, ["--input", str(scan), "--output", str(tmp_path / "labels")]) == 1
        out, err = capsys.readouterr()
        assert out == ""
        return [line.removeprefix("predict: ") for line in err.splitlines()]

    return run


@pytest.fixture
def scan(tmp_path):
    """``scan(shape)``: a file."""

    def write(shape, name="scan.nii.gz", mm=1.0):
        values = np.random.default_rng(0).random(shape).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.diag([mm, mm, mm, 1])), tmp_path / name)
        return tmp_path / name

    return write


def test_no_such_scan(bundle, fails, tmp_path):
    assert fails(bundle, tmp_path / "no") == [f"{tmp_path / 'no'}: no such file or folder"]


@pytest.mark.parametrize("shape", [(16, 16, 3, 2), (16, 16)])
def test_a_scan_that_is_no_volume_of_its_channels(bundle, fails, scan, shape):
    """That of a folder does not keep the others from being predicted."""
    path = scan(shape)
    problem = "2 channels; 1 needed"
    if len(shape) == 2:
        problem = "shape (16, 16); a volume (x, y, z), or (x, y, z, channel), is needed"
    first, last = fails(bundle, path)
    assert first == f"failed: {path}: {problem}"
    assert last == "0 of 1 done; failed: scan"


def test_home_is_known_where_the_shell_leaves_it(bundle, scan, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    name = scan((16, 16, 3)).name
    assert main(bundle, [f"--input=~/{name}", "--output=~/labels"]) == 0
    assert (tmp_path / "labels" / name).is_file()
    with pytest.raises(UserError, match=f"{tmp_path / 'labels'} exists already"):
        write_bundle(made(tmp_path), "~/labels")


def test_others_of_a_folder_are_predicted(bundle, fails, scan, tmp_path):
    (tmp_path / "scans").mkdir()
    good, bad = scan((16, 12, 3), "scans/good.nii.gz"), scan((16, 16, 3, 4), "scans/bad.nii.gz")
    scan((16, 12, 3), "scans/another.nii.gz", mm=5000.0)
    lines = fails(bundle, good.parent)
    assert lines == [
        "failed: case another: slices of 80000×60000 pixels at data.patches.spacing=1.0; raise it, "
        "or repair the voxel sizes of the file",
        f"failed: {bad}: 4 channels; 1 needed",
        str(tmp_path / "labels" / good.name),
        "1 of 3 done; failed: another, bad",
    ]
    assert nib.load(tmp_path / "labels" / good.name).shape == (16, 12, 3)
    exists = f"{tmp_path / 'labels' / good.name} exists already; --overwrite replaces it"
    assert fails(bundle, good.parent) == [exists]


@pytest.mark.parametrize("numbered", [True, False])
def test_label_maps_are_named_as_the_cases_of_the_run(copied_bundle, fails, scan, numbered):
    description = copied_bundle / "bundle.json"
    found = json.loads(description.read_text())
    description.write_text(json.dumps(found | {"numbered": numbered}))
    last = fails(copied_bundle, scan((16, 16), "scan_0000.nii.gz"))[-1]
    assert last == f"0 of 1 done; failed: {'scan' if numbered else 'scan_0000'}"


def test_label_maps_do_not_go_where_scans_are(bundle, scan, capsys):
    path = scan((16, 16, 3))
    assert main(bundle, ["--input", str(path), "--output", str(path.parent)]) == 1
    assert "holds the scans; choose another folder" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["changed", "missing"])
@pytest.mark.parametrize("name", ["model.onnx", "mijax_bundle/data/grid.py"])
def test_a_damaged_bundle(copied_bundle, tmp_path, name, damage):
    damaged(copied_bundle / name, damage)
    code, (line,) = predict(copied_bundle, "--input", tmp_path, "--output", tmp_path / "labels")
    assert code == 1
    assert line == (
        f"predict: {copied_bundle / name}: missing or changed since the export; copy it again"
    )


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_a_bundle_that_cannot_check_itself(copied_bundle, tmp_path, damage):
    damaged(copied_bundle / "mijax_bundle" / "inference" / "runner.py", damage)
    code, (line,) = predict(copied_bundle, "--input", tmp_path, "--output", tmp_path / "labels")
    assert code == 1
    assert line.startswith(f"predict: {copied_bundle}: missing or damaged files (")


def damaged(path, damage):
    content = path.read_bytes()
    path.unlink()
    if damage == "changed":
        path.write_bytes(content[: len(content) // 2] + b"\0" + content[len(content) // 2 + 1 :])


def test_no_bundle_or_one_to_come(copied_bundle, fails, scan):
    description = copied_bundle / "bundle.json"
    found = json.loads(description.read_text())
    description.write_text(json.dumps(found | {"format": 2}))
    (line,) = fails(copied_bundle, scan((16, 16, 3)))
    assert line == f"{copied_bundle}: a bundle of format 2; this runner reads format 1"
    description.write_text("{}")
    (line,) = fails(copied_bundle, scan((16, 16, 3)))
    assert line.startswith(f"{description}: no description of a bundle")


def test_a_format_that_takes_another_package(bundle, tmp_path):
    scan = tmp_path / "scan.mha"
    scan.write_bytes(b"ObjectType = Image\n")
    code, lines = predict(bundle, "--input", scan, "--output", tmp_path / "labels")
    assert code == 1
    assert (
        lines[0]
        == "predict: failed: needs SimpleITK, which is not installed: pip install SimpleITK"
    )


@pytest.mark.filterwarnings("always::mijax.errors.Notice")
def test_no_line_names_a_flag_that_a_bundle_has_not(bundle, fails, tmp_path):
    from dicom_files import positions, stored_values, write_series  # skips it without pydicom

    for uid, places in (("1.5", None), ("1.6", positions(5)[[0, 1, 2, 4]])):
        values = stored_values((3 + (places is not None), 16, 16))
        write_series(tmp_path / "in" / uid, values, uid=uid, places=places)
    notice, failed, _ = fails(bundle, tmp_path / "in")
    assert notice.endswith("is taken; not taken: 1.5 'thorax' (3 slices of 16×16)")
    assert failed.startswith("failed: ") and "1.6: a gap" in failed and "--" not in failed


def test_what_is_in_a_bundle(bundle):
    """No file of mijax that knows of JAX; and each is checked but for those that are for people."""
    found = {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}
    sums = json.loads((bundle / "bundle.json").read_text())["sha256"]
    free = {"README.md", "Dockerfile", "requirements.txt"}
    assert found == {*sums, *free, "bundle.json"}  # and predictions have left nothing there
    assert not free & sums.keys()
    for name, source in modules().items():
        assert name in found
        assert not {"mijax", "jax", "absl", "ml_collections"} & {
            line.split()[1].split(".")[0]
            for line in map(str.strip, source.splitlines())
            if line.startswith(("import ", "from "))
        }, name


def test_what_is_added_to_the_card_keeps_nothing_from_being_predicted(copied_bundle):
    with (copied_bundle / "README.md").open("a") as file:
        file.write("Not for children.\n")
    (copied_bundle / "Dockerfile").unlink()
    assert open_bundle(copied_bundle)["classes"] == ["background", "one", "two"]


def test_a_run_that_corrects_bias_fields_requires_what_does_it(bundle, tmp_path, cache):
    write_bundle(made(tmp_path, slices={"bias_correction": True}), tmp_path / "bundle")
    without, with_it = ((b / "requirements.txt").read_text() for b in (bundle, tmp_path / "bundle"))
    assert with_it == without + "SimpleITK>=2.4\n"


def test_a_card_without_scores_says_so(bundle):
    card = (bundle / "README.md").read_text()
    assert "\n## Scores\n\nNone: the run has no scores.json of this checkpoint" in card
    assert "| labelled cases | 1 |\n| unlabelled cases | 2 |" in card


@pytest.mark.parametrize(
    ("spacing", "depth_spacing", "fit", "text"),
    [
        (None, None, "pad", "2-D slices at their own spacing"),
        (None, None, "resize", "2-D slices resized to 16×16 pixels"),
        (1.5, None, "pad", "2-D slices at 1.5 mm in the plane"),
        (1.5, 3.0, "pad", "3-D windows at 1.5 mm in the plane and 3.0 mm across it"),
    ],
)
def test_a_card_says_at_what_spacing_scans_are_seen(
    tmp_path, cache, spacing, depth_spacing, fit, text
):
    predictor = made(tmp_path)
    described = describe(predictor)
    seen = {"dims": 3 if depth_spacing else 2, "spacing": spacing, "depth_spacing": depth_spacing}
    seen["fit"] = fit
    card = model_card(predictor, described | {"slices": described["slices"] | seen})
    assert f"| seen as | {text}, intensities: " in card


def test_what_is_no_bundle_is_not_replaced(tmp_path, cache):
    predictor = made(tmp_path)
    (tmp_path / "mine").mkdir()
    with pytest.raises(UserError, match="mine exists already; --overwrite replaces it"):
        write_bundle(predictor, tmp_path / "mine")
    with pytest.raises(UserError, match="mine is no bundle, and is left as it is"):
        write_bundle(predictor, tmp_path / "mine", overwrite=True)


def test_a_bundle_stays_until_the_next_is_in_its_place(copied_bundle, tmp_path, cache, monkeypatch):
    replace, before = os.replace, (copied_bundle / "bundle.json").read_bytes()
    left = tmp_path / f".{copied_bundle.name}.{os.getpid()}" / "left"  # by a kill
    left.parent.mkdir()
    left.touch()

    def full(source, target):
        if source == left.parent:
            raise OSError("disk full")
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(UserError, match="cannot write to .*disk full"):
            write_bundle(made(tmp_path / "made"), copied_bundle, overwrite=True)
    assert (copied_bundle / "bundle.json").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "made"}
    open_bundle(copied_bundle)
    left.parent.mkdir()
    left.touch()
    (tmp_path / "link").symlink_to(copied_bundle)
    write_bundle(made(tmp_path / "again"), tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink() and not (copied_bundle / "left").exists()
    assert open_bundle(copied_bundle)["slices"]["spacing"] is None
    assert {path.name for path in tmp_path.iterdir()} == {"copy", "made", "again", "link"}


def test_the_folder_that_one_is_in_is_replaced(copied_bundle, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(copied_bundle)
    write_bundle(made(tmp_path), ".", overwrite=True)
    assert open_bundle(copied_bundle)["slices"]["spacing"] is None
