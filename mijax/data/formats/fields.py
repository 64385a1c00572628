"""The fields of a header that is text, as of MetaImage and NRRD, and the file of its voxels."""

import re
from pathlib import Path
from typing import BinaryIO

from mijax.data.text import climbs, composed, is_plain
from mijax.errors import UserError

_LINE = 1000  # bytes of a line


def open_header(path: Path) -> BinaryIO:
    """Opens a header.

    Raises:
      UserError: it is not there, or not a file.
    """
    if not path.is_file():
        raise UserError(f"{path}: not a file, or a link to nothing; copy it again")
    return path.open("rb")


def add_field(path: Path, fields: dict[str, str], key: str, value: str, *, line: bytes) -> None:
    """Adds the field of a line of a header.

    Raises:
      UserError: the field is there already, or the line is long or not plain text.
    """
    text = line.decode(errors="replace").strip().replace("\t", " ")
    if key in fields or not is_plain(text) or len(line) > _LINE:
        raise bad_field(path, key, value)
    fields[key] = value


def check_forms(path: Path, fields: dict[str, str], forms: dict[str, str]) -> None:
    """Refuses a field whose value does not match its regular expression, where it has one."""
    for key, form in forms.items():
        if key in fields and not re.fullmatch(form, fields[key], re.ASCII):
            raise bad_field(path, key, fields[key])


def bad_field(path: Path, key: str, value: str) -> UserError:
    """An error that names a field."""
    return UserError(f"{path}: {key[:80]!a} cannot be {value[:80]!a}; repair the header")


def voxels_beside(header: Path, key: str, name: str) -> Path:
    """The file of the voxels that a header names under this key.

    Raises:
      UserError: it is not there, may lie outside the header's folder, or is one of several.
    """
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise UserError(f"{header}: its voxels are in several files; convert it to one")
    if climbs(name) or not is_plain(name) or len(name) > 255:
        raise UserError(f"{header}: {key} {name[:80]!a} is not a file beside it; repair the header")
    voxels = header.parent / name
    if not voxels.is_file():
        there = {path.name for path in voxels.parent.glob("*")} - {voxels.name}
        if composed(voxels.name) in map(composed, there):  # SimpleITK opens it by this very name
            problem = "has that name in another Unicode form; rename it"
        else:
            problem = "is missing; put it beside it"
        raise UserError(f"{header}: the file of its voxels, {name}, {problem}")
    return voxels
