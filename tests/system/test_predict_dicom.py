"""A folder of DICOM series to label maps, as NIfTI and as DICOM segmentations."""

import json

import nibabel as nib
import numpy as np
import pytest
from dicom_files import highdicom, oblique, positions, stored_values, write_series

from mijax.errors import UserError
from mijax.inference import Predictor
from mijax.inference.scans import predict_files
from mijax.runs.folder import open_run
from mijax.runs.source import open_data

UID = "1.2.3.5"
CODES = {name: {"type": ["1", "99TEST", name]} for name in ("body", "core")}


@pytest.fixture(scope="module")
def run(uninterrupted):
    return open_run(uninterrupted("local_mi").folder)


@pytest.fixture(scope="module")
def stored(run):
    """(slices, rows, columns) of a phantom, in hundredths."""
    source = open_data(run.config)
    image = source.volume(source.cases[-1].name).image[..., 0]
    return np.round(100 * image.T).astype(np.int16)


@pytest.fixture(scope="module")
def scans(stored, tmp_path_factory):
    """A study of two series, and one that has a gap."""
    folder = tmp_path_factory.mktemp("scans")
    options = {"bits": 16, "slope": 0.01, "intercept": 0.0, "spacing": (1.0, 1.0)}
    places = positions(4, orientation=oblique(), distance=4)
    write_series(folder / "a", stored, uid=UID, orientation=oblique(), places=places, **options)
    write_series(folder / "b", stored[:2], uid="1.2.3.7", **options)
    write_series(folder / "c", stored[:3], uid="1.2.3.8", study="1.2.9", names="c{}", **options,
                 places=positions(4)[[0, 1, 3]])  # fmt: skip
    return folder


@pytest.fixture
def codes(tmp_path):
    (tmp_path / "codes.json").write_text(json.dumps(CODES))
    return tmp_path / "codes.json"


def predict(run, scans, output, **options):
    return predict_files(run, scans, output, checkpoint="last", **options)


@pytest.mark.filterwarnings("ignore:.*the largest of each study is taken:mijax.errors.Notice")
def test_label_maps_are_those_of_the_arrays(run, stored, scans, tmp_path, codes, told):
    output = tmp_path / "out"
    done, failed = predict(run, scans, output, dicom_seg=True, codes=codes)
    assert (done, failed) == ([UID], ["1.2.3.8"])
    assert any("1.2.3.8: a gap: c1 and c2 are 5 mm apart" in line for line in told)
    assert {path.name for path in output.iterdir()} == {f"{UID}.nii.gz", f"{UID}_seg.dcm"}
    image = nib.load(output / f"{UID}.nii.gz")
    expected = Predictor(run, checkpoint="last")(stored.T * 0.01, image.affine)
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected)
    assert len(np.unique(expected)) > 1
    row, column = np.reshape(oblique(), (2, 3))
    place = positions(4, orientation=oblique(), distance=4)[2] + 5 * row + 3 * column
    np.testing.assert_allclose(image.affine @ [5, 3, 2, 1], [*place * [-1, -1, 1], 1], atol=1e-4)
    # In the SEG the same voxels, by its own geometry.
    volume = highdicom.seg.segread(output / f"{UID}_seg.dcm").get_volume(combine_segments=True)
    grid = np.diag([-1.0, -1, 1, 1]) @ image.affine
    reference = highdicom.Volume(np.zeros(image.shape, np.uint8), grid, coordinate_system="PATIENT")
    np.testing.assert_array_equal(volume.match_geometry(reference).array, expected)


def test_what_is_there_is_passed_over_and_made_up_for(run, scans, tmp_path, codes, told):
    output, options = tmp_path / "out", {"series": [UID], "codes": codes}
    predict(run, scans, output, **options)
    label = output / f"{UID}.nii.gz"
    before = label.stat().st_mtime_ns
    predict(run, scans, output, dicom_seg=True, **options)
    seg = output / f"{UID}_seg.dcm"
    content = seg.read_bytes()
    told.clear()
    assert predict(run, scans, output, dicom_seg=True, **options) == ([UID], [])
    assert told == ["1 of 1 are there already and passed over; --overwrite predicts them again"]
    assert (label.stat().st_mtime_ns, seg.read_bytes()) == (before, content)
    seg.write_bytes(content[:-9])
    with pytest.raises(UserError, match=r"_seg.dcm exists already; --overwrite.*no SEG, or"):
        predict(run, scans, output, dicom_seg=True, **options)


def test_what_is_refused_before_any_work(run, scans, tmp_path):
    with pytest.raises(UserError, match="no DICOM code of body, core; give them by --codes"):
        predict(run, scans, tmp_path / "out", dicom_seg=True, series=[UID])
    nib.save(nib.Nifti1Image(stored_values().astype(np.int16), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(UserError, match="--dicom_seg is of DICOM series"):
        predict(run, tmp_path, tmp_path / "out", dicom_seg=True)
    assert not (tmp_path / "out").exists()


def test_command(run, scans, tmp_path, codes, run_here):
    arguments = ["--workdir", run.folder, "--input", scans, "--output", tmp_path / "out"]
    code, _, lines = run_here(
        "mijax.predict", *arguments, "--notrust", "--dicom_seg", "--codes", codes
    )
    assert code == 1 and lines[-1] == "1 of 2 done; failed: 1.2.3.8"
    left = "the largest of each study is taken; not taken: 1.2.3.7 'thorax' (2 slices of 32×32)"
    assert any(left in line for line in lines)
    code, _, lines = run_here("mijax.predict", *arguments, "--notrust", "--series", "1.2.3.7")
    assert (code, lines[-1]) == (0, f"1 of 1 done, in {tmp_path / 'out'}")
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {f"{UID}.nii.gz", f"{UID}_seg.dcm", "1.2.3.7.nii.gz"}
    code, _, (line,) = run_here("mijax.predict", *arguments, "--codes", codes)
    assert (code, line) == (2, "--codes is for --dicom_seg")
