"""New scans to label maps: on their grid, as evaluation would, and none lost to a bad one."""

import copy
import shutil

import jax
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nibabel import orientations

from mijax.data.formats.imagefile import read_image
from mijax.errors import UserError
from mijax.files import write_json
from mijax.inference import Predictor
from mijax.inference.scans import predict_files
from mijax.runs.folder import Run, open_run
from mijax.runs.source import open_data

OBLIQUE = np.array([[0.9, -0.3, 0.1, 4], [0.2, 1.1, 0, -7], [0, 0.1, 3, 2], [0, 0, 0, 1]])

# Of some scans sform and qform differ, or are not there.
pytestmark = pytest.mark.filterwarnings("ignore::mijax.errors.Notice")


@pytest.fixture(scope="module")
def run(predicting):
    return open_run(predicting())


@pytest.fixture(scope="module")
def volume(run):
    source = open_data(run.config)
    return source.volume(source.cases[-1].name)


def save_nifti(path, values, affine, *, qform=1, sform=1, kind=nib.Nifti1Image):
    image = kind(values, affine)
    image.set_qform(affine, qform)
    image.set_sform(affine, sform)
    nib.save(image, path)


def save_itk(path, values, direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)):
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing((0.8, 0.9, 3.1))
    image.SetOrigin((1.5, -20.25, 7))
    image.SetDirection(direction)
    sitk.WriteImage(image, str(path))


SCANS = {
    "case": ".nii.gz",
    "float": ".nii.gz",
    "four_axes": ".nii.gz",
    "large": ".nii.gz",
    "meta": ".mha",
    "meta_header": ".mha",
    "nearly_raw": ".nrrd",
    "nifti2": ".nii.gz",
    "no_codes": ".nii.gz",
    "signed": ".nii.gz",
}
BAD = ["channels", "not_a_number", "truncated", "twice"]


