"""PROMISE12: transversal T2 MRI of the prostate, as its site gives it."""

import re
from pathlib import Path

from mijax.data.sources.folder import entries_recipe
from mijax.data.sources.layout import Entry, find_root
from mijax.data.text import composed, is_plain
from mijax.data.volume import Case, Recipe
from mijax.errors import UserError

CLASSES = ("background", "prostate")
ADVICE = (
    "register at https://promise12.grand-challenge.org/, download the training data from "
    "https://zenodo.org/records/8026660, unpack it, and pass --config.data.source.dir=FOLDER, the "
    "folder that holds Case00.mhd, Case00.raw, Case00_segmentation.mhd, … or the unpacked parts "
    "with them"
)
_DEPTHS = ("", "*/", "*/*/")  # where the parts of the data may have been unpacked to
_TEST = re.compile(r"(test|live)", re.IGNORECASE)  # TestData, test_data, livechallenge_test_data


def promise12_recipe(directory: str, *, testing: bool, follow_links: bool = False) -> Recipe:
    """The recipe of PROMISE12, one scan a patient; without a segmentation it is unlabelled.

    Cases of the test set have the names of training cases but are of other patients: in a
    folder of their own, TestData or the like, they are called TestData_Case00.

    Args:
      directory: holds the cases, or folders with them.
      testing: whether cases in folders of the test set are taken too.
      follow_links: whether files may be links to files outside the folder.

    Raises:
      UserError: no such data there, with how to come by it; or what is wrong with it.
    """
    root = find_root(directory, name="PROMISE12", advice=ADVICE)
    images: dict[str, Path] = {}
    labels: dict[str, Path] = {}
    tests = False
    for path in (p for depth in _DEPTHS for p in sorted(root.glob(f"{depth}Case*.mhd"))):
        match = re.fullmatch(r"(Case\d+)(_segmentation)?\.mhd", path.name)
        if match is None:
            continue
        part = next((p for p in path.relative_to(root).parts[:-1] if _TEST.match(p)), None)
        if not is_plain(part or ""):
            raise UserError(f"{root}: the folder name {part!a} is not plain UTF-8; rename it")
        tests |= part is not None
        if part is not None and not testing:
            continue
        name = composed(f"{part}_{match[1]}") if part else match[1]
        files = labels if match[2] else images
        if name in files:
            raise UserError(f"{path}: case {name} is there twice, also as {files[name]}")
        files[name] = path
    if testing and not tests:
        raise UserError(
            f"{root}: data.source.testing=True, but no folder TestData with cases there"
        )
    for name in sorted(labels.keys() - images.keys()):
        raise UserError(f"{labels[name]}: a segmentation without {name}.mhd; unpack it again")
    if not images:
        raise UserError(f"{root}: no Case00.mhd, … there; {ADVICE}")
    entries = [
        Entry(Case(name, name, name in labels), (path,), labels.get(name))
        for name, path in sorted(images.items())
    ]
    return entries_recipe(
        root, entries, builder="promise12", classes=CLASSES, channels=1, follow_links=follow_links
    )
