"""The list of cases of the page, and the files of its viewer: one script a case, and NiiVue."""

import base64
import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.files import write_atomically
from mijax.inference.scores import without_gaps
from mijax.report.figures import CLASS_COLOURS
from mijax.report.predictions import unpacked
from mijax.report.values import case_scores

ASSETS = Path(__file__).parent / "assets"
FOLDER = "viewer"  # beside the page
_VENDORED = ("niivue.js", "niivue-licence.txt")
_MARGIN = 15.0  # mm around all that is annotated or predicted
_MOST = 32e6  # bytes of the files of all cases, of cropped volumes
_PLANES = (2, 1, 0)  # that NiiVue calls those across x, y and z of RAS+


def list_cases(table, found, files):
    """What the page knows of the scored cases: a dict of what JSON has.

    Scores and estimates are of the first seed of each row, which the viewer shows. DSC are
    fractions to four digits, None where there is none.

    Args:
      table: ``statistics.Table``.
      found: ``predictions.Predictions``, or None.
      files: of ``write_viewer``.
    """
    names = sorted(table.rows[0].runs[0].entry["cases"])
    estimates = found.estimates if found else {}
    rows = []
    for row in table.rows:
        scores = case_scores(row._replace(runs=row.runs[:1]))
        known = estimates.get(row.label, {})
        rows.append(
            {
                "label": row.label,
                "seed": row.runs[0].seed,
                "dsc": [[_number(value) for value in case] for case in scores],
                "estimates": [[*map(_number, known.get(name, ()))] for name in names],
            }
        )
    count = len(table.columns) - 1
    return {
        "classes": list(table.columns[:-1]),
        "colours": [CLASS_COLOURS[i % len(CLASS_COLOURS)] for i in range(count)],
        "cases": names,
        "files": [files.get(name) for name in names],
        "rows": rows,
        "plane": _PLANES[found.excerpts[0].axis] if found else None,
        "estimated": bool(estimates),
    }


def write_viewer(folder, found, *, whole=False):
    """Writes the files that the page loads when a case is opened.

    ``case_N.js`` calls ``mijaxCase(N, volumes)`` with gzipped NIfTI files in base64: the scan (its
    first channel, 8 bit, from the 0.5th to the 99.5th percentile), the annotation, and label map
    and disagreement of each row. They are cropped around all that is annotated or predicted, and
    lie where the volume does.

    Args:
      folder: to write into; case files of an earlier report in it go.
      found: ``predictions.Predictions``, or None for no viewer.
      whole: whole volumes, whatever their size.

    Returns:
      ``{case: N}``; and a line about cases that were too many, or "".
    """
    for old in [*folder.glob("case_*.js"), *(folder / name for name in _VENDORED)]:
        old.unlink(missing_ok=True)
    names = [] if found is None else next((list(maps) for maps in found.maps if maps), [])
    if not names:
        return {}, ""
    folder.mkdir(exist_ok=True)
    for name in _VENDORED:
        write_atomically(folder / name, (ASSETS / name).read_bytes())
    files, size = {}, 0
    for number, name in enumerate(names):
        volume = without_gaps(found.volume(name))
        maps = [maps and maps[name] for maps in found.maps]
        case = _case(volume, maps, axis=found.excerpts[0].axis, whole=whole)
        text = f"mijaxCase({number}, {json.dumps(case)});\n"
        size += len(text)
        if size > _MOST and not whole:
            return files, (
                f"The viewer has {len(files)} of {len(names)} cases, those of the lowest DSC: its "
                f"files are kept below {_MOST / 1e6:.0f} MB."
            )
        write_atomically(folder / f"case_{number}.js", text)
        files[name] = number
    return files, ""


def _case(volume, maps, *, axis, whole):
    """The ``volumes`` of a case file; of a row without a network None.

    ``axis`` is that of RAS+ that slices lie across.
    """
    shape = volume.label.shape
    labels = [None if one is None else unpacked(one.labels, shape) for one in maps]
    drawn = np.any([volume.label > 0, *(one > 0 for one in labels if one is not None)], axis=0)
    box = (slice(None),) * 3 if whole else _around(drawn, volume.spacing)
    start = [side.start or 0 for side in box]
    across = nib.io_orientation(volume.affine)[:, 0].tolist().index(axis)
    affine = volume.affine @ nib.affines.from_matvec(np.eye(3), start)
    place = np.argwhere(drawn[box]).mean(0) if drawn.any() else np.divide(drawn[box].shape, 2)
    return {
        "scan": _nifti(*_grey(volume.image[..., 0][box]), affine=affine),
        "annotation": _nifti(volume.label[box], affine=affine),
        "rows": [
            one
            and [
                _nifti(found[box], affine=affine),
                _nifti(unpacked(one.disagreement, shape)[box], affine=affine),
            ]
            for one, found in zip(maps, labels, strict=True)
        ],
        "start": start,
        "across": across,
        "centre": nib.affines.apply_affine(affine, place).round(2).tolist(),
        "to_voxel": np.linalg.inv(affine).tolist(),
    }


def _around(mask, spacing):
    """The box around a mask, with a margin; all of it around none."""
    box = []
    for axis in range(3):
        found = np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis})))
        if not len(found):
            return (slice(None),) * 3
        room = int(np.ceil(_MARGIN / spacing[axis]))
        box.append(slice(max(0, int(found[0]) - room), int(found[-1]) + 1 + room))
    return tuple(box)


def _grey(image):
    """8-bit values of an image, and the slope and intercept that lead back."""
    low, high = np.percentile(image, [0.5, 99.5])
    slope = float(high - low or 1) / 255
    return ((image - low) / slope).clip(0, 255).round().astype(np.uint8), slope, float(low)


def _nifti(values, slope=1.0, intercept=0.0, *, affine):
    """A gzipped NIfTI file of uint8 in base64."""
    image = nib.Nifti1Image(values, affine)
    image.header.set_slope_inter(slope, intercept)
    image.header.set_xyzt_units("mm")
    return base64.b64encode(gzip.compress(image.to_bytes(), mtime=0)).decode()


def _number(value):
    return None if np.isnan(value) else round(float(value), 4)
