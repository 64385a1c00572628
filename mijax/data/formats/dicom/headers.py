"""What the headers of DICOM files say of slices: where each lies, and how it is stored."""

import contextlib
import logging
import math
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mijax.errors import UserError, counted, needs

_MAGIC, _AT = b"DICM", 128  # bytes in
_UID = re.compile(r"[0-9][0-9.]{0,63}")
_NO_IMAGES = ("SEG", "RTDOSE")  # modalities that have pixels and are no scans
# Values that tell apart the volumes of a series of several, of single and of multi-frame files.
_MARKS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "TriggerTime",
    "NominalCardiacTriggerDelayTime", "EchoTime", "EffectiveEchoTime", "DiffusionBValue",
    "AcquisitionNumber", "AcquisitionTime", "ImageType",
)  # fmt: skip
_TAGS = (
    "SOPInstanceUID", "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription",
    "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel",
    "PhotometricInterpretation", "ImagePositionPatient", "ImageOrientationPatient",
    "PixelSpacing", "SliceThickness", "SpacingBetweenSlices", "RescaleSlope", "RescaleIntercept",
    "ModalityLUTSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
    *_MARKS,
)  # fmt: skip


class Frame(NamedTuple):
    """One slice, in the coordinates of DICOM (LPS+, mm).

    Attributes:
      path: its file.
      index: of the frame in the file.
      instance: SOPInstanceUID.
      problem: why it can be no slice of a volume; the attributes after it are then not there.
      size: (rows, columns).
      position: (3,) of the centre of the first voxel.
      orientation: (6,) unit vectors along a row, and down a column.
      spacing: (2,) mm between rows, and between columns.
      thickness: mm to the next slice where there is none to measure from, or None.
      slope, intercept: from stored values to those of the scanner.
      marks: values by name that may tell volumes at one place apart.
    """

    path: Path
    index: int
    instance: str
    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    position: tuple[float, ...] = ()
    orientation: tuple[float, ...] = ()
    spacing: tuple[float, ...] = ()
    thickness: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    marks: tuple[tuple[str, str], ...] = ()


class Series(NamedTuple):
    """The slices of one SeriesInstanceUID, of a study, in the order of their files."""

    uid: str
    study: str
    description: str
    frames: tuple[Frame, ...]

    @property
    def voxels(self) -> int:
        """How many it has; 0 where none of its images can be a slice of a volume."""
        return sum(math.prod(f.size) for f in self.frames if not f.problem)

    def __str__(self):
        sizes = sorted({"×".join(map(str, f.size)) for f in self.frames if not f.problem})
        of = f" of {' and '.join(sizes[:3])}" if sizes else ""
        return f"{self.uid} {self.description[:40]!a} ({counted(len(self.frames), 'slice')}{of})"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM by its content, whatever its name."""
    try:
        with path.open("rb") as file:
            file.seek(_AT)
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


@contextlib.contextmanager
def quiet():
    """Without what pydicom and highdicom say of values that are not of their type."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def read_series(paths: Iterable[Path]) -> tuple[list[Series], int]:
    """Reads the headers of DICOM files.

    Returns:
      The series, the largest first, and the number of files that are no images.

    Raises:
      UserError: a file that is damaged, or pydicom is not installed.
    """
    needs("pydicom", "dicom")
    found: dict[tuple[str, str], Series] = {}
    others = 0
    for path in paths:
        one = _read(path)
        if one is None:
            others += 1
            continue
        before = found.setdefault((one.study, one.uid), one._replace(frames=()))
        found[one.study, one.uid] = before._replace(frames=before.frames + one.frames)
    return sorted(found.values(), key=lambda one: (-one.voxels, one.uid)), others


def _read(path: Path) -> Series | None:
    """The frames of one file, or None where it is no image."""
    import pydicom

    try:
        with quiet():
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
            if not _is_image(path, header):
                return None
            uid = str(header.get("SeriesInstanceUID", ""))
            if not _UID.fullmatch(uid):  # a file is named for it
                raise UserError(
                    f"{path}: SeriesInstanceUID cannot be {uid[:80]!a}; export it again"
                )
            study = str(header.get("StudyInstanceUID", ""))
            description = str(header.get("SeriesDescription", ""))
            return Series(uid, study, description, tuple(_frames(path, header)))
    except UserError:
        raise
    except Exception as error:  # of damaged files pydicom raises nearly anything
        raise UserError(f"{path}: damaged DICOM ({reason_of(error)}); copy it again") from error


