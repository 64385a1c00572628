"""Scans without a data set around them: which files of a folder are which case."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mijax.data.formats.dicom.choice import choose_series, dicom_files
from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.dicom.voxels import read_stack
from mijax.data.formats.geometry import tell_of_doubt
from mijax.data.formats.imagefile import ENDINGS, read_header
from mijax.data.sources.folder import read_channels
from mijax.data.sources.layout import CHANNEL
from mijax.data.sources.listing import left_out, stem_of, visible
from mijax.data.text import distinct, is_plain
from mijax.data.volume import Volume
from mijax.errors import UserError


class Scan(NamedTuple):
    """One case: its image file, or one a channel, or DICOM slices; or why these are no case.

    ``told`` are notices of where it was found, for who could not hear them then.
    """

    name: str
    images: tuple[Path, ...]
    problem: str | None = None
    stack: Stack | None = None
    told: tuple[str, ...] = ()

    @property
    def reference(self) -> Path | Stack:
        """What has the grid of the case."""
        return self.stack or self.images[0]


def find_scans(
    path: Path, *, channels: int, numbered: bool = True, series: Sequence[str] = ()
) -> list[Scan]:
    """The scans of a file, or of a folder, sorted by name. At most headers are read.

    A file is a case and named for it. Files CASE_0000, CASE_0001, … that are as many as the
    channels are one case, CASE, as in nnU-Net, unless one of them has all channels itself; any
    other file has to. Of one channel CASE_0000 is CASE where ``numbered``, see ``Recipe``, and
    CASE_0000 where not. Hidden files, files of other formats and subfolders are passed over, see
    ``not_scans``.

    Where no file has such a name, or a series is named, DICOM files are looked for by their
    content, in subfolders, too. A series is a case, and named for its UID: see ``dicom.choice``.

    Raises:
      UserError: no such file or folder, or no scan there; or none of a series that is named.
    """
    if not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    files: dict[str, list[Path]] = {}
    for file in [path] if path.is_file() else visible(path):
        if file.is_file() and (stem := stem_of(file, ENDINGS)) is not None:
            files.setdefault(stem, []).append(file)
    if series or not files:
        return _dicom_scans(path, channels, series)
    cases: dict[str, list[tuple[Path, ...]]] = {}
    for name, images in _by_case(files, channels, numbered=numbered):
        cases.setdefault(name, []).append(images)
    return [_scan(name, found) for name, found in sorted(cases.items())]


def not_scans(path: Path, scans: list[Scan], *, output: Path) -> str | None:
    """A line that names what lies in the folder of some scans and is none; None where all is.

    The folder ``output`` of their label maps may lie there, too.
    """
    if not path.is_dir() or any(stem_of(scan.images[0], ENDINGS) is None for scan in scans):
        return None  # of DICOM files that line is told where they are chosen
    known = [image for scan in scans for image in scan.images]
    known += [other for other in visible(path) if other.resolve() == output.resolve()]
    return left_out(path, known, ENDINGS)


def check_apart(path: Path, scans: Sequence[Scan], output: Path) -> None:
    """Refuses a folder to write to that is the one of some scans, or of files they are links to.

    Raises:
      UserError: it is.
    """
    images = [image for scan in scans for image in scan.images]
    folders = [path, *(file.parent for image in images for file in (image, image.resolve()))]
    if output.resolve() in {folder.resolve() for folder in {*folders}}:
        raise UserError(f"{output} holds the scans; choose another folder for the label maps")


def read_scan(scan: Scan, *, channels: int) -> Volume:
    """Reads a scan.

    Raises:
      UserError: unreadable, of another number of channels, not finite, or not one case.
    """
    if scan.problem:
        raise UserError(scan.problem)
    if scan.stack:
        image, affine = read_stack(scan.stack)
        return Volume(scan.name, image[..., None], None, affine)
    image, affine = read_channels(scan.images, channels)
    tell_of_doubt(scan.images[0], image.shape)
    return Volume(scan.name, image, None, affine)


def _dicom_scans(path: Path, channels: int, series: Sequence[str]) -> list[Scan]:
    files = dicom_files(path)
    if not files:
        none = "not one of" if path.is_file() else "no scan there; it would be one of"
        if series:
            raise UserError(f"{path}: --series is of DICOM files, and there is none")
        raise UserError(f"{path}: {none} {', '.join(ENDINGS)}, or DICOM")
    if channels > 1:
        raise UserError(
            f"{path}: a DICOM series has one channel; {channels} needed. Convert the series to "
            "NIfTI, CASE_0000.nii.gz, CASE_0001.nii.gz, …"
        )
    found = choose_series(path, files, wanted=series)
    return [Scan(one.uid, one.files, one.problem, one.stack) for one in found]


def _by_case(files: dict[str, list[Path]], channels: int, *, numbered: bool):
    """Yields (case, its files); several where a channel or a case is there twice."""
    groups: dict[str, dict[int, list[Path]]] = {}
    for stem, paths in files.items():
        if (numbered or channels > 1) and (match := CHANNEL.fullmatch(stem)):
            groups.setdefault(match[1], {})[int(match[2])] = paths
    for name, group in groups.items():
        images = tuple(path for channel in sorted(group) for path in group[channel])
        if sorted(group) == list(range(channels)) and not _any_whole(images, channels):
            yield name, images
            for paths in group.values():
                del files[stem_of(paths[0], ENDINGS)]
    for name, paths in files.items():
        for path in paths:
            yield name, (path,)


def _any_whole(images: tuple[Path, ...], channels: int) -> bool:
    """Whether one of the files that are named as channels of a case has all of them."""
    return channels > 1 and any(_channels(path) == channels for path in images)


def _channels(path: Path) -> int | None:
    try:
        return math.prod(read_header(path)[0][3:])
    except UserError:  # told when it is read
        return None


def _scan(name: str, found: list[tuple[Path, ...]]) -> Scan:
    images = tuple(path for images in found for path in images)
    stems = [stem_of(path, ENDINGS) for path in images]
    if not is_plain(name):
        shown = ascii(name)[1:-1]  # for lines and tables
        return Scan(shown, images, f"{images[0].parent}: {shown} is not plain UTF-8; rename it")
    if len(found) > 1 or len(set(stems)) < len(stems):
        names = ", ".join(distinct(path.name) for path in images)
        return Scan(name, images, f"{images[0].parent}: case {name} is there twice: {names}")
    return Scan(name, images)
