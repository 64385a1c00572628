"""Label maps as DICOM segmentation objects (SEG), by highdicom."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

import mijax
from mijax.data.formats.dicom.codes import Segment
from mijax.data.formats.dicom.headers import quiet, reason_of
from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.label_names import colour_of
from mijax.errors import UserError
from mijax.files import in_one_piece

_SEG = "1.2.840.10008.5.1.4.1.1.66.4"  # SOP class Segmentation Storage
_EMPTY_ALLOWED = (  # attributes of patient and study that must be there, and may be empty
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID",
    "StudyDate", "StudyTime",
)  # fmt: skip
_SERIES_NUMBER = 9000  # above those that scanners give


def write_segmentation(
    path: Path, labels: np.ndarray, stack: Stack, segments: Sequence[Segment]
) -> None:
    """Writes a label map as a binary SEG that refers to the slices it was made from, in one piece.

    Each class is a segment of its own, described also where it is empty; frames without a voxel
    of their segment are left out, or kept where otherwise none would remain.

    Args:
      path: to write.
      labels: (x, y, z) uint8 on the grid of the stack, 0 for the background.
      stack: the slices.
      segments: of the labels 1, 2, ….

    Raises:
      UserError: the slices lack what a SEG needs of them, or it cannot be written there.
    """
    import highdicom as hd
    from pydicom.sr.codedict import codes
    from pydicom.sr.coding import Code

    algorithm = hd.AlgorithmIdentificationSequence(
        name="mijax", family=codes.DCM.ArtificialIntelligence, version=mijax.__version__
    )
    descriptions = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=segment.label,
            segmented_property_category=Code(*segment.category),
            segmented_property_type=Code(*segment.type),
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            display_color=hd.color.CIELabColor.from_rgb(*colour_of(number)),
        )
        for number, segment in enumerate(segments, 1)
    ]
    try:
        # Quiet, also that all frames are kept where all are empty.
        with in_one_piece(path) as part, quiet():
            sources, planes = _sources(stack, labels)
            seg = hd.seg.Segmentation(
                source_images=sources,
                pixel_array=planes,
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=descriptions,
                series_instance_uid=hd.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=hd.UID(),
                instance_number=1,
                manufacturer="mijax",
                manufacturer_model_name="mijax",
                software_versions=mijax.__version__,
                device_serial_number="none",
                series_description="Segmentation by mijax",
                omit_empty_frames=True,
            )
            seg.save_as(part)
    except UserError:
        raise
    except Exception as error:  # of headers that are not as they should be both raise anything
        raise UserError(
            f"{stack.parent}: no SEG of series {stack.uid} ({reason_of(error)}); without "
            "--dicom_seg there is the label map alone"
        ) from error


def check_segmentation(path: Path, stack: Stack) -> None:
    """Refuses a file that is not a whole SEG of a stack.

    Raises:
      UserError: what is wrong with it.
    """
    import pydicom

    try:
        with quiet():
            seg = pydicom.dcmread(path)
            uid = seg.ReferencedSeriesSequence[0].SeriesInstanceUID
            bits = seg.Rows * seg.Columns * int(seg.NumberOfFrames)
            whole = seg.SOPClassUID == _SEG and len(seg.PixelData) >= bits / 8
    except Exception as error:  # of damaged files pydicom raises nearly anything
        raise UserError(f"{path}: no SEG, or damaged; remove it") from error
    if not whole:
        raise UserError(f"{path}: no SEG, or truncated; remove it")
    if uid != stack.uid:
        raise UserError(f"{path}: a SEG of series {uid}; remove it")


def _sources(stack: Stack, labels: np.ndarray) -> tuple[list, np.ndarray]:
    """The images that a SEG is made from, and its planes (n, rows, columns) in their order."""
    import pydicom

    files = list(dict.fromkeys(frame.path for frame in stack.frames))
    sources = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    for source in sources:
        for name in _EMPTY_ALLOWED:
            if name not in source:
                setattr(source, name, None)
    planes = np.moveaxis(labels, (0, 1, 2), (2, 1, 0))
    if len(files) == len(stack.frames) and "PerFrameFunctionalGroupsSequence" not in sources[0]:
        return sources, planes
    if len(files) > 1:
        raise UserError(
            f"{stack.parent}: no SEG of series {stack.uid}, which is of {len(files)} multi-frame "
            "files; without --dicom_seg there is the label map alone"
        )
    frames = np.zeros((int(sources[0].NumberOfFrames), *planes.shape[1:]), planes.dtype)
    frames[[frame.index for frame in stack.frames]] = planes
    return sources, frames
