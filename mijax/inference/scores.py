"""The scores of label maps: of each case and class, their means, and all of it as a table."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mijax.data import UNLABELLED
from mijax.metrics import dice, surface_distances
from mijax.progress import counted

METRICS = ("dsc", "hd95", "assd")
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


def score(predictions, volumes, classes):
    """DSC, HD95 and ASSD of each case and class, their means and standard deviations.

    A class that no volume shows has no score to be averaged: its means are None, and it is left
    out of that over classes. Its cases keep the values of ``mijax.metrics``, DSC 0 where it was
    predicted all the same. Where a label has no class, nothing is compared; a class that was not
    drawn in a volume has no score there, nor has any in one without a voxel that was annotated.

    Args:
      predictions: iterable of label maps (x, y, z).
      volumes: ``data.Volume`` of each, with labels.
      classes: names, background first.

    Returns:
      ``{"mean_dsc": …, "classes": {class: {metric: {"mean", "std", "undefined"}}},
      "cases": {case: {class: {metric: value}}}}``; the DSC is a fraction, distances are in mm,
      undefined values are None and left out of the mean; ``std`` is the sample standard deviation
      over cases. ``mean_dsc`` is that of the shown classes, None where there is none.
    """
    from mijax.parallel import cores  # imports JAX

    # Threads do: SciPy computes distances without holding the interpreter.
    with ThreadPoolExecutor(cores()) as threads:
        predictions = counted(predictions, len(volumes), "predicting")
        coming = {
            volume.name: threads.submit(_score_case, prediction, volume, classes)
            for prediction, volume in zip(predictions, volumes, strict=True)
        }
        results = counted(coming.items(), len(volumes), "scoring")
        cases = {name: case.result() for name, case in results}
    shown = shown_classes((v.label for v in volumes), classes)
    overlaps = [[case[name]["dsc"] for name in shown] for case in cases.values()]
    return {
        "mean_dsc": _mean(np.array(overlaps, float)) if shown else None,
        "classes": {
            name: {
                metric: _summary([case[name][metric] for case in cases.values()], name in shown)
                for metric in METRICS
            }
            for name in classes[1:]
        },
        "cases": cases,
    }


def _score_case(prediction, volume, classes):
    """{class: {metric: value or None}} of a case."""
    overlaps, found = case_dsc(prediction, volume, classes), {}
    prediction, label = _where_annotated(prediction, volume.label)
    for value, (name, dsc) in enumerate(zip(classes[1:], overlaps, strict=True), start=1):
        if math.isnan(dsc):
            found[name] = dict.fromkeys(METRICS)
            continue
        distances = surface_distances(prediction == value, label == value, spacing=volume.spacing)
        hd95, assd = (None if math.isnan(d) else d for d in distances)
        found[name] = {"dsc": float(dsc), "hd95": hd95, "assd": assd}
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


def table(scores):
    """The scores of a run as text for people, one row a checkpoint and class.

    Checkpoints of one step are one and the same, and there once.
    """
    if any("measures" in entry for entry in scores.values()):
        return _measures_table(scores)
    header = ("checkpoint", "class", "DSC %", "HD95 mm", "ASSD mm")
    rows = [header]
    for label, entry in _by_step(scores):
        for class_name, metrics in entry["classes"].items():
            values = [metrics[m] for m in METRICS]
            shown = [
                _show(v, 100 if m == "dsc" else 1) for m, v in zip(METRICS, values, strict=True)
            ]
            rows.append((label, class_name, *shown))
        mean = entry["mean_dsc"]
        rows.append((label, "mean", "undefined" if mean is None else f"{100 * mean:.2f}", "", ""))
    lines = [f"{len(entry['cases'])} {entry['split']} cases, mean (standard deviation)"]
    lines[0] += "".join(f", --{name}" for name in OPTIONS if entry.get(name))
    return "\n".join([*lines, _aligned(rows), *_unseen(scores)])


def _unseen(scores):
    """A line about each class that no case shows."""
    for name, metrics in next(iter(scores.values()))["classes"].items():
        if metrics["dsc"]["mean"] is None:
            line = f"{name}: no case shows it; undefined, and left out of the mean"
            for checkpoint, entry in _by_step(scores):
                found = sum(case[name]["dsc"] == 0 for case in entry["cases"].values())
                line += f"; {checkpoint} predicts it in {found} cases" if found else ""
            yield line


def _measures_table(scores):
    rows = [("checkpoint", "measure", "value")]
    for label, entry in _by_step(scores):
        for measure, value in entry["measures"].items():
            rows.append((label, measure, f"{value:.4f}"))
    return f"slices of the {entry['split']} cases, no labels\n{_aligned(rows)}"


def _by_step(scores):
    """Name and entry of each checkpoint; "last and best" where they are of one step."""
    names = {}
    for name, entry in scores.items():
        names.setdefault(entry["step"], []).append(name)
    return [
        (f"{' and '.join(found)} (step {step})", scores[found[0]]) for step, found in names.items()
    ]


def _aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _summary(values, shown):
    defined = [v for v in values if v is not None and shown]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "undefined": len(values) - len(defined),
    }


def _show(summary, factor):
    if summary["mean"] is None:
        return "undefined"
    spread = "" if summary["std"] is None else f" ({factor * summary['std']:.2f})"
    missing = f" [{summary['undefined']} undefined]" if summary["undefined"] else ""
    return f"{factor * summary['mean']:.2f}{spread}{missing}"