@pytest.fixture(scope="module")
def scans(volume, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    image = volume.image[..., 0]
    whole = np.round(100 * image)
    save_nifti(folder / "case.nii.gz", image, volume.affine)
    save_nifti(folder / "float.nii.gz", image, OBLIQUE, qform=0)
    save_nifti(folder / "four_axes.nii.gz", whole[..., None].astype(np.uint8), OBLIQUE, sform=0)
    save_nifti(folder / "large.nii", np.pad(image, ((0, 9), (3, 2), (0, 0))), volume.affine)
    save_itk(folder / "meta.mha", image, (0, 1, 0, 0, 0, -1, -1, 0, 0))
    save_itk(folder / "meta_header.mhd", whole.astype(np.int16))
    save_itk(folder / "nearly_raw.nrrd", image)
    save_nifti(folder / "nifti2.nii", image, OBLIQUE, kind=nib.Nifti2Image)
    save_nifti(folder / "no_codes.nii", image, volume.affine, qform=0, sform=0)
    save_nifti(folder / "signed.nii.gz", whole.astype(np.int16), np.diag([-1.0, 2, -4, 1]))
    save_nifti(folder / "channels.nii.gz", np.stack([image, image], 3), OBLIQUE)
    save_nifti(folder / "not_a_number.nii.gz", np.full_like(image, np.nan), OBLIQUE)
    (folder / "truncated.nii.gz").write_bytes((folder / "case.nii.gz").read_bytes()[:999])
    save_nifti(folder / "twice.nii.gz", image, OBLIQUE)
    save_itk(folder / "twice.mha", image)
    (folder / ".hidden.nii.gz").write_text("")
    return folder


@pytest.fixture(scope="module")
def predicted(run, scans, listening, tmp_path_factory):
    """The folder of the label maps, and the lines that were told."""
    folder = tmp_path_factory.mktemp("labels")
    with listening() as lines:
        done, failed = predict_files(
            run, scans, folder / "new", checkpoint="last", probabilities=True, overwrite=False
        )
    assert (sorted(done), sorted(failed)) == (sorted(SCANS), BAD)
    return folder / "new", lines


def test_each_scan_has_its_label_map_and_nothing_else_is_there(predicted):
    expected = {f"{name}{ending}" for name, ending in SCANS.items()}
    expected |= {f"{name}_probabilities.nii.gz" for name in SCANS}
    assert {path.name for path in predicted[0].iterdir()} == expected


def test_bad_scans_are_told_of_in_a_line(predicted):
    lines = predicted[1]
    assert len(lines) == len(SCANS) + len(BAD)
    bad = " / ".join(sorted(line for line in lines if "failed: " in line))
    assert bad.count("failed: ") == len(BAD)
    for text in (
        "2 channels; 1 needed",
        "NaN or infinite",
        "truncated or not NIfTI",
        "there twice",
    ):
        assert text in bad


@pytest.mark.parametrize("numbered", [True, False])
def test_label_maps_are_named_as_the_cases_of_the_run(run, tmp_path, numbered):
    other = run._replace(folder=shutil.copytree(run.folder, tmp_path / "run"))
    write_json(other.folder / "info.json", run.info() | {"numbered": numbered})
    (tmp_path / "scan_0000.nii").write_bytes(b"hello")
    _, failed = predict_files(other, tmp_path, tmp_path / "out", checkpoint="last")
    assert failed == ["scan" if numbered else "scan_0000"]


def test_a_scan_of_far_too_large_voxels_is_passed_over(run, scans, tmp_path, told):
    """They would be resampled to millions of pixels."""
    config = copy.deepcopy(run.config)
    config.data.patches.spacing = 1.0
    image = nib.load(scans / "case.nii.gz")
    (tmp_path / "scans").mkdir()
    for name, mm in (("a", 1000.0), ("b", 1.0)):
        affine = np.diag([mm, mm, mm, 1])
        save_nifti(tmp_path / "scans" / f"{name}.nii", image.get_fdata(dtype=np.float32), affine)
    done = predict_files(
        run._replace(config=config), tmp_path / "scans", tmp_path / "out", checkpoint="last"
    )
    assert done == (["b"], ["a"])
    assert any("failed: case a: slices of 32000×32000 pixels" in line for line in told)


@pytest.mark.parametrize("name", SCANS)
def test_grid_of_the_scan(scans, predicted, name):
    (scan,) = (path for path in scans.iterdir() if path.name.split(".")[0] == name if
               path.suffix != ".raw")  # fmt: skip
    path = predicted[0] / f"{name}{SCANS[name]}"
    values, affine = read_image(scan)
    labels, found = read_image(path)
    assert labels.shape == values.shape[:3] and labels.dtype == np.uint8
    np.testing.assert_array_equal(found, affine)
    soft, found = read_image(predicted[0] / f"{name}_probabilities.nii.gz")
    assert soft.shape == (*labels.shape, 3) and soft.dtype == np.float32
    np.testing.assert_allclose(found, affine, atol=1e-5)
    np.testing.assert_allclose(soft.sum(-1), 1, atol=1e-5)
    np.testing.assert_array_equal(soft.argmax(-1), labels)
    assert len(np.unique(labels)) > 1
    if path.name.endswith(".nii.gz"):
        before, after = nib.load(scan).header, nib.load(path).header
        for field in ("qform_code", "sform_code", "xyzt_units"):
            assert after[field] == before[field]


def test_labels_are_those_of_evaluation(run, volume, predicted):
    ((expected, _),) = Predictor(run, checkpoint="last").segment([volume])
    found, _ = read_image(predicted[0] / "case.nii.gz")
    np.testing.assert_array_equal(found, expected)


def test_arrays(run, volume, predicted):
    """As the files, however the array lies in the world."""
    mirror = orientations.axcodes2ornt("PSR", (("R", "L"), ("A", "P"), ("I", "S")))
    turned = orientations.apply_orientation(volume.image[..., 0], mirror)
    affine = volume.affine @ orientations.inv_ornt_aff(mirror, volume.image.shape[:3])
    predictor = Predictor(run.folder, checkpoint="last")
    here = predictor(volume.image[..., 0], volume.affine, probabilities=True)
    there = predictor(turned, affine, probabilities=True)
    np.testing.assert_allclose(
        here, read_image(predicted[0] / "case_probabilities.nii.gz")[0], atol=1e-6
    )
    np.testing.assert_allclose(orientations.apply_orientation(here, mirror), there, atol=1e-6)
    labels = predictor(volume.image, volume.affine)
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, here.argmax(-1))


@pytest.mark.parametrize(
    ("image", "affine", "message"),
    [
        (np.zeros((4, 4)), np.eye(4), r"shape \(4, 4\); \(x, y, z\) or \(x, y, z, 1\) is"),
        (np.zeros((4, 4, 2, 2)), np.eye(4), r"\(x, y, z, 1\) is needed"),
        (np.full((4, 4, 2), np.inf), np.eye(4), "finite"),
        (np.full((4, 4, 2), -1.79e308), np.eye(4), "finite as float32"),
        (np.zeros((4, 4, 2)), np.zeros((4, 4)), "regular"),
    ],
)
def test_arrays_that_do_not_do(run, image, affine, message):
    with pytest.raises(UserError, match=message):
        Predictor(run)(image, affine)


