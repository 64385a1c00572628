"""The scores of label maps: of each case and class, and their means."""

import math
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from mijax.data import UNLABELLED
from mijax.inference.reliability import case_reliability, summary_of
from mijax.inference.tolerance import tolerances
from mijax.metrics import class_volumes, dice, surface_dice, surface_distances
from mijax.parallel import cores
from mijax.progress import logged


class Metric(NamedTuple):
    """How a metric is shown.

    Attributes:
      name: of a heading.
      unit: in which it is shown.
      better: 1 where more of it is better, −1 where less is, 0 where it has a sign.
      factor: from the value in scores.json to that in the unit.
    """

    name: str
    unit: str
    better: int
    factor: int = 1


METRICS = {
    "dsc": Metric("DSC", "%", 1, 100),
    "nsd": Metric("NSD", "%", 1, 100),
    "hd95": Metric("HD95", "mm", -1),
    "assd": Metric("ASSD", "mm", -1),
    "volume_error": Metric("Volume error", "ml", 0),
}
VOLUME = "volume"  # beside the metrics: that of the annotation, in ml
_NAMED = 10  # cases at most that are named in a line
OPTIONS = ("largest_component", "mirror")  # of the label maps, noted in scores.json


def mean_dsc(predictions, volumes, classes):
    """Mean 3D DSC over volumes, of each foreground class that one of them shows and of all those.

    Args:
      predictions: iterable of label maps (x, y, z).
      volumes: ``data.Volume`` of each, with labels.
      classes: names, background first.

    Returns:
      The mean over volumes and shown classes, NaN where there is none; and {class: mean}. A
      class that was not drawn in a volume has no score there.
    """
    pairs = zip(predictions, volumes, strict=True)
    found = np.array([case_dsc(p, v, classes) for p, v in pairs])
    shown = shown_classes((v.label for v in volumes), classes)
    if not shown:
        return math.nan, {}
    found = found[:, [classes.index(name) - 1 for name in shown]]
    return _mean(found), dict(zip(shown, np.nanmean(found, 0).tolist(), strict=True))


def shown_classes(labels, classes):
    """Names of the foreground classes that one of some label maps, of any shape, has.

    What is none of the classes, as ``data.UNLABELLED``, does not count.
    """
    counts = np.zeros(len(classes), int)
    for label in labels:
        for part in label:  # NumPy would make integers of 8 bytes of the whole
            counts += np.bincount(part.ravel(), minlength=len(classes))[: len(classes)]
    return [name for name, count in zip(classes[1:], counts[1:], strict=True) if count]


def score(predictions, volumes, classes, *, nsd_tolerance=None):
    """All metrics of each case and class, their means and standard deviations.

    A class that no volume shows has no score to be averaged: its means are None, and it is left
    out of that over classes. Its cases keep the values of ``mijax.metrics``, DSC 0 where it was
    predicted all the same. Where a label has no class, nothing is compared; a class that was not
    drawn in a volume has no score there, nor has any in one without a voxel that was annotated.
    Where one has no class, what remains of a structure has surfaces where it was cut: distances
    and NSD of that volume are None.

    Args:
      predictions: iterable of label maps (x, y, z) with the probability of the label of each
        voxel, of the same shape, or None; see ``volumes.segment``.
      volumes: ``data.Volume`` of each, with labels.
      classes: names, background first.
      nsd_tolerance: in mm, see ``tolerance.tolerances``.

    Returns:
      ``{"mean_dsc": …, "nsd_tolerance": {class: mm}, "classes": {class: {metric: {"mean", "std",
      "undefined"}}}, "cases": {case: {class: {metric: value}}}, "calibration": …}``. DSC and NSD
      are fractions, distances are in mm, the volume error is that of the prediction less that of
      the annotation, ``volume``, in ml. Undefined values are None and left out of the mean; ``std``
      is the sample standard deviation over cases. ``mean_dsc`` is that of the shown classes, None
      where there is none. ``calibration`` is that of ``reliability.summary_of``.
    """
    nsd_tolerance = tolerances(nsd_tolerance, classes)
    # Threads do: SciPy computes distances without holding the interpreter.
    with ThreadPoolExecutor(cores()) as threads:
        predictions = logged(predictions, len(volumes), "predicting")
        coming, reliability = {}, {}
        for (prediction, confidence), volume in zip(predictions, volumes, strict=True):
            if confidence is not None:  # now, so that it need not be kept
                reliability[volume.name] = case_reliability(prediction, confidence, volume)
            coming[volume.name] = threads.submit(
                _score_case, prediction, volume, classes, nsd_tolerance
            )
        results = logged(coming.items(), len(volumes), "scoring")
        cases = {name: case.result() for name, case in results}
    shown = shown_classes((v.label for v in volumes), classes)
    overlaps = [[case[name]["dsc"] for name in shown] for case in cases.values()]
    return {
        "mean_dsc": _mean(np.array(overlaps, float)) if shown else None,
        "nsd_tolerance": nsd_tolerance,
        "classes": {
            name: {
                metric: _summary([case[name][metric] for case in cases.values()], name in shown)
                for metric in METRICS
            }
            for name in classes[1:]
        },
        "cases": cases,
        "calibration": summary_of(reliability),
    }


