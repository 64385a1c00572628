"""Images of several channels from files to scores, in both layouts of ``configs/folder.py``."""

import json

import nibabel as nib
import numpy as np
import pytest

from mijax.configs import folder
from mijax.inference import evaluate
from mijax.runs.folder import start_run
from mijax.training import train

pytestmark = pytest.mark.xdist_group("channels")  # it shares no program with other tests

SHAPE = (14, 12, 3)


def image(number, channel):
    key = np.random.default_rng([number, channel])
    return (label(number) * np.float32(1 - 2 * channel) + key.normal(0, 0.3, SHAPE)).astype(
        np.float32
    )


def label(number):
    values = np.zeros(SHAPE, np.uint8)
    values[3 + number % 3 : 9, 3:9] = 1
    return values


def save(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([1, 1, 4, 1.0])), path)


def write_msd(root):
    """Five labelled cases, and two without a label; channels are the fourth axis."""
    for number in range(7):
        values = np.stack([image(number, channel) for channel in range(2)], axis=-1)
        save(root / "imagesTr" / f"p{number}.nii.gz", values)
        if number < 5:
            save(root / "labelsTr" / f"p{number}.nii.gz", label(number))
    return {"modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "box"}}


def write_nnunet(root):
    """The same; each channel is a file."""
    for number in range(7):
        for channel in range(2):
            save(root / "imagesTr" / f"p{number}_{channel:04d}.nii.gz", image(number, channel))
        if number < 5:
            save(root / "labelsTr" / f"p{number}.nii.gz", label(number))
    return {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "box": 1},
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }


@pytest.mark.parametrize("layout", [write_msd, write_nnunet])
def test_from_files_to_scores(cache, tmp_path, layout):
    description = layout(tmp_path / "set")
    (tmp_path / "set" / "dataset.json").write_text(json.dumps(description))
    config = folder.get_config("entropy")
    config.update_from_flattened_dict(
        {
            "cache": str(cache),
            "steps": 4,
            "log_every": 2,
            "evaluate_every": 4,
            "warmup_steps": 1,
            "labelled_batch": 8,
            "unlabelled_batch": 8,
            "model.widths": (4,),
            "data.source.dir": str(tmp_path / "set"),
            "data.patches.size": (16, 16),
            "data.patches.fit": "pad",
            "data.splits.labelled": 2,
            "data.splits.validation": 1,
            "data.splits.test": 2,
        }
    )
    run = start_run(tmp_path / "run", config)
    state = train(run)
    assert state.params["network"]["Conv1a"]["kernel"].shape == (3, 3, 2, 4)
    splits = json.loads((run.folder / "splits.json").read_text())
    assert splits["unlabelled"] == ["p5", "p6"]
    scores = evaluate(run)
    assert list(scores["last"]["cases"]) == splits["test"]
    assert list(scores["last"]["classes"]) == ["box"]
    assert run.info()["channels"] == 2
    assert run.info()["numbered"] == (layout is write_nnunet)
