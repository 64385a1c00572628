"""A folder of files to a recipe: what is in it, and each volume with all its checks."""

import functools
import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mijax.data.formats.geometry import check_same_geometry, tell_of_doubt, tell_of_shear
from mijax.data.formats.imagefile import files_of, read_header, read_image
from mijax.data.sources.layout import Entry, read_layout
from mijax.data.volume import UNLABELLED, Geometry, Recipe, Volume
from mijax.errors import UserError, counted

_WHOLE = 1e-3  # how far from a whole number a label may be that was scaled and rounded


def folder_recipe(
    directory: str,
    *,
    kind: str,
    patient_pattern: str = "",
    test_images: bool = True,
    follow_links: bool = False,
) -> Recipe:
    """The recipe of a folder in MSD or nnU-Net v2 raw layout.

    Args:
      directory: the folder that holds dataset.json.
      kind: "msd", "nnunet", or "folder" to tell by dataset.json.
      patient_pattern: regular expression for the patient in a case's name; empty: case = patient.
      test_images: whether imagesTs gives cases, too, with labels or without.
      follow_links: whether files may be links to files outside the folder.

    Raises:
      UserError: what is wrong with the folder; files are opened by ``read`` only.
    """
    if not directory:
        raise UserError("no data folder given; pass --config.data.source.dir=FOLDER")
    root = Path(directory).expanduser()
    layout = read_layout(root, kind=kind, patient_pattern=patient_pattern, test_images=test_images)
    return entries_recipe(
        root,
        layout.entries,
        builder=layout.kind,
        classes=layout.classes,
        channels=len(layout.channels),
        ignore=layout.ignore,
        description=(root / "dataset.json").read_text(encoding="utf-8-sig"),
        follow_links=follow_links,
        modalities=layout.channels,
        numbered=layout.numbered,
    )


def entries_recipe(
    root: Path,
    entries: Sequence[Entry],
    *,
    builder: str,
    classes: tuple[str, ...],
    channels: int,
    follow_links: bool,
    ignore: int | None = None,
    description: str = "",
    modalities: tuple[str, ...] = (),
    numbered: bool = True,
) -> Recipe:
    """The recipe of cases whose files are known.

    Args:
      root: the folder that all files, or links to them, are in.
      entries: sorted by case.
      builder: the name under which it is prepared.
      classes: names, background first.
      channels: of every image.
      follow_links: whether files may be links out of the folder.
      ignore: the label value of what nobody annotated, or None.
      description: a text that the content depends on as well.
      modalities: names of the channels, where something says them.
      numbered: see ``Recipe``.

    Raises:
      UserError: a MetaImage header without the file of its voxels, or a link out of the folder.
    """
    files = files_of_cases(entries)
    if not follow_links and (links := links_out(root, files)):
        raise UserError(  # the author of the folder may not be the one who reads it
            f"{links[0]}: a link out of {root}; put the file itself there, or pass "
            "--config.data.source.follow_links=True if you trust it"
        )
    by_name = {entry.case.name: entry for entry in entries}

    def read(name: str) -> Volume:
        return read_volume(by_name[name], classes=classes, channels=channels, ignore=ignore)

    return Recipe(
        builder=builder,
        key=f"{root.resolve().name}-{_fingerprint(root, entries, files, description)}",
        classes=classes,
        channels=channels,
        cases=tuple(entry.case for entry in entries),
        geometry=functools.cache(lambda name: read_geometry(by_name[name], channels)),
        read=read,
        gaps=ignore is not None,
        modalities=modalities,
        numbered=numbered,
    )


def read_geometry(entry: Entry, channels: int) -> Geometry:
    """Shape and place of one case, with those checks of its files that need no voxel.

    Raises:
      UserError: the first file whose header is bad or does not fit, and why.
    """
    if entry.problem:
        raise UserError(entry.problem)
    per_file = channels // len(entry.images)
    shape, affine = read_header(entry.images[0])
    for path in (*entry.images, entry.label):
        if path is None:
            continue
        other, other_affine = read_header(path)
        count = math.prod(other[3:])
        if path != entry.label and count != per_file:
            raise UserError(f"{path}: {counted(count, 'channel')}; {per_file} needed")
        check_same_geometry(path, other[:3], other_affine, entry.images[0], shape[:3], affine)
    return Geometry(shape[:3], channels, affine)


