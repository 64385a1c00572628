"""What a prediction writes for its scans: the paths, and which of them are there already."""

import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from mijax.data.formats.dicom.segmentation import check_segmentation
from mijax.data.formats.imagewriter import check_written, label_ending
from mijax.data.scans import Scan, check_apart
from mijax.errors import UserError

_SEG = "_seg.dcm"


def outputs(scan: Scan, folder: Path) -> tuple[Path, Path, Path, Path]:
    """Paths of the label map, probabilities, disagreement and DICOM segmentation of a scan."""
    more = ("_probabilities.nii.gz", "_disagreement.nii.gz", _SEG)
    endings = (label_ending(scan.reference), *more)
    return tuple(folder / f"{scan.name}{ending}" for ending in endings)


def missing_outputs(
    source: Path,
    scans: Sequence[Scan],
    folder: Path,
    *,
    classes: int,
    probabilities: bool,
    overwrite: bool,
    disagreement: bool = False,
    dicom_seg: bool = False,
) -> dict[str, list[Path]]:
    """The paths that are to be written for each scan, by its name.

    Args:
      source: what the scans were found in.
      scans: from ``find_scans``.
      folder: of the outputs, may be missing.
      classes: number of those of the label maps.
      probabilities: whether they are wanted.
      overwrite: take none of what is there for done.
      disagreement: whether its map is wanted.
      dicom_seg: whether a DICOM segmentation is wanted.

    Raises:
      UserError: if what is there must not be taken for the output of its scan, or replaced.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; --output is a folder")
    check_apart(source, scans, folder)
    asked = (True, probabilities, disagreement, dicom_seg)
    paths = [[*itertools.compress(outputs(scan, folder), asked)] for scan in scans]
    wanted = {scan.name: of_scan for scan, of_scan in zip(scans, paths, strict=True)}
    for path, times in Counter(itertools.chain(*paths)).items():
        if times > 1:
            raise UserError(f"{path} would be written for two cases; rename one")
    found = set() if overwrite else set(filter(Path.exists, itertools.chain(*wanted.values())))
    for scan in scans:
        for path in found.intersection(wanted[scan.name]):
            try:
                if scan.stack and path.name.endswith(_SEG):
                    check_segmentation(path, scan.stack)
                else:
                    of_labels = classes if path == wanted[scan.name][0] else None
                    check_written(path, reference=scan.reference, classes=of_labels)
            except UserError as error:
                raise UserError(
                    f"{path} exists already; --overwrite replaces it. It is no label map of "
                    f"{scan.reference.name}, or not whole: {error}"
                ) from error
    # What is beside a label map that is to be written may be of another run.
    return {
        name: [path for path in paths if path not in found] if paths[0] in found else paths
        for name, paths in wanted.items()
    }
