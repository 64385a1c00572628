"""Small data sets written to disk in their exact layouts."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np

AFFINE = np.diag([1.0, 1.5, 3.0, 1.0])
SHAPE = (6, 5, 4)


def image_values(number: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(number).normal(100, 20, shape).astype(np.float32)


def label_values(number: int, shape=SHAPE) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 3, shape).astype(np.uint8)


def write_nifti(path: Path, values: np.ndarray, affine=AFFINE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, affine), path)


def write_description(root: Path, **description) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "dataset.json").write_text(json.dumps(description))


def write_msd(root: Path, *, labelled: int = 2, unlabelled: int = 1, tests: int = 1) -> Path:
    """MSD layout with classes background, a, b and one channel."""
    write_description(
        root, modality={"0": "MRI"}, labels={"0": "background", "1": "a", "2": "b"}, training=[]
    )
    for number in range(labelled + unlabelled):
        name = f"case_{number:02d}.nii.gz"
        write_nifti(root / "imagesTr" / name, image_values(number))
        if number < labelled:
            write_nifti(root / "labelsTr" / name, label_values(number))
    for number in range(tests):
        write_nifti(root / "imagesTs" / f"test_{number}.nii.gz", image_values(50 + number))
    (root / "imagesTr" / "._case_00.nii.gz").write_bytes(b"left by a Mac")
    return root


def write_nnunet(root: Path, *, cases: int = 2, channels: int = 2) -> Path:
    """nnU-Net v2 raw layout with classes background, a, b."""
    write_description(
        root,
        channel_names={str(channel): f"sequence {channel}" for channel in range(channels)},
        labels={"background": 0, "a": 1, "b": 2},
        numTraining=cases,
        file_ending=".nii.gz",
    )
    for number in range(cases):
        for channel in range(channels):
            path = root / "imagesTr" / f"c{number}_{channel:04d}.nii.gz"
            write_nifti(path, image_values(10 * channel + number))
        write_nifti(root / "labelsTr" / f"c{number}.nii.gz", label_values(number))
    return root
