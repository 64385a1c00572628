"""ACDC: short-axis cine MRI of the heart, two annotated frames a patient, as its site gives it."""

import re
from pathlib import Path

from mijax.data.formats.imagefile import NIFTI
from mijax.data.sources.folder import entries_recipe
from mijax.data.sources.layout import Entry, find_root
from mijax.data.volume import Case, Recipe
from mijax.errors import UserError

CLASSES = ("background", "RV", "Myo", "LV")
ADVICE = (
    "register at https://www.creatis.insa-lyon.fr/Challenge/acdc/, download the database from "
    "https://humanheart-project.creatis.insa-lyon.fr/database/, unpack it, and pass "
    "--config.data.source.dir=FOLDER, the folder that holds training/patient001, …"
)
_PARENTS = (".", "training", "testing", "database/training", "database/testing")
_TRAINING = 100  # patients 1 to 100; the others are the challenge's test set


def acdc_recipe(directory: str, *, testing: bool, follow_links: bool = False) -> Recipe:
    """The recipe of the ACDC database: two scans a patient, end of diastole and of systole.

    Info.cfg names the two frames; where there is none, all frames of the folder are taken. The
    cine series (…_4d.nii.gz) is left alone. A frame without a _gt file is unlabelled.

    Args:
      directory: holds training/ and testing/, or database/ with these, or the patients.
      testing: whether patients 101 to 150 are taken too.
      follow_links: whether files may be links to files outside the folder.

    Raises:
      UserError: no such data there, with how to come by it; or what is wrong with it.
    """
    root = find_root(directory, name="ACDC", advice=ADVICE)
    found: dict[str, Path] = {}
    for folder in (f for p in _PARENTS for f in sorted((root / p).glob("patient[0-9]*"))):
        if re.fullmatch(r"patient\d{3}", folder.name) and folder.is_dir():
            if folder.name in found:
                raise UserError(f"{folder}: is there twice, also as {found[folder.name]}")
            found[folder.name] = folder
    if not any(_is_training(name) for name in found):
        raise UserError(f"{root}: no patient001, … there; {ADVICE}")
    if testing and all(_is_training(name) for name in found):
        raise UserError(f"{root}: data.source.testing=True, but no testing/patient101, … there")
    taken = [found[name] for name in sorted(found) if testing or _is_training(name)]
    entries = [_entry(folder, number) for folder in taken for number in _frames(folder)]
    return entries_recipe(
        root, entries, builder="acdc", classes=CLASSES, channels=1, follow_links=follow_links
    )


def _is_training(name: str) -> bool:
    return int(name.removeprefix("patient")) <= _TRAINING


def _entry(folder: Path, frame: int) -> Entry:
    name = f"{folder.name}_frame{frame:02d}"
    image, label = _file(folder, name), _file(folder, f"{name}_gt")
    if image is None:  # frame1 instead of frame01, or a link to nothing
        raise UserError(f"{folder}: {name}.nii.gz is not there; unpack it again")
    return Entry(Case(name, folder.name, label is not None), (image,), label)


def _file(folder: Path, stem: str) -> Path | None:
    paths = [path for ending in NIFTI if (path := folder / f"{stem}{ending}").is_file()]
    if len(paths) > 1:
        raise UserError(
            f"{folder}: {stem} is there twice, {' and '.join(p.name for p in paths)}; remove one"
        )
    return next(iter(paths), None)


def _frames(folder: Path) -> list[int]:
    """Numbers of the frames to take; each has an image."""
    matches = (re.fullmatch(r".+_frame(\d+)\.nii(\.gz)?", path.name) for path in folder.iterdir())
    present = sorted({int(match[1]) for match in matches if match})
    if not present:
        raise UserError(f"{folder}: no {folder.name}_frame01.nii.gz or the like; unpack it again")
    info = folder / "Info.cfg"
    if not info.is_file():
        return present
    frames = set()
    for phase in ("ED", "ES"):
        text = info.read_text(encoding="utf-8", errors="replace")
        match = re.search(rf"^{phase}\s*:\s*(\d{{1,9}})\s*$", text, re.MULTILINE)
        if match is None:
            raise UserError(f'{info}: no line "{phase}: NUMBER", the frame of that phase')
        frame = int(match[1])
        if _file(folder, f"{folder.name}_frame{frame:02d}") is None:
            raise UserError(
                f"{info}: {phase} is frame {frame}, but {folder.name}_frame{frame:02d}.nii.gz is "
                "not there; unpack the database again"
            )
        frames.add(frame)
    return sorted(frames)
