"""Scans without a data set around them: which files of a folder are which case."""

import math
from pathlib import Path
from typing import NamedTuple

from mijax.data.formats.geometry import tell_of_doubt
from mijax.data.formats.imagefile import ENDINGS, read_header
from mijax.data.sources.folder import read_channels
from mijax.data.sources.layout import CHANNEL
from mijax.data.sources.listing import left_out, stem_of, visible
from mijax.data.text import distinct
from mijax.data.volume import Volume
from mijax.errors import UserError


class Scan(NamedTuple):
    """One case: its image file, or one a channel, or why these are not one case."""

    name: str
    images: tuple[Path, ...]
    problem: str | None = None


def find_scans(path: Path, *, channels: int) -> list[Scan]:
    """The scans of a file, or of a folder, sorted by name. At most headers are read.

    A file is a case and named for it. Files CASE_0000, CASE_0001, … that are as many as the
    channels are one case, CASE, as in nnU-Net, unless one of them has all channels itself; any
    other file has to. Hidden files, files of other formats and subfolders are passed over, see
    ``not_scans``.

    Raises:
      UserError: no such file or folder, or no scan there.
    """
    if path.is_file():
        if stem_of(path, ENDINGS) is None:
            raise UserError(f"{path}: not one of {', '.join(ENDINGS)}")
        ((name, images),) = _by_case({stem_of(path, ENDINGS): [path]}, channels)
        return [Scan(name, images)]
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder")
    files: dict[str, list[Path]] = {}
    for file in visible(path):
        if file.is_file() and (stem := stem_of(file, ENDINGS)) is not None:
            files.setdefault(stem, []).append(file)
    if not files:
        raise UserError(f"{path}: no scan there ({', '.join(ENDINGS)})")
    cases: dict[str, list[tuple[Path, ...]]] = {}
    for name, images in _by_case(files, channels):
        cases.setdefault(name, []).append(images)
    return [_scan(name, found) for name, found in sorted(cases.items())]


def not_scans(path: Path, scans: list[Scan], *, output: Path) -> str | None:
    """A line that names what lies in the folder of some scans and is none; None where all is.

    The folder ``output`` of their label maps may lie there, too.
    """
    if not path.is_dir():
        return None
    known = [image for scan in scans for image in scan.images]
    known += [other for other in visible(path) if other.resolve() == output.resolve()]
    return left_out(path, known, ENDINGS)


def read_scan(scan: Scan, *, channels: int) -> Volume:
    """Reads a scan.

    Raises:
      UserError: unreadable, of another number of channels, not finite, or not one case.
    """
    if scan.problem:
        raise UserError(scan.problem)
    image, affine = read_channels(scan.images, channels)
    tell_of_doubt(scan.images[0], image.shape)
    return Volume(scan.name, image, None, affine)


def _by_case(files: dict[str, list[Path]], channels: int):
    """Yields (case, its files); several where a channel or a case is there twice."""
    groups: dict[str, dict[int, list[Path]]] = {}
    for stem, paths in files.items():
        if match := CHANNEL.fullmatch(stem):
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
    if len(found) > 1 or len(set(stems)) < len(stems):
        names = ", ".join(distinct(path.name) for path in images)
        return Scan(name, images, f"{images[0].parent}: case {name} is there twice: {names}")
    return Scan(name, images)
