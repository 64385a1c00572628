"""Folders on disk: what the MSD and the nnU-Net v2 raw layout hold, from names alone."""

import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence, ValuesView
from pathlib import Path
from typing import NamedTuple

from mijax.data.imagefile import NIFTI
from mijax.data.text import climbs, composed, distinct, is_plain, read_json
from mijax.data.volume import Case
from mijax.errors import UserError


class Entry(NamedTuple):
    """The files of one case: an image file, or one a channel, and perhaps a label file."""

    case: Case
    images: tuple[Path, ...]
    label: Path | None


class Layout(NamedTuple):
    """A folder's classes, number of image channels and cases (sorted by name)."""

    kind: str
    classes: tuple[str, ...]
    channels: int
    entries: tuple[Entry, ...]


def find_root(directory: str, *, name: str, advice: str) -> Path:
    """The folder of a data set that only its user can download.

    Raises:
      UserError: none given, or not there; ends in the advice.
    """
    if not directory:
        raise UserError(f"no {name} folder given; {advice}")
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {advice}")
    return root


def read_layout(root: Path, *, kind: str, patient_pattern: str, test_images: bool) -> Layout:
    """Lists a folder without opening an image.

    Args:
      root: the folder that holds dataset.json.
      kind: "msd", "nnunet", or "folder" to tell by dataset.json.
      patient_pattern: a regular expression; what its first group (or all of it) finds in a case's
        name is the patient. Empty: every case is a patient.
      test_images: whether imagesTs gives unlabelled cases.

    Raises:
      UserError: names the folder or file that is missing or makes no sense.
    """
    description = _read_description(root)
    if kind == "folder":
        kind = _detect(description, root)
    if kind == "msd":
        classes, channels, find = _msd(description, root)
    else:
        classes, channels, find = _nnunet(description, root)
    images = find(root / "imagesTr")
    if not images:
        raise UserError(
            f"{root / 'imagesTr'}: no images; are they named as the {kind} layout asks?"
        )
    tests = find(root / "imagesTs") if test_images else {}
    for name in sorted(images.keys() & tests.keys()):
        raise UserError(f"{root}: case {name} is in imagesTr and in imagesTs; rename one")
    endings = NIFTI if kind == "msd" else (description["file_ending"],)
    labels = _stems(root / "labelsTr", endings)
    for name in sorted(labels.keys() - images.keys()):
        raise UserError(f"{labels[name]}: a label without an image in {root / 'imagesTr'}")
    patient = _patients(patient_pattern)
    entries = tuple(
        Entry(Case(name, patient(name), name in labels), files, labels.get(name))
        for name, files in sorted({**images, **tests}.items())
    )
    return Layout(kind, classes, channels, entries)


def _read_description(root: Path) -> dict:
    if not root.is_dir():
        raise UserError(
            f"{root}: no such folder; say where the data are, by --config.data.dir to train or by "
            "--data_dir for a run that is trained"
        )
    path = root / "dataset.json"
    if not path.is_file():
        raise UserError(f"{path}: missing; a data set in MSD or nnU-Net v2 layout has one")
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
        f'{root / "dataset.json"}: neither "modality" (MSD) nor "channel_names" (nnU-Net v2)'
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


def _msd(description: Mapping, root: Path):
    """Classes, channels and the finder of the Decathlon's layout, {"1": "spleen"}."""
    channels = len(_section(description, "modality", root))
    labels = _section(description, "labels", root)
    classes = _consecutive(list(labels.items()), root)

    def find(folder: Path) -> dict[str, tuple[Path, ...]]:
        return {name: (path,) for name, path in _stems(folder, NIFTI).items()}

    return classes, channels, find


