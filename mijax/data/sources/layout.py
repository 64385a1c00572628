"""Folders on disk: what the MSD and the raw layouts of nnU-Net hold, from names alone."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mijax.data.sources.description import read_description
from mijax.data.sources.listing import left_out, stem_of, stems, visible
from mijax.data.text import composed
from mijax.data.volume import Case
from mijax.errors import UserError, tell

CHANNEL = re.compile(r"(.+)_(\d{4})")  # CASE_0000: a case and the number of a channel
_UNNUMBERED = -1  # in place of that number


class Entry(NamedTuple):
    """The files of one case: an image file, or one a channel, and perhaps a label file.

    ``problem`` is why they are no case, as far as names tell.
    """

    case: Case
    images: tuple[Path, ...]
    label: Path | None
    problem: str | None = None


class Layout(NamedTuple):
    """A folder's classes, channels (their names) and cases (sorted by name).

    ``ignore`` is the label value of what nobody annotated, or None; ``numbered`` is whether names
    of images end in the number of a channel.
    """

    kind: str
    classes: tuple[str, ...]
    channels: tuple[str, ...]
    entries: tuple[Entry, ...]
    ignore: int | None
    numbered: bool


def find_root(directory: str, *, name: str, advice: str) -> Path:
    """The folder of a data set that only its user can download.

    Raises:
      UserError: none given, or not there; ends in the advice.
    """
    if not directory:
        raise UserError(f"no {name} folder given; {advice}")
    root = Path(directory).expanduser()
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; {advice} (of a run that is trained, --data_dir)")
    return root


def read_layout(root: Path, *, kind: str, patient_pattern: str, test_images: bool) -> Layout:
    """Lists a folder without opening an image.

    The images are named as dataset.json lets expect, in the MSD like their labels and in nnU-Net
    CASE_0000, one file a channel; or the other way, where only that gives every label its image.
    So nnU-Net v1 is read, which has the dataset.json of the MSD; without labels it is known by
    names that end in the numbers of the channels. That, and whatever lies in these folders and is
    not taken, is told (``Notice``).

    Args:
      root: the folder that holds dataset.json.
      kind: "msd", "nnunet", or "folder" to tell by dataset.json.
      patient_pattern: a regular expression; what its first group (or all of it) finds in a case's
        name is the patient. Empty: every case is a patient.
      test_images: whether imagesTs gives cases, too, with labels or without.

    Raises:
      UserError: names the folder or file that is missing or makes no sense.
    """
    kind, classes, channels, endings, ignore = read_description(root, kind=kind)
    folders = {name: stems(root / name, endings) for name in ("imagesTr", "labelsTr")}
    if test_images:
        folders["imagesTs"] = stems(root / "imagesTs", endings)
    for name, found in folders.items():
        if others := left_out(root / name, found.values(), endings):
            tell(others)
    labels_ts = root / "labelsTs"
    if test_images and labels_ts.is_dir() and any(stem_of(p, endings) for p in visible(labels_ts)):
        tell(
            f"{labels_ts}: not read, and imagesTs is taken as unlabelled; put its labels "
            "into labelsTr, or leave it out by --config.data.source.test_images=False"
        )
    if not folders["imagesTr"]:
        raise UserError(f"{root / 'imagesTr'}: no images; those in {', '.join(endings)} are taken")
    labels = folders.pop("labelsTr")
    usual, images = kind == "nnunet", {**folders["imagesTr"], **folders.get("imagesTs", {})}
    numbered = _are_numbered(images, labels, channels=len(channels), usual=usual)
    if numbered != usual:
        tell(f"{root / 'imagesTr'}: {_UNUSUAL[kind]}")
    cases = [
        _by_channel(found, len(channels), root / name) if numbered else _whole(found)
        for name, found in folders.items()
    ]
    for name in sorted(cases[0].keys() & cases[-1].keys() if test_images else ()):
        raise UserError(f"{root}: case {name} is in imagesTr and in imagesTs; rename one")
    if alone := sorted(labels.keys() - cases[0].keys() - cases[-1].keys()):
        others = f", one of {len(alone)}" * (len(alone) > 1)
        raise UserError(
            f"{labels[alone[0]]}: a label without an image in {root / 'imagesTr'}{others}; a label "
            "has the name of its case, without a channel's number"
        )
    patient = _patients(patient_pattern)
    entries = tuple(
        Entry(Case(name, patient(name), name in labels), files, labels.get(name), problem)
        for name, (files, problem) in sorted({**cases[0], **cases[-1]}.items())
    )
    return Layout(kind, classes, channels, entries, ignore, numbered)


_UNUSUAL = {
    "msd": "images are named CASE_0000 as in nnU-Net v1; each is taken for a channel of CASE",
    "nnunet": "images are not named CASE_0000 as in nnU-Net; each is taken for a whole case",
}


def _are_numbered(images: Mapping, labels: Mapping, *, channels: int, usual: bool) -> bool:
    """Whether image names end in the number of a channel: as usual, or as the labels show.

    Without labels, as it is shown by names that end in the numbers of all channels and no others,
    or by none that ends in a number.
    """
    matches = [CHANNEL.fullmatch(stem) for stem in images]
    if not labels:
        numbers = {match and int(match[2]) for match in matches}
        return (usual and any(matches)) or numbers == {*range(channels)}
    cases = {match[1] for match in matches if match}
    fits = {True: all(matches) and labels.keys() <= cases, False: labels.keys() <= images.keys()}
    return usual if fits[usual] or not fits[not usual] else not usual


def _whole(stems: Mapping[str, Path]) -> dict[str, tuple[tuple[Path, ...], str | None]]:
    """The files of each case, and no problem."""
    return {stem: ((path,), None) for stem, path in stems.items()}


def _by_channel(
    stems: Mapping[str, Path], channels: int, folder: Path
) -> dict[str, tuple[tuple[Path, ...], str | None]]:
    """The files of each case in the order of their channels, and what is wrong with them."""
    cases: dict[str, dict[int, Path]] = {}
    for stem, path in stems.items():
        match = CHANNEL.fullmatch(stem)
        name, channel = (match[1], int(match[2])) if match else (stem, _UNNUMBERED)
        cases.setdefault(name, {})[channel] = path

    def problem(name: str, files: Mapping[int, Path]) -> str | None:
        if _UNNUMBERED in files:
            return f"{files[_UNNUMBERED]}: nnU-Net images are named CASE_0000, CASE_0001, …"
        if files.keys() == {*range(channels)}:
            return None
        found = ", ".join(f"{channel:04d}" for channel in sorted(files))
        return f"{folder}: case {name} has channels {found}; {channels} are needed"

    return {
        name: (tuple(files[channel] for channel in sorted(files)), problem(name, files))
        for name, files in cases.items()
    }


def _patients(pattern: str):
    try:
        expression = re.compile(composed(pattern))
    except re.error as error:
        raise UserError(f"data.source.patient_pattern={pattern!r}: {error}") from error

    def patient(name: str) -> str:
        match = expression.search(name)
        if match is None or (pattern and not match[bool(expression.groups)]):
            raise UserError(
                f"data.source.patient_pattern={pattern!r} finds no patient in case {name}"
            )
        return match[bool(expression.groups)] if pattern else name

    return patient