def _is_image(path: Path, header) -> bool:
    """Whether it has pixels of a scan.

    Raises:
      UserError: it should have, by its kind, and says nothing of them.
    """
    from pydicom.uid import UID

    if "Rows" in header and "Columns" in header:
        return header.get("Modality") not in _NO_IMAGES
    kind = UID(header.file_meta.get("MediaStorageSOPClassUID", "")).name
    if "Image Storage" in kind:
        raise UserError(f"{path}: {kind} without Rows or Columns; copy it again")
    return False


def _frames(path: Path, header) -> list[Frame]:
    instance = str(header.get("SOPInstanceUID") or path)
    groups = list(header.get("PerFrameFunctionalGroupsSequence") or ())
    number = int(header.get("NumberOfFrames") or 1)
    if number != max(len(groups), 1):
        return [Frame(path, 0, instance, f"{number} frames, {len(groups)} of them placed")]
    shared = _items(header.get("SharedFunctionalGroupsSequence") or ())
    return [
        _frame(path, index, instance, [*_items([own]), *shared, header])
        for index, own in enumerate(groups or [header])
    ]


def _items(groups: Sequence) -> list:
    """The items of all sequences of some functional groups."""
    return [item for group in groups for one in group if one.VR == "SQ" for item in one.value]


def _frame(path: Path, index: int, instance: str, places: list) -> Frame:
    """The frame that some data sets describe, the first that has a value being right."""
    kind, samples = _value(places, "PhotometricInterpretation"), _value(places, "SamplesPerPixel")
    if not str(kind).startswith("MONOCHROME") or samples not in (None, 1):
        problem = f"colour ({samples} samples a pixel, {str(kind)[:20]!a})"
        return Frame(path, index, instance, problem)
    found = {}
    for name, count in (
        ("ImageOrientationPatient", 6),
        ("ImagePositionPatient", 3),
        ("PixelSpacing", 2),
    ):
        found[name] = _numbers(places, name, count)
        if found[name] is None:
            return Frame(path, index, instance, f"no {name}, or no {count} numbers in it")
    row, column = found["ImageOrientationPatient"][:3], found["ImageOrientationPatient"][3:]
    lengths = math.hypot(*row), math.hypot(*column)
    inner = sum(a * b for a, b in zip(row, column, strict=True))
    slope, intercept = _number(places, "RescaleSlope", 1.0), _number(places, "RescaleIntercept", 0)
    problem = None
    if max(abs(lengths[0] - 1), abs(lengths[1] - 1), abs(inner)) > 1e-3:
        problem = "ImageOrientationPatient is no pair of unit vectors at a right angle"
    elif min(found["PixelSpacing"]) <= 0:
        problem = "PixelSpacing is not positive"
    elif not slope or intercept is None:
        problem = "RescaleSlope is 0, or it or RescaleIntercept is no number"
    elif _value(places, "ModalityLUTSequence"):
        problem = "a table of values (ModalityLUTSequence) in place of RescaleSlope"
    if problem:
        return Frame(path, index, instance, problem)
    marks = ((name, _value(places, name)) for name in _MARKS)
    thicknesses = (_number(places, n, None) for n in ("SpacingBetweenSlices", "SliceThickness"))
    return Frame(
        path,
        index,
        instance,
        size=(int(_value(places, "Rows")), int(_value(places, "Columns"))),
        position=found["ImagePositionPatient"],
        orientation=found["ImageOrientationPatient"],
        spacing=found["PixelSpacing"],
        thickness=next((mm for mm in thicknesses if mm and mm > 0), None),
        slope=slope,
        intercept=intercept,
        marks=tuple((name, str(value)) for name, value in marks if value is not None),
    )


def _value(places: list, name: str):
    return next((place.get(name) for place in places if place.get(name) not in (None, "")), None)


def _numbers(places: list, name: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    value = _value(places, name)
    try:
        numbers = tuple(float(v) for v in ([value] if count == 1 else value))
    except (TypeError, ValueError):
        return None
    return numbers if len(numbers) == count and all(map(math.isfinite, numbers)) else None


def _number(places: list, name: str, default):
    """A finite number, the default where there is none, None where it is something else."""
    found = default if _value(places, name) is None else _numbers(places, name, 1)
    return found[0] if isinstance(found, tuple) else found


def reason_of(error: Exception) -> str:
    """What an error of another library says, short and in one line."""
    return ascii(" ".join(str(error).split())[:160] or type(error).__name__)[1:-1]
