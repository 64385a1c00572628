"""Small DICOM series written by pydicom, without a scanner.

What imports this is skipped where the extra ``dicom`` is not installed.
"""

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom")
highdicom = pytest.importorskip("highdicom")
uids = pydicom.uid
Dataset = pydicom.Dataset

AXIAL = (1.0, 0, 0, 0, 1, 0)
STUDY = "1.2.3"


def oblique() -> tuple[float, ...]:
    """Two directions at a right angle, along no axis."""
    turn, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(3, 3)))
    return tuple(np.round(turn[:, :2].T.ravel(), 12))


def stored_values(shape=(4, 6, 5), *, bits=12, signed=False, seed=0) -> np.ndarray:
    """(slices, rows, columns) of all values that so many bits can have."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    dtype = np.int16 if signed else np.uint16
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)


def _dataset(sop_class, uid, study) -> Dataset:
    made, meta = Dataset(), pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = uids.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = made.SOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = uids.generate_uid()
    made.file_meta = meta
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = study, uid, "CT"
    made.FrameOfReferenceUID, made.SeriesDescription = "1.2.3.4", "thorax"
    return made


def _set_pixels(made: Dataset, values: np.ndarray, bits: int) -> None:
    made.Rows, made.Columns = values.shape[-2:]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = 8 * values.dtype.itemsize
    made.BitsStored, made.HighBit = bits, bits - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    made.PixelData = values.tobytes()


def positions(count, *, orientation=AXIAL, origin=(-7.5, 3.25, 11), distance=2.5) -> np.ndarray:
    """(count, 3) of slices along the normal."""
    normal = np.cross(orientation[:3], orientation[3:])
    return np.array(origin) + np.arange(count)[:, None] * distance * normal


def write_series(
    folder,
    values,
    *,
    uid="1.2.3.5",
    study=STUDY,
    orientation=AXIAL,
    places=None,
    spacing=(0.8, 0.7),
    bits=12,
    slope=1.0,
    intercept=-1024.0,
    names="{}",
    change=lambda made, i: None,
):
    """One file a slice. ``change(data set, index)`` spoils it before it is written."""
    folder.mkdir(parents=True, exist_ok=True)
    places = positions(len(values), orientation=orientation) if places is None else places
    paths = []
    for i, (plane, place) in enumerate(zip(values, places, strict=True)):
        made = _dataset(uids.CTImageStorage, uid, study)
        _set_pixels(made, plane, bits)
        made.ImagePositionPatient = [float(round(x, 9)) for x in place]
        made.ImageOrientationPatient = [float(x) for x in orientation]
        made.PixelSpacing, made.SliceThickness = list(spacing), 2.5
        made.RescaleSlope, made.RescaleIntercept = slope, intercept
        made.InstanceNumber = i + 1
        change(made, i)
        paths.append(folder / names.format(i))
        made.save_as(paths[-1], enforce_file_format=True)
    return paths


def write_enhanced(
    path, values, *, uid="1.2.3.6", places=None, orientation=AXIAL, slopes=None, change=None
):
    """All slices in one file, with functional groups."""

    def group(name, **content):
        item, outer = Dataset(), Dataset()
        item.update(content)
        setattr(outer, name, [item])
        return outer

    path.parent.mkdir(parents=True, exist_ok=True)
    made = _dataset(uids.EnhancedCTImageStorage, uid, STUDY)
    _set_pixels(made, values, 12)
    made.NumberOfFrames = len(values)
    places = positions(len(values), orientation=orientation) if places is None else places
    slopes = [1.0] * len(values) if slopes is None else slopes
    shared = Dataset()
    shared.update(group("PlaneOrientationSequence", ImageOrientationPatient=list(orientation)))
    shared.update(group("PixelMeasuresSequence", PixelSpacing=[0.8, 0.7], SliceThickness=2.5))
    made.SharedFunctionalGroupsSequence = [shared]
    frames = []
    for i, (place, slope) in enumerate(zip(places, slopes, strict=True)):
        frame = Dataset()
        place = [float(round(x, 9)) for x in place]
        frame.update(group("PlanePositionSequence", ImagePositionPatient=place))
        frame.update(
            group(
                "PixelValueTransformationSequence",
                RescaleSlope=slope,
                RescaleIntercept=-1024.0,
                RescaleType="HU",
            )
        )
        frame.update(group("FrameContentSequence", DimensionIndexValues=[1, i + 1], StackID="1"))
        frames.append(frame)
    made.PerFrameFunctionalGroupsSequence = frames
    if change:
        change(made)
    made.save_as(path, enforce_file_format=True)
    return path
