"""Which DICOM series of a folder are predicted: those asked for, or the largest of each study."""

import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from mijax.data.formats.dicom.headers import Series, is_dicom, read_series
from mijax.data.formats.dicom.stack import Stack, by_orientation, make_stack
from mijax.errors import ANOTHER_SERIES, UserError, counted, tell

_SHOWN = 5  # series in a line


class Choice(NamedTuple):
    """A series to be taken.

    Attributes:
      uid: SeriesInstanceUID.
      files: its files, of whatever study.
      stack: its volume, the largest where its slices have several orientations; or None.
      problem: why there is none.
    """

    uid: str
    files: tuple[Path, ...]
    stack: Stack | None
    problem: str | None = None


def dicom_files(path: Path) -> list[Path]:
    """A DICOM file, or those of a folder and its subfolders, hidden ones left out."""
    if path.is_file():
        return [path] if is_dicom(path) else []
    inside = (p for p in sorted(path.rglob("*")) if not _is_hidden(p.relative_to(path)))
    return [p for p in inside if p.is_file() and is_dicom(p)]


def choose_series(path: Path, files: Sequence[Path], *, wanted: Iterable[str]) -> list[Choice]:
    """The series to take of some DICOM files; what is not taken is told in a line (``Notice``).

    Args:
      path: where the files were found, for the message.
      files: from ``dicom_files``.
      wanted: SeriesInstanceUIDs; without any, of each study the series of most voxels.

    Returns:
      One for each series, sorted by its UID.

    Raises:
      UserError: no image, a damaged file, or no series of a wanted UID.
    """
    series, others = read_series(files)
    if not series:
        raise UserError(f"{path}: {others} DICOM files, and none is an image")
    wanted = list(dict.fromkeys(wanted))
    known = {one.uid for one in series}
    if unknown := [uid for uid in wanted if uid not in known]:
        raise UserError(f"{path}: no series {unknown[0][:80]!a}; there are {_listed(series)}")
    if wanted:
        taken = [one for one in series if one.uid in wanted]
    else:
        by_study = sorted((one for one in series if one.voxels), key=lambda one: one.study)
        taken = [next(group) for _, group in itertools.groupby(by_study, lambda one: one.study)]
        taken = taken or series[:1]
        _tell_left(path, taken, [one for one in series if one not in taken], others)
    by_uid = sorted(taken, key=lambda one: one.uid)
    groups = itertools.groupby(by_uid, lambda one: one.uid)
    return [_choice(path, *group) for _, group in groups]


def _choice(path: Path, series: Series, *others: Series) -> Choice:
    """That of a series, which is to be of one study: outputs are named for its UID."""
    if others:
        files = tuple(frame.path for one in (series, *others) for frame in one.frames)
        problem = (
            f"{path}: series {series.uid} is in {1 + len(others)} studies, as of {files[0]} and "
            f"{files[-1]}; give each a folder of its own"
        )
        return Choice(series.uid, tuple(dict.fromkeys(files)), None, problem)
    largest, *rest = by_orientation(series)
    if rest:
        counts = ", ".join(str(len(one.frames)) for one in rest[:_SHOWN])
        tell(
            f"{path}: series {series.uid} has slices of {len(rest) + 1} orientations; the largest "
            f"volume, of {len(largest.frames)} slices, is taken, not those of {counts}"
        )
    files = tuple(dict.fromkeys(frame.path for frame in largest.frames))
    try:
        return Choice(series.uid, files, make_stack(largest))
    except UserError as error:
        return Choice(series.uid, files, None, f"{error}{ANOTHER_SERIES}")


def _tell_left(path: Path, taken: list[Series], left: list[Series], others: int) -> None:
    parts = [_listed(left)] if left else []
    parts += [f"{counted(others, 'DICOM file')} of no image"] if others else []
    if parts:
        one = f"the largest series, {taken[0]}," if len(taken) == 1 else "the largest of each study"
        hint = ANOTHER_SERIES * bool(left)
        tell(f"{path}: {one} is taken; not taken: {', and '.join(parts)}{hint}")


def _listed(series: Sequence[Series]) -> str:
    shown = [str(one) for one in series[:_SHOWN]]
    shown += [f"and {len(series) - _SHOWN} more"] * (len(series) > _SHOWN)
    return ", ".join(shown)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