def test_a_predictor_compiles_once(run, volume):
    """Neither the second image nor another checkpoint compiles anything."""
    predictor = Predictor(run)
    first = predictor(volume.image, volume.affine)
    with jax.log_compiles(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("jax._src.compiler.compile_or_get_cached", pytest.fail)
        again = predictor(volume.image, volume.affine)
        predictor.at("last")(volume.image, volume.affine)
    np.testing.assert_array_equal(first, again)


def test_the_bias_of_new_scans_alone_is_removed(run, volume, scans, tmp_path, monkeypatch):
    """Those of the data of a run are stored without it."""
    seen = []
    monkeypatch.setattr("mijax.data.patches.correct_bias", lambda v: seen.append(v.name) or v)
    changed = Run(run.folder, copy.deepcopy(run.config))
    changed.config.data.patches.bias_correction = True
    predictor = Predictor(changed)
    next(predictor.segment([volume]))
    assert not seen
    predictor(volume.image, volume.affine)
    predict_files(changed, scans / "case.nii.gz", tmp_path, checkpoint="best", trust=False)
    assert len(seen) == 2


# What is refused before any work ---------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
def test_the_scans_are_never_written_over(run, scans, overwrite):
    with pytest.raises(UserError, match="holds the scans; choose another folder"):
        predict_files(
            run,
            scans / "case.nii.gz",
            scans,
            checkpoint="best",
            probabilities=False,
            overwrite=overwrite,
        )


def other_grid(path, scans):
    save_nifti(path, np.zeros((32, 32, 4), np.uint8), np.diag([1.0, 1, 9, 1]))


def other_shape(path, scans):
    save_nifti(path, np.zeros((32, 32, 5), np.uint8), OBLIQUE)


def cut_short(path, scans):
    other_shape(path, scans)
    path.write_bytes(path.read_bytes()[:-9])


def another_scan(path, scans):
    save_nifti(path, 0.5 + nib.load(scans / "nifti2.nii").get_fdata(dtype=np.float32), OBLIQUE)


def more_classes(path, scans):
    save_nifti(path, np.full(nib.load(scans / "nifti2.nii").shape, 3, np.uint8), OBLIQUE)


def text(path, scans):
    path.write_text("mine")


@pytest.mark.parametrize(
    ("soft", "write", "reason"),
    [
        (False, text, "not NIfTI"),
        (True, text, "not NIfTI"),
        (False, cut_short, "truncated"),
        (False, other_grid, "affine differs"),
        (False, other_shape, "shape"),
        (False, another_scan, "its values are no label map of 3 classes"),
        (False, more_classes, "its values are no label map of 3 classes"),
    ],
)
def test_files_that_are_no_whole_label_maps_of_the_scan_stay(
    run, scans, tmp_path, soft, write, reason
):
    path = tmp_path / ("nifti2_probabilities.nii.gz" if soft else "nifti2.nii.gz")
    write(path, scans)
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"{path.name} exists already; --overwrite.*{reason}"):
        predict_files(
            run,
            scans,
            tmp_path,
            checkpoint="best",
            probabilities=soft,
            overwrite=False,
        )
    assert [f.name for f in tmp_path.iterdir()] == [path.name] and path.read_bytes() == before


# What goes on ----------------------------------------------------------------------------


def contents(folder):
    return {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in folder.iterdir()}


