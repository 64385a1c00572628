"""The files of a folder: those of some endings by name, and a line about the others."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from mijax.data.formats.imagefile import files_of
from mijax.data.text import composed, distinct, is_plain
from mijax.errors import UserError

_SHOWN = 5  # names in one line


def visible(folder: Path) -> list[Path]:
    """What lies in a folder, sorted, but for hidden files; [] where there is no such folder."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else ()
    return [path for path in paths if not path.name.startswith(".")]


def stem_of(path: Path, endings: Sequence[str]) -> str | None:
    """A file's name without its ending, in upper or lower case; None where it is another.

    In Unicode's normal form C, see ``text.composed``.
    """
    ending = next((e for e in endings if path.name.lower().endswith(e)), None)
    return None if ending is None else composed(path.name[: -len(ending)])


def stems(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Visible files of some endings by name without it; {} where there is no such folder.

    Raises:
      UserError: a name that no line can show, what is no file, or two files of one name.
    """
    found = {}
    for path in visible(folder):
        stem = stem_of(path, endings)
        if stem is None:
            continue
        if not is_plain(path.name):
            raise UserError(f"{folder}: the file name {path.name!a} is not plain UTF-8; rename it")
        if not path.is_file():
            raise UserError(f"{path}: not a file, or a link to nothing; copy it again")
        if stem in found:
            other = distinct(found[stem].name)
            raise UserError(f"{path}: case {stem} is there twice, also as {other}")
        found[stem] = path
    return found


def left_out(folder: Path, taken: Iterable[Path], endings: Sequence[str]) -> str | None:
    """A line that names what lies in a folder and is not taken; None where all is.

    Hidden files are passed over, and the files in which MetaImage headers have their voxels.
    """
    known = {file for path in taken for file in _files_of(path)}
    others = [path for path in visible(folder) if path not in known]
    if not others:
        return None
    names = [f"{path.name + '/' * path.is_dir()!r}" for path in others[:_SHOWN]]
    names += [f"and {len(others) - _SHOWN} more"] * (len(others) > _SHOWN)
    return f"{folder}: not taken: {', '.join(names)}; only {', '.join(endings)} are"


def _files_of(path: Path) -> tuple[Path, ...]:
    try:
        return files_of(path)
    except UserError:  # told when it is read
        return (path,)
