"""Slices of a DICOM series on one regular grid, or the line that says why they are on none."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mijax.data.formats.dicom.headers import Frame, Series
from mijax.errors import UserError, counted, times

_TURNED = 1e-3  # of a direction cosine; further apart is another orientation
_SAME = 1e-3  # of a pixel along the normal; nearer is the same place
_OFF = 0.05  # of a voxel that a slice may lie off the grid
_TILT = 0.1  # degrees between the normal and the way from slice to slice
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_SHOWN = 3  # values in a line


class Stack(NamedTuple):
    """The slices of a volume, in order along the normal of their plane.

    Attributes:
      uid: SeriesInstanceUID.
      frames: the slices.
      shape: (x, y, z): columns, rows, slices.
      affine: (4, 4) float64, voxel index to millimetres, RAS+.
    """

    uid: str
    frames: tuple[Frame, ...]
    shape: tuple[int, int, int]
    affine: np.ndarray

    @property
    def parent(self) -> Path:
        """Its folder; with ``name`` it is named in messages as a file is."""
        return self.frames[0].path.parent

    @property
    def name(self) -> str:
        """The series."""
        return self.uid


def by_orientation(series: Series) -> list[Series]:
    """A series as one of each orientation, the largest first: localisers have several.

    Images that can be no slices stay with the largest, for ``make_stack`` to name them.
    """
    groups: list[list[Frame]] = []
    bad = tuple(frame for frame in series.frames if frame.problem)
    for frame in (frame for frame in series.frames if not frame.problem):
        for group in groups:
            if np.allclose(group[0].orientation, frame.orientation, rtol=0, atol=_TURNED):
                group.append(frame)
                break
        else:
            groups.append([frame])
    found = [series._replace(frames=tuple(group)) for group in groups]
    largest, *rest = sorted(found, key=lambda one: -one.voxels) or [series._replace(frames=())]
    return [largest._replace(frames=largest.frames + bad), *rest]


def make_stack(series: Series) -> Stack:
    """Puts the slices of a series of one orientation in order, by their positions alone.

    Raises:
      UserError: the slices are not all of one size and one spacing, at equal distances along
        their normal, and one at each place.
    """
    at = f"{series.frames[0].path.parent}: series {series.uid}"
    _check_alike(at, series.frames)
    positions = np.array([frame.position for frame in series.frames])
    first = series.frames[0]
    row, column = np.reshape(first.orientation, (2, 3))
    normal = np.cross(row, column)
    order = np.argsort(positions @ normal, kind="stable")
    frames, positions = [series.frames[i] for i in order], positions[order]
    along = positions @ normal
    _check_places(at, frames, along, _SAME * min(first.spacing))
    if len(frames) > 1:
        step = (positions[-1] - positions[0]) / (len(frames) - 1)
        _check_line(at, frames, positions, step, normal)
    elif first.thickness:
        step = normal * first.thickness
    else:
        raise UserError(
            f"{at}: one slice, and neither SliceThickness nor SpacingBetweenSlices says how thick"
        )
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, positions[0]
    return Stack(series.uid, tuple(frames), (*first.size[::-1], len(frames)), _TO_RAS @ affine)


def _check_alike(at: str, frames: Sequence[Frame]) -> None:
    bad = [frame for frame in frames if frame.problem]
    if bad:
        count = f"{len(bad)} of its {len(frames)} images cannot be slices: " * (len(frames) > 1)
        raise UserError(f"{at}: {count}{_name(bad[0])}: {bad[0].problem}")
    sizes = Counter(times(frame.size) for frame in frames)
    spacings = np.array([frame.spacing for frame in frames])
    if len(sizes) > 1:
        found = ", ".join(f"{n} of {size}" for size, n in sizes.most_common(_SHOWN))
        raise UserError(f"{at}: slices of several sizes: {found}; keep those of one in the folder")
    if (abs(spacings / spacings[0] - 1) > _TURNED).any():
        low, high = spacings.min(0), spacings.max(0)
        raise UserError(
            f"{at}: PixelSpacing is from {times(low.round(4))} to {times(high.round(4))} mm; keep "
            "slices of one in the folder"
        )


def _check_places(at: str, frames: Sequence[Frame], along: np.ndarray, same: float) -> None:
    """Refuses two slices at one place: copies, or volumes of several times or contrasts."""
    first: dict[tuple[str, int], Frame] = {}
    for frame in frames:
        other = first.setdefault((frame.instance, frame.index), frame)
        if other is not frame:
            copies = len(frames) - len({(f.instance, f.index) for f in frames})
            raise UserError(
                f"{at}: {counted(copies, 'slice')} twice: {other.path} and {frame.path} "
                "have one SOPInstanceUID; remove the copies"
            )
    places = np.concatenate([[0], np.cumsum(np.diff(along) > same)])
    counts = np.bincount(places)
    if counts.max() == 1:
        return
    if len(set(counts)) == 1:
        raise UserError(
            f"{at}: 4-D, {counts[0]} volumes of {len(counts)} slices each{_differ(frames, places)};"
            " keep the files of one in the folder"
        )
    place = counts.argmax()
    here = [frame for frame, p in zip(frames, places, strict=True) if p == place]
    raise UserError(
        f"{at}: {_name(here[0])} and {_name(here[1])} lie at one place, "
        f"{along[places == place][0]:.2f} mm along the normal, and {(counts > 1).sum()} of its "
        f"{len(counts)} places have several slices{_differ(frames, places)}; keep one of each"
    )


def _differ(frames: Sequence[Frame], places: np.ndarray) -> str:
    """What tells slices at one place apart, the first such attribute with its values."""
    here = [frame for frame, p in zip(frames, places, strict=True) if p == places[0]]
    marks = {name: sorted({dict(frame.marks).get(name, "none") for frame in here}, key=_as_number)
             for name, _ in here[0].marks}  # fmt: skip
    for name, values in marks.items():
        if len(values) > 1:
            more = ", …" * (len(values) > _SHOWN)
            shown = ", ".join(f"{value[:20]!a}"[1:-1] for value in values[:_SHOWN])
            return f" ({name} {shown}{more})"
    return ""


def _as_number(text: str):
    try:
        return (0, float(text), "")
    except ValueError:
        return (1, 0.0, text)


def _check_line(at: str, frames, positions: np.ndarray, step: np.ndarray, normal) -> None:
    """Refuses slices that are not on a line along the normal at equal distances."""
    off = positions - (positions[0] + np.arange(len(frames))[:, None] * step)
    along = off @ normal
    beside = np.linalg.norm(off - along[:, None] * normal, axis=1)
    pixel = min(frames[0].spacing)
    if abs(along).max() > _OFF * (step @ normal):
        distances = np.diff(positions @ normal)
        usual = np.sort(distances)[(len(distances) - 1) // 2]  # the lower median: one that is
        i = abs(distances - usual).argmax()
        missing = round(distances[i] / usual) - 1
        guess = f", so that {missing} may be missing" * (missing > 0)
        raise UserError(
            f"{at}: a gap: {_name(frames[i])} and {_name(frames[i + 1])} are {distances[i]:.4g} mm "
            f"apart, the {len(frames)} slices {usual:.4g} mm as a rule{guess}; copy all its files"
        )
    if beside.max() > _OFF * pixel:
        i = beside.argmax()
        raise UserError(
            f"{at}: {_name(frames[i])} lies {beside[i]:.4g} mm beside the line of the other "
            "slices; they are no volume"
        )
    shear = np.linalg.norm(np.cross(step, normal))
    tilt = np.degrees(np.arctan2(shear, step @ normal))
    if tilt > _TILT and shear * (len(frames) - 1) > _OFF * pixel:
        raise UserError(
            f"{at}: its slices are sheared by {tilt:.1f}° (a tilted gantry); resample it to a "
            "straight grid, by dcm2niix or 3D Slicer"
        )


def _name(frame: Frame) -> str:
    return f"{frame.path.name!a}"[1:-1] + f" frame {frame.index + 1}" * (frame.index > 0)