def read_volume(
    entry: Entry, *, classes: tuple[str, ...], channels: int, ignore: int | None = None
) -> Volume:
    """Reads and checks one case; its voxels with the label to ignore become ``UNLABELLED``.

    Raises:
      UserError: the first file that is unreadable or does not fit, and why.
    """
    if entry.problem:
        raise UserError(entry.problem)
    image, affine = read_channels(entry.images, channels)
    tell_of_doubt(entry.images[0], image.shape, labelled=entry.label is not None)
    label = None
    if entry.label is not None:
        label, label_affine = read_image(entry.label)
        label = label[..., 0] if label.ndim == 4 and label.shape[3] == 1 else label
        check_same_geometry(
            entry.label, label.shape, label_affine, entry.images[0], image.shape[:3], affine
        )
        label = _check_label(label, entry.label, classes, ignore)
    return Volume(entry.case.name, image, label, affine)


def read_channels(paths: tuple[Path, ...], channels: int) -> tuple[np.ndarray, np.ndarray]:
    """One image from one file of c channels or c files of one.

    Returns:
      (x, y, z, c) float32, finite, and the (4, 4) affine to millimetres, RAS+.

    Raises:
      UserError: the first file that is unreadable or does not fit, and why.
    """
    per_file = channels // len(paths)
    parts = []
    for path in paths:
        values, affine = read_image(path)
        values = values[..., None] if values.ndim == 3 else values
        if values.shape[3] != per_file:
            raise UserError(f"{path}: {counted(values.shape[3], 'channel')}; {per_file} needed")
        with np.errstate(over="ignore"):  # what overflows is found by the next line
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            bad = np.count_nonzero(~np.isfinite(values))
            raise UserError(
                f"{path}: NaN or infinite, as float32, in {counted(bad, 'voxel')}; repair the file"
            )
        parts.append((values, affine))
        first, first_affine = parts[0]
        check_same_geometry(path, values.shape, affine, paths[0], first.shape, first_affine)
    tell_of_shear(paths[0], first_affine)
    return np.concatenate([values for values, _ in parts], axis=3), first_affine


def _check_label(
    values: np.ndarray, path: Path, classes: tuple[str, ...], ignore: int | None
) -> np.ndarray:
    """(x, y, z) uint8; whole numbers stored as floats, or scaled and rounded, are fine."""
    known = [*range(len(classes)), *([] if ignore is None else [ignore])]
    found = np.unique(values)
    whole = np.rint(found)
    with np.errstate(invalid="ignore"):  # infinity less infinity
        fits = (abs(found - whole) <= _WHOLE) & np.isin(whole, known)
    if not fits.all():
        wrong = str(found[~fits][0]).removesuffix(".0")
        raise UserError(
            f"{path}: label value {wrong} is none of the {len(classes)} classes "
            f"(0 to {len(classes) - 1})" + ("" if ignore is None else f", nor {ignore}, to ignore")
        )
    values = np.rint(values) if values.dtype.kind == "f" else values
    ignored = None if ignore is None else values == ignore
    with np.errstate(invalid="ignore"):  # one to ignore that uint8 does not hold
        values = values.astype(np.uint8)
    return values if ignored is None else np.where(ignored, np.uint8(UNLABELLED), values)


def files_of_cases(entries: Sequence[Entry]) -> list[Path]:
    """Every file that the cases consist of."""
    images = [path for entry in entries for path in (*entry.images, entry.label) if path]
    return [path for image in images for path in files_of(image)]


def links_out(root: Path, files: Sequence[Path]) -> list[Path]:
    """Those of the files that are links to places outside the folder."""
    whole = root.resolve()
    return [path for path in files if not path.resolve().is_relative_to(whole)]


def _fingerprint(
    root: Path, entries: Sequence[Entry], files: Sequence[Path], description: str
) -> str:
    """Changes when a file of the data set is added, removed or rewritten, or a case is renamed."""
    stamps = [
        (path.relative_to(root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in files
    ]
    content = json.dumps([stamps, [entry.case for entry in entries], description])
    return hashlib.sha256(content.encode()).hexdigest()[:16]