def test_an_interrupted_prediction_goes_on_with_what_is_missing(
    run, scans, predicted, tmp_path, monkeypatch, listening
):
    options = {"checkpoint": "last", "probabilities": True, "overwrite": False}
    new, save = tmp_path / "new", nib.save

    def interrupted(image, path):
        if "large_probabilities" not in path.name:
            return save(image, path)
        path.write_text("half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(nib, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            predict_files(run, scans, new, **options)
    before = contents(new)
    assert 0 < len(before) < 2 * len(SCANS) and not any("part" in name for name in before)
    (new / "case.nii.gz").unlink()  # as if it had been stopped between the two files of a scan
    with listening() as lines:
        done, failed = predict_files(run, scans, new, **options)
    assert (sorted(done), sorted(failed)) == (sorted(SCANS), BAD)
    after = contents(new)
    again = {"case.nii.gz", "case_probabilities.nii.gz"}  # which may have been of another run
    assert before.items() - after.items() == {(name, before[name]) for name in again}
    for name in contents(predicted[0]):
        np.testing.assert_allclose(
            read_image(new / name)[0], read_image(predicted[0] / name)[0], atol=1e-6
        )
    assert lines[0] == (
        f"{len(before) // 2 - 1} of {len(SCANS) + len(BAD)} are there already and passed over; "
        "--overwrite predicts them again"
    )
    assert lines[1].startswith(f"{len(before) // 2}/{len(SCANS) + len(BAD)} ")


def test_nothing_is_left_to_do(run, scans, predicted, monkeypatch, told):
    monkeypatch.setattr("mijax.inference.scans.Predictor", pytest.fail)  # seconds for nothing
    before = contents(predicted[0])
    done, failed = predict_files(
        run,
        scans / "meta.mha",
        predicted[0],
        checkpoint="last",
        probabilities=True,
        overwrite=False,
    )
    assert (done, failed) == (["meta"], [])
    assert told == ["1 of 1 are there already and passed over; --overwrite predicts them again"]
    assert contents(predicted[0]) == before


def test_probabilities_may_be_asked_for_later(run, scans, predicted, tmp_path):
    path = tmp_path / "case.nii.gz"
    shutil.copy(predicted[0] / path.name, path)
    before = contents(tmp_path)
    predict_files(
        run,
        scans / "case.nii.gz",
        tmp_path,
        checkpoint="last",
        probabilities=True,
        overwrite=False,
    )
    after = contents(tmp_path)
    soft = after.pop("case_probabilities.nii.gz")
    assert after == before and soft[0] == contents(predicted[0])["case_probabilities.nii.gz"][0]


def test_what_is_of_another_label_map_goes_or_is_told_of(run, scans, tmp_path, told):
    """Probabilities of a label map that was there, by another run for all that is known."""
    shutil.copy(scans / "case.nii.gz", tmp_path)
    shutil.copy(scans / "case.nii.gz", tmp_path / "case_probabilities.nii.gz")  # a scan as well
    out, options = tmp_path / "out", {"checkpoint": "last", "trust": False}
    predict_files(run, tmp_path, out, probabilities=False, overwrite=False, **options)
    before, doubt = contents(out), out / "case_disagreement.nii.gz"
    doubt.write_bytes(b"of another run")
    (out / "case.nii.gz").unlink()
    predict_files(run, tmp_path, out, probabilities=False, overwrite=False, **options)
    assert doubt.exists() and f"{doubt} is not of the new label map" in " ".join(told)
    after = contents(out)
    assert after["case_probabilities.nii.gz"] == before["case_probabilities.nii.gz"]
    predict_files(run, tmp_path, out, probabilities=False, overwrite=True, **options)
    assert contents(out).keys() == {"case.nii.gz", "case_probabilities.nii.gz"}
    assert f"{doubt} is removed" in " ".join(told)


def test_two_files_of_one_name(run, scans, tmp_path):
    shutil.copy(scans / "case.nii.gz", tmp_path / "a.nii.gz")
    shutil.copy(scans / "case.nii.gz", tmp_path / "a_probabilities.nii.gz")
    with pytest.raises(UserError, match="a_probabilities.nii.gz would be written for two cases"):
        predict_files(
            run,
            tmp_path,
            tmp_path / "out",
            checkpoint="best",
            probabilities=True,
            overwrite=False,
        )


# The command -----------------------------------------------------------------------------


def test_command(run, scans, run_module, run_here, tmp_path):
    for name in ("signed.nii.gz", "truncated.nii.gz"):
        shutil.copy(scans / name, tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "signed.nii.gz").write_text("old")
    arguments = ["--workdir", run.folder, "--input", tmp_path, "--output", tmp_path / "out"]
    code, out, (line,) = run_here("mijax.predict", *arguments)
    assert (code, out) == (1, "")
    assert "signed.nii.gz exists already; --overwrite replaces it" in line
    code, out, lines = run_module("mijax.predict", *arguments, "--overwrite")
    assert (code, out, len(lines)) == (1, "", 4)
    assert "no trust.csv: " in lines[0] and lines[0].endswith(f"{run.folder} writes it")
    assert lines[-1] == "1 of 2 done; failed: truncated"
    assert nib.load(tmp_path / "out" / "signed.nii.gz").shape == (32, 32, 4)
    more = ("--mirror", "--largest_component", "--label_names")
    code, out, lines = run_here("mijax.predict", *arguments, *more)
    assert (code, out, lines[-1]) == (1, "", "1 of 2 done; failed: truncated")
    assert lines[0].startswith("1 of 2 are there already and passed over")
    assert '"core"' in (tmp_path / "out" / "label_names.txt").read_text()
    assert (tmp_path / "out" / "label_names.ctbl").exists()
    (tmp_path / "out" / "label_names.txt").write_text("of a run with other classes")
    run_here("mijax.predict", *arguments)
    assert '"core"' in (tmp_path / "out" / "label_names.txt").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "needs --workdir RUN, --input FILE or FOLDER, and --output FOLDER"),
        (["--workdir=x", "--input=x", "--output=x"], 1, "x is not a run"),
        (["--workdir=~/x", "--input=x", "--output=x"], 1, "/nobody/x is not a run"),
        (["--checkpoint=worst"], 2, "checkpoint"),
    ],
)
def test_wrong_command(run_here, monkeypatch, arguments, code, message):
    monkeypatch.setenv("HOME", "/nobody")
    result = run_here("mijax.predict", *arguments)
    assert result[:2] == (code, "") and message in result[2][-1]
