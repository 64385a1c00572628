"""NRRD: its header and voxels judged before SimpleITK reads them.

The format: https://teem.sourceforge.net/nrrd/format.html
"""

import re
from pathlib import Path

from mijax.data.formats.fields import add_field, bad_field, check_forms, open_header, voxels_beside
from mijax.data.formats.header import tell_of_size
from mijax.data.formats.voxels import GZIP, check_voxels
from mijax.data.text import is_number
from mijax.errors import UserError, tell

NRRD = (".nrrd", ".nhdr")
_MAGIC = 11  # bytes of the first line, at most
_HEADER = 2**20  # and of the whole header; 3D Slicer puts whole tables there
_SPATIAL = ("domain", "space", "???", "none")  # kinds of axes that are no channels
_SPACES = ("left-posterior-superior", "lps", "right-anterior-superior", "ras")
_FLIPPED = ("left-anterior-superior", "las")
_ENCODINGS = {"raw": None, "gzip": GZIP, "gz": GZIP}
_MILLIMETRES = ("mm", "millimeter", "millimeters", "millimetre", "millimetres", "", "???")
_INTEGERS = "char|short|int|short int|long long|long long int"
_FORMS = {
    "dimension": r"[34]",
    "type": rf"((un)?signed )?({_INTEGERS})|u?(char|short|longlong)|uint|u?int(8|16|32|64)(_t)?|"
    r"float|double",
    "sizes": r"\d{1,9}(\s+\d{1,9})*",
    "lineskip": r"\d{1,9}",
    "byteskip": r"-1|\d{1,9}",
}


def nrrd_voxels(path: Path) -> Path:
    """The file of an image's voxels: that of its header, or the one that this names.

    Raises:
      UserError: that one is not there, outside the header's folder, or one of several.
    """
    name = _header(path)[0].get("datafile")
    return path if name is None else voxels_beside(path, "data file", name)


def check_nrrd(path: Path) -> None:
    """Refuses a header whose values are not what its fields ask for.

    Raises:
      RuntimeError: it is no header of an image.
      UserError: names the field.
    """
    fields = _header(path)[0]
    if not fields.keys() >= {"dimension", "type", "sizes", "encoding"}:
        raise RuntimeError("no NRRD")
    check_forms(path, fields, _FORMS)
    if fields["encoding"].lower() not in _ENCODINGS:
        raise UserError(f"{path}: encoding {fields['encoding'][:80]!a}; save it as raw or gzip")
    axes = int(fields["dimension"])
    for key in ("sizes", "kinds"):
        if key in fields and len(fields[key].split()) != axes:
            raise bad_field(path, key, fields[key])
    kinds = fields.get("kinds", "domain " * axes).lower().split()
    spatial = [kind in _SPATIAL for kind in kinds]
    if sum(spatial) != 3:
        raise UserError(f"{path}: {sum(spatial)} axes of space; a volume (x, y, z) is needed")
    _check_geometry(path, fields, spatial)
    if not fields.keys() & {"spacings", "spacedirections"}:
        tell_of_size(path)
    space = fields.get("space", "").lower().removesuffix("-time")
    if space in _FLIPPED:
        # Versions of ITK before 2025 turn it by half a circle.
        raise UserError(f"{path}: space {space}; save it as left-posterior-superior")
    if space not in _SPACES:
        named = f"space {space[:80]}" if space else "no space"
        tell(f"{path}: {named}; taken as left-posterior-superior, which is a guess")
    nrrd_voxels(path)


def _check_geometry(path: Path, fields: dict[str, str], spatial: list[bool]) -> None:
    """Refuses what is no finite number or vector for an axis of space, or for the origin."""
    for key in ("spacings", "thicknesses", "axismins", "axismaxs"):
        # Thicknesses and the ends of the axes may be unknown; nothing is computed from them.
        known = spatial if key == "spacings" else [False] * len(spatial)
        words = fields.get(key, "1 " * len(spatial)).split()
        if len(words) != len(spatial) or not all(
            is_number(word) or (not must and word.lower() == "nan")
            for word, must in zip(words, known, strict=True)
        ):
            raise bad_field(path, key, fields[key])
    for key, needed in (
        ("spacedirections", spatial),
        ("spaceorigin", [True]),
        ("measurementframe", [True] * 3),
    ):
        if key in fields and not _are_vectors(fields[key], needed):
            raise bad_field(path, key, fields[key])
    for key, counts in (("spaceunits", [True] * 3), ("units", spatial)):  # which ITK does not read
        units = re.findall(r'"([^"]*)"', fields.get(key, ""))
        for unit, is_length in zip(units, counts, strict=False):
            if is_length and unit.strip().lower() not in _MILLIMETRES:
                raise UserError(f"{path}: a length in {unit[:80]!a}; save it in mm")


def _are_vectors(text: str, needed: list[bool]) -> bool:
    """Whether a text is a list of finite (x, y, z), with "none" where none is needed."""
    form = r"none|\([^()]*\)"
    vectors = [vector.strip("()").split(",") for vector in re.findall(form, text)]
    return (
        not re.sub(form, "", text).strip()
        and len(vectors) == len(needed)
        and all(
            (len(vector) == 3 and all(map(is_number, vector))) if must else vector == ["none"]
            for vector, must in zip(vectors, needed, strict=True)
        )
    )


def check_nrrd_voxels(path: Path, needed: int) -> None:
    """Refuses an NRRD file whose voxels are not the ``needed`` bytes; see ``check_voxels``."""
    fields, offset = _header(path)
    voxels = nrrd_voxels(path)
    check_voxels(
        voxels,
        offset if voxels == path else 0,
        needed,
        packed=_ENCODINGS[fields["encoding"].lower()],
        more=any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip")),
    )


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a header, and its length in bytes; no fields where it is none.

    A field may be written with blanks in its name, or without; here it is without.
    """
    fields = {}
    with open_header(path) as file:
        if not re.fullmatch(rb"NRRD(00\.01|000[1-5])\r?\n", file.readline(_MAGIC)):
            return {}, 0
        while file.tell() < _HEADER and (line := file.readline(_HEADER)).strip():
            text = line.decode(errors="replace").rstrip()
            key, separator, value = text.partition(":")
            if text.startswith("#") or value.startswith("="):  # a comment, a pair of any content
                continue
            key, value = key.lower().replace(" ", ""), value.strip()
            if not separator:
                raise bad_field(path, key, value)
            add_field(path, fields, key, value, line=line)
        if file.tell() >= _HEADER:
            raise UserError(f"{path}: {_HEADER} bytes and no end of the header; copy it again")
        return fields, file.tell()