def _score_case(prediction, volume, classes, nsd_tolerance):
    """{class: {metric: value or None}} of a case."""
    overlaps, found = case_dsc(prediction, volume, classes), {}
    has_gaps = (volume.label == UNLABELLED).any()
    prediction, label = _where_annotated(prediction, volume.label)
    predicted, true = (
        class_volumes(labels, affine=volume.affine, classes=len(classes)).tolist()
        for labels in (prediction, label)
    )
    for value, (name, dsc) in enumerate(zip(classes[1:], overlaps, strict=True), start=1):
        if math.isnan(dsc):
            found[name] = dict.fromkeys([*METRICS, VOLUME])
            continue
        masks, nsd, hd95, assd = (prediction == value, label == value), None, None, None
        if not has_gaps:
            distances = surface_distances(*masks, spacing=volume.spacing)
            hd95, assd = (None if math.isnan(d) else d for d in distances)
            nsd = surface_dice(*masks, spacing=volume.spacing, tolerance=nsd_tolerance[name])
        error = predicted[value - 1] - true[value - 1]
        values = (float(dsc), nsd, hd95, assd, error, true[value - 1])
        found[name] = dict(zip([*METRICS, VOLUME], values, strict=True))
    return found


def case_dsc(prediction, volume, classes):
    """(k − 1,) DSC of each foreground class; NaN of one that nobody drew in the volume."""
    found = dice(*_where_annotated(prediction, volume.label), classes=len(classes))
    if (volume.label == UNLABELLED).all():
        return np.full_like(found, np.nan)
    found[[value - 1 for value in volume.undrawn]] = np.nan
    return found


def is_whole(volume):
    """Whether a label has a class in each voxel, of which all were drawn."""
    return not volume.undrawn and not (volume.label == UNLABELLED).any()


def _mean(overlaps):
    """Mean over classes of their means over the cases that have a score, of (cases, classes)."""
    mean = overlaps.mean()  # the same, where all cases have all of them
    return float(np.nanmean(overlaps, 0).mean() if np.isnan(mean) else mean)


def _where_annotated(prediction, label):
    """Both as they are where the label has a class, and background where it has none."""
    known = label != UNLABELLED
    return (prediction, label) if known.all() else (prediction * known, label * known)


def without_gaps(volume):
    """The volume with background where nobody annotated: to be looked at, not to be scored."""
    return volume._replace(label=_where_annotated(volume.label, volume.label)[1])


def partly_annotated(volumes, classes):
    """A line about the volumes that were annotated in part; "" if there are none."""
    found = []
    for volume in volumes:
        share = np.count_nonzero(volume.label == UNLABELLED) / volume.label.size
        parts = [f"{share:.1%} of its voxels"] if share else []
        parts += [f"{classes[value]}" for value in volume.undrawn]
        if parts:
            found.append(f"{volume.name} ({', '.join(parts)})")
    if not found:
        return ""
    shown = (
        found if len(found) <= _NAMED else [*found[: _NAMED - 1], f"{len(found) - _NAMED + 1} more"]
    )
    return (
        f"{len(found)} of {len(volumes)} are scored by what was annotated alone, which leaves out "
        + ", ".join(shown)
    )


def _summary(values, shown):
    defined = [v for v in values if v is not None and shown]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "undefined": len(values) - len(defined),
    }
