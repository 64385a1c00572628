"""Codes of the classes of a DICOM segmentation: what kind of thing each is, and which."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mijax.data.text import composed, is_plain, read_given
from mijax.errors import UserError

_LENGTHS = (16, 16, 64)  # characters of a code, of its scheme, of its meaning
_LABEL = 64  # and of the name of a segment


class Code(NamedTuple):
    """A code of a scheme, ``SCT`` for SNOMED CT, and its meaning."""

    value: str
    scheme: str
    meaning: str


class Segment(NamedTuple):
    """How a class is described: its name, its category and its type."""

    label: str
    category: Code
    type: Code


ANATOMY = Code("91723000", "SCT", "Anatomical Structure")  # of DICOM's CID 7150
KNOWN = {
    name: Code(value, "SCT", meaning)
    for names, value, meaning in (
        ("aorta", "15825003", "Aorta"),
        ("esophagus, oesophagus", "32849002", "Esophagus"),
        ("gallbladder", "28231008", "Gallbladder"),
        ("heart", "80891009", "Heart"),
        ("hippocampus", "5366008", "Hippocampus"),
        ("left atrium, la", "82471001", "Left atrium"),
        ("left ventricle, lv", "87878005", "Left ventricle"),
        ("liver", "10200004", "Liver"),
        ("myocardium, myo", "74281007", "Myocardium"),
        ("pancreas", "15776009", "Pancreas"),
        ("prostate", "41216001", "Prostate"),
        ("right atrium, ra", "73829009", "Right atrium"),
        ("right ventricle, rv", "53085002", "Right ventricle"),
        ("spleen", "78961009", "Spleen"),
        ("stomach", "69695003", "Stomach"),
    )
    for name in names.split(", ")
}


def segments_of(classes: Sequence[str], table: Path | None = None) -> tuple[Segment, ...]:
    """The descriptions of all classes but the first, the background.

    Args:
      classes: names; that of the background comes first.
      table: JSON, {CLASS: {"type": [CODE, SCHEME, MEANING], "category": the same, "label": NAME}};
        without a category it is an anatomical structure, without a label the name of the class.
        Classes that it does not name are looked up among ``KNOWN``.

    Raises:
      UserError: a table that is none, or a class without a code.
    """
    given = {} if table is None else _read(table, classes)
    missing = [name for name in classes[1:] if name not in given and _key(name) not in KNOWN]
    if missing:
        example = '{"type": ["78961009", "SCT", "Spleen"]}'
        raise UserError(
            f"no DICOM code of {', '.join(missing)}; give them by --codes=FILE, JSON such as "
            f"{{{json.dumps(missing[0])}: {example}}}"
        )
    return tuple(
        given[name] if name in given else Segment(name[:_LABEL], ANATOMY, KNOWN[_key(name)])
        for name in classes[1:]
    )


def _key(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())


def _read(path: Path, classes: Sequence[str]) -> dict[str, Segment]:
    content = read_given(path, "codes")
    if not isinstance(content, dict):
        raise UserError(f"{path}: codes are a JSON object of classes")
    known = {composed(name): name for name in classes[1:]}
    if unknown := [name for name in content if composed(name) not in known]:
        raise UserError(
            f"{path}: {unknown[0][:80]!a} is none of the classes {', '.join(classes[1:])}"
        )
    return {known[composed(name)]: _segment(path, name, value) for name, value in content.items()}


def _segment(path: Path, name: str, value) -> Segment:
    if not isinstance(value, dict) or not {"type"} <= set(value) <= {"type", "category", "label"}:
        raise UserError(f'{path}: {name}: needs "type", and may have "category" and "label"')
    label = value.get("label", name[:_LABEL])
    if not _is_text(label, _LABEL):
        raise UserError(f"{path}: {name}: a label is a text of up to {_LABEL} characters")
    codes = []
    for key in ("category", "type"):
        code = value.get(key, list(ANATOMY))
        if not (
            isinstance(code, list)
            and len(code) == len(_LENGTHS)
            and all(_is_text(part, most) for part, most in zip(code, _LENGTHS, strict=True))
        ):
            raise UserError(
                f'{path}: {name}: "{key}" is [CODE, SCHEME, MEANING], texts of up to 16, 16 and 64 '
                "characters"
            )
        codes.append(Code(*code))
    return Segment(label, *codes)


def _is_text(value, most: int) -> bool:
    """Whether a value is a text that DICOM can hold: a backslash would make two of it."""
    return (
        isinstance(value, str) and 0 < len(value) <= most and is_plain(value) and "\\" not in value
    )
