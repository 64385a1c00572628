"""What the dataset.json of a folder says: classes, channels, and how its files may end."""

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import NamedTuple

from mijax.data.formats.imagefile import READABLE
from mijax.data.formats.nifti import NIFTI
from mijax.data.text import climbs, composed, is_plain, read_json
from mijax.data.volume import UNLABELLED
from mijax.errors import UserError

_IGNORE = "ignore"  # nnU-Net's name of what nobody annotated


class Description(NamedTuple):
    """Of a folder.

    Attributes:
      kind: "msd" or "nnunet", whose dataset.json it is; nnU-Net v1 has that of the MSD.
      classes: names, background first, in Unicode's normal form C, see ``text.composed``.
      channels: their names, "CT" or the like.
      endings: that files may have.
      ignore: the label value of what nobody annotated, or None.
    """

    kind: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    endings: tuple[str, ...]
    ignore: int | None


def read_description(root: Path, *, kind: str) -> Description:
    """Reads and checks dataset.json.

    Labels are taken as the MSD writes them, {"1": "spleen"}, and as nnU-Net v2 does,
    {"spleen": 1}, in either, which folders have that were converted by half. A label "ignore" is
    no class: it is that of nnU-Net, of the highest value.

    Args:
      root: the folder that holds it.
      kind: "msd", "nnunet", or "folder" to tell by its keys.

    Raises:
      UserError: names the folder, or the file and what in it makes no sense.
    """
    content = _read(root)
    if kind == "folder":
        kind = _detect(content, root)
    channels = _section(content, {"msd": "modality", "nnunet": "channel_names"}[kind], root)
    if all(map(str.isdecimal, channels)):  # else in the order in which they are written
        channels = dict(sorted(channels.items(), key=lambda channel: int(channel[0])))
    labels = _section(content, "labels", root)
    classes, ignore = _classes(_pairs(labels, kind, root), root)
    return Description(
        kind=kind,
        classes=classes,
        channels=tuple(str(name) for name in channels.values()),
        endings=NIFTI if kind == "msd" else _endings(content, root),
        ignore=ignore,
    )


def _read(root: Path) -> dict:
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; say where the data are, by --config.data.source.dir to train "
            "or by --data_dir for a run that is trained"
        )
    path = root / "dataset.json"
    if not path.is_file():
        inside = sorted(p.parent.name for p in root.glob("*/dataset.json"))
        advice = f"there is one in {inside[0]!a}, pass that folder" if inside else (
            'write one beside imagesTr and labelsTr, such as {"modality": {"0": "CT"}, '
            '"labels": {"0": "background", "1": "organ"}}'
        )  # fmt: skip
        raise UserError(f"{path}: missing; {advice}")
    try:
        description = read_json(path)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(description, dict):
        raise UserError(f"{path}: must hold one JSON object")
    for key in ("training", "test", "dataset"):
        for name in _names(description.get(key)):
            if climbs(name):
                raise UserError(f'{path}: "{key}" names {name[:80]!a}, outside the folder')
    return description


def _names(cases) -> Iterator[str]:
    """What the list of cases in a description takes for names of files."""
    cases = cases.values() if isinstance(cases, dict) else cases
    for case in cases if isinstance(cases, list | ValuesView) else ():
        for name in case.values() if isinstance(case, dict) else (case,):
            for text in name if isinstance(name, list) else (name,):
                if isinstance(text, str):
                    yield text


def _detect(description: Mapping, root: Path) -> str:
    for key, kind in (("channel_names", "nnunet"), ("modality", "msd")):
        if key in description:
            return kind
    raise UserError(
        f'{root / "dataset.json"}: neither "modality" (MSD, nnU-Net v1) nor "channel_names" '
        "(nnU-Net v2)"
    )


def _section(description: Mapping, key: str, root: Path) -> dict:
    section = description.get(key)
    if not isinstance(section, dict) or not section:
        raise UserError(f'{root / "dataset.json"}: "{key}" must be an object that is not empty')
    for name in section:
        if not is_plain(name):
            raise UserError(
                f'{root / "dataset.json"}: "{key}" has the key {name[:80]!a}; rename it'
            )
    return section


def _pairs(labels: Mapping, kind: str, root: Path) -> list[tuple[object, object]]:
    """(value, name) of each class, whichever of the two is the key."""
    path = root / "dataset.json"
    if kind == "msd":
        by_value = not all(type(value) is int for value in labels.values())
    else:
        by_value = all(
            isinstance(name, str) and re.fullmatch(r"\d+", key) for key, name in labels.items()
        )
    if by_value:
        return list(labels.items())
    for name, value in labels.items():
        if isinstance(value, list):
            raise UserError(
                f'{path}: "{name}" is a region {reprlib.repr(value)}; only plain labels are '
                "supported"
            )
    return [(value, name) for name, value in labels.items()]


def _classes(
    pairs: Sequence[tuple[object, object]], root: Path
) -> tuple[tuple[str, ...], int | None]:
    """Class names in the order of their values, 0, 1, … k − 1; the value to ignore, or None."""
    ignored = [value for value, name in pairs if name == _IGNORE]
    classes = _consecutive([pair for pair in pairs if pair[1] != _IGNORE], root)
    if not ignored:
        return classes, None
    try:
        (ignore,) = (int(_whole(value)) for value in ignored)
    except ValueError:  # no whole number, or two of them
        ignore = -1
    if not len(classes) <= ignore < 2**31:
        raise UserError(
            f'{root / "dataset.json"}: the label "{_IGNORE}" must have the highest value, above '
            f"those of the {len(classes)} classes, not {reprlib.repr(ignored)}"
        )
    return classes, ignore


def _consecutive(pairs: Sequence[tuple[object, object]], root: Path) -> tuple[str, ...]:
    """Class names in the order of their values, which must be 0, 1, … k − 1."""
    for _, name in pairs:
        if not isinstance(name, str) or not is_plain(name) or not name:
            raise UserError(
                f'{root / "dataset.json"}: {reprlib.repr(name)} in "labels" must be the name of '
                "a class"
            )
    try:
        names = {int(_whole(value)): composed(name) for value, name in pairs}
    except ValueError:
        names = {}
    if sorted(names) != list(range(len(pairs))) or not 2 <= len(pairs) <= UNLABELLED:
        raise UserError(
            f"{root / 'dataset.json'}: label values must be 0 (background), 1, 2, … without gaps, "
            f"{UNLABELLED} classes at most, not {reprlib.repr([value for value, _ in pairs])}"
        )
    if len(set(names.values())) < len(names):
        raise UserError(f'{root / "dataset.json"}: two classes of one name in "labels"; rename one')
    return tuple(names[value] for value in range(len(names)))


def _whole(value: object) -> str:
    """A label value as text; anything but a number or a text is no whole number."""
    return str(value) if isinstance(value, str | int | float) else ""


def _endings(description: Mapping, root: Path) -> tuple[str, ...]:
    """That of nnU-Net v2, in lower case; .nii and .nii.gz are one format."""
    ending = description.get("file_ending")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise UserError(f'{root / "dataset.json"}: "file_ending" must be a text such as ".nii.gz"')
    if not ending.lower().endswith(READABLE):
        raise UserError(
            f'{root / "dataset.json"}: "file_ending" {ending} is of a format that is not read; '
            f"convert the files to one of {', '.join(READABLE)}"
        )
    return NIFTI if ending.lower() in NIFTI else (ending.lower(),)
