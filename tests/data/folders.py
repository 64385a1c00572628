"""Small data sets written to disk in their exact layouts."""

import json
import zlib
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


ACDC_SHAPE = (8, 9, 3)
ACDC_INFO = "ED: {}\nES: {}\nGroup: DCM\nHeight: 184.0\nNbFrame: 30\nWeight: 95.0\n"


def acdc_header(shape, dtype, *, sform: bool) -> nib.Nifti1Header:
    """As of ACDC's files: millimetres and seconds, with or without an sform."""
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header.set_zooms((1.5625, 1.5625, 10.0, 0.0333)[: len(shape)])
    header.set_xyzt_units("mm", "sec")
    affine = np.diag([-1.5625, -1.5625, 10.0, 1.0])
    affine[:3, 3] = (5, 6, -7)
    header.set_qform(affine, code=1)
    header.set_sform(affine if sform else None, code=int(sform))
    header["descrip"] = b"5.0.9"
    return header


def write_acdc_patient(folder: Path, *, frames=(1, 12), labelled=True, sform=False, info=True):
    """A patient's folder: cine series, two frames with _gt, Info.cfg."""
    folder.mkdir(parents=True)

    def save(name, values):
        header = acdc_header(values.shape, values.dtype, sform=sform)
        nib.save(nib.Nifti1Image(values, None, header), folder / f"{folder.name}_{name}.nii.gz")

    number = int(folder.name[-3:])
    save("4d", np.zeros((*ACDC_SHAPE, 4), np.int16))
    for frame in frames:
        save(f"frame{frame:02d}", acdc_image(number, frame))
        if labelled:
            save(f"frame{frame:02d}_gt", acdc_label(number, frame))
    if info:
        (folder / "Info.cfg").write_text(ACDC_INFO.format(*frames))


def acdc_image(patient: int, frame: int) -> np.ndarray:
    return image_values(100 * patient + frame, ACDC_SHAPE).astype(np.int16)


def acdc_label(patient: int, frame: int) -> np.ndarray:
    return np.random.default_rng(100 * patient + frame).integers(0, 4, ACDC_SHAPE).astype(np.uint8)


def write_acdc(root: Path, *, patients=2, tests=1) -> Path:
    """The official folder; the first patient has no sform, the next has one, and so on."""
    (root / "training").mkdir(parents=True)
    (root / "MANDATORY_CITATION.md").write_text("Bernard et al.")
    for number in range(1, patients + 1):
        write_acdc_patient(root / "training" / f"patient{number:03d}", sform=number % 2 == 0)
    for number in range(101, 101 + tests):
        write_acdc_patient(root / "testing" / f"patient{number:03d}", frames=(1, 14))
    return root


METAIMAGE = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {compressed}
{size}TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = -80.5 -70 12.25
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = 0.625 0.625 3.5999999
DimSize = {x} {y} {z}
ElementType = {type}
ElementDataFile = {file}
"""


def write_metaimage(path: Path, values: np.ndarray, *, compressed=False, announced=True) -> None:
    """(x, y, z) values as a header and a .raw or .zraw beside it, as MetaIO writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = values.tobytes(order="F")
    content = zlib.compress(content) if compressed else content
    voxels = path.with_suffix(".zraw" if compressed else ".raw")
    voxels.write_bytes(content)
    x, y, z = values.shape
    text = METAIMAGE.format(
        compressed=compressed,
        size=f"CompressedDataSize = {len(content)}\n" if compressed and announced else "",
        x=x, y=y, z=z,
        type={"int16": "MET_SHORT", "int8": "MET_CHAR"}[values.dtype.name],
        file=voxels.name,
    )  # fmt: skip
    path.write_text(text)


def promise12_image(number: int) -> np.ndarray:
    return image_values(number, ACDC_SHAPE).astype(np.int16)


def promise12_label(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 2, ACDC_SHAPE).astype(np.int8)


def write_promise12(root: Path, *, cases=3, tests=1) -> Path:
    """Parts as unzipped; odd cases are compressed."""
    for number in range(cases):
        part = root / f"TrainingData_Part{number % 3 + 1}"
        odd = number % 2 == 1
        write_metaimage(part / f"Case{number:02d}.mhd", promise12_image(number), compressed=odd)
        path = part / f"Case{number:02d}_segmentation.mhd"
        write_metaimage(path, promise12_label(number), compressed=odd)
    for number in range(tests):
        path = root / "TestData" / f"Case{number:02d}.mhd"
        write_metaimage(path, promise12_image(50 + number))
    return root