def _nnunet(description: Mapping, root: Path):
    """Classes, channels and the finder of nnU-Net v2 raw, {"spleen": 1}, CASE_0000.nii.gz."""
    path = root / "dataset.json"
    channels = len(_section(description, "channel_names", root))
    labels = _section(description, "labels", root)
    if "ignore" in labels:
        raise UserError(f'{path}: an "ignore" label is not supported; remove it')
    for name, value in labels.items():
        if isinstance(value, list):
            raise UserError(
                f'{path}: "{name}" is a region {reprlib.repr(value)}; only plain labels are '
                "supported"
            )
    classes = _consecutive([(value, name) for name, value in labels.items()], root)
    ending = description.get("file_ending")
    if not isinstance(ending, str) or not re.fullmatch(r"(\.\w+)+", ending):
        raise UserError(f'{path}: "file_ending" must be a text such as ".nii.gz"')

    def find(folder: Path) -> dict[str, tuple[Path, ...]]:
        return _channel_files(_stems(folder, (ending,)), channels, folder)

    return classes, channels, find


def _consecutive(pairs: Sequence[tuple[object, object]], root: Path) -> tuple[str, ...]:
    """Class names in the order of their values, which must be 0, 1, … k − 1."""
    for _, name in pairs:
        if not isinstance(name, str) or not is_plain(name) or not name:
            raise UserError(
                f'{root / "dataset.json"}: {reprlib.repr(name)} in "labels" must be the name of '
                "a class"
            )
    try:
        names = {int(_whole(value)): name for value, name in pairs}
    except ValueError:
        names = {}
    if sorted(names) != list(range(len(pairs))) or not 2 <= len(pairs) <= 256:
        raise UserError(
            f"{root / 'dataset.json'}: label values must be 0 (background), 1, 2, … without gaps, "
            f"not {reprlib.repr([value for value, _ in pairs])}"
        )
    if len(set(names.values())) < len(names):
        raise UserError(f'{root / "dataset.json"}: two classes of one name in "labels"; rename one')
    return tuple(names[value] for value in range(len(names)))


def _whole(value: object) -> str:
    """A label value as text; anything but a number or a text is no whole number."""
    return str(value) if isinstance(value, str | int | float) else ""


def _stems(folder: Path, endings: tuple[str, ...]) -> dict[str, Path]:
    """Visible files by name without ending; {} where there is no such folder."""
    stems = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        ending = next((e for e in endings if path.name.endswith(e)), None)
        if ending is None or path.name.startswith("."):
            continue
        if not is_plain(path.name):
            raise UserError(f"{folder}: the file name {path.name!a} is not plain UTF-8; rename it")
        if not path.is_file():
            raise UserError(f"{path}: not a file, or a link to nothing; copy it again")
        stem = composed(path.name.removesuffix(ending))
        if stem in stems:
            other = distinct(stems[stem].name)
            raise UserError(f"{path}: case {stem} is there twice, also as {other}")
        stems[stem] = path
    return stems


def _channel_files(stems: Mapping[str, Path], channels: int, folder: Path):
    cases: dict[str, dict[int, Path]] = {}
    for stem, path in stems.items():
        match = re.fullmatch(r"(.+)_(\d{4})", stem)
        if match is None:
            raise UserError(f"{path}: nnU-Net images are named CASE_0000, CASE_0001, …")
        cases.setdefault(match[1], {})[int(match[2])] = path
    for name, files in cases.items():
        if sorted(files) != list(range(channels)):
            found = ", ".join(f"{channel:04d}" for channel in sorted(files))
            raise UserError(f"{folder}: case {name} has channels {found}; {channels} are needed")
    return {name: tuple(files[i] for i in range(channels)) for name, files in cases.items()}


def _patients(pattern: str):
    try:
        expression = re.compile(composed(pattern))
    except re.error as error:
        raise UserError(f"data.patient_pattern={pattern!r}: {error}") from error

    def patient(name: str) -> str:
        match = expression.search(name)
        if match is None or (pattern and not match[bool(expression.groups)]):
            raise UserError(f"data.patient_pattern={pattern!r} finds no patient in case {name}")
        return match[bool(expression.groups)] if pattern else name

    return patient
