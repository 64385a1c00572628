"""The scores of label maps: of each case and class, their means, and all of it as a table."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from mijax.metrics import dice, surface_distances
from mijax.progress import counted

METRICS = ("dsc", "hd95", "assd")
OPTIONS = ("largest_component", "mirror")  # of the label maps, noted in scores.json


def mean_dsc(predictions, volumes, classes):
    """Mean 3D DSC over volumes, of each foreground class that one of them shows and of all those.

    Args:
      predictions: iterable of label maps (x, y, z).
      volumes: ``data.Volume`` of each, with labels.
      classes: names, background first.

    Returns:
      The mean over volumes and shown classes, NaN where there is none; and {class: mean}.
    """
    pairs = zip(predictions, volumes, strict=True)
    found = np.array([dice(p, v.label, classes=len(classes)) for p, v in pairs])
    shown = shown_classes((v.label for v in volumes), classes)
    if not shown:
        return math.nan, {}
    found = found[:, [classes.index(name) - 1 for name in shown]]
    return float(found.mean()), dict(zip(shown, found.mean(0).tolist(), strict=True))


def shown_classes(labels, classes):
    """Names of the foreground classes that one of some label maps, of any shape, has."""
    counts = np.zeros(len(classes), int)
    for label in labels:
        for part in label:  # NumPy would make integers of 8 bytes of the whole
            counts += np.bincount(part.ravel(), minlength=len(classes))
    return [name for name, count in zip(classes[1:], counts[1:], strict=True) if count]


def score(predictions, volumes, classes):
    """DSC, HD95 and ASSD of each case and class, their means and standard deviations.

    A class that no volume shows has no score to be averaged: its means are None, and it is left
    out of that over classes. Its cases keep the values of ``mijax.metrics``, DSC 0 where it was
    predicted all the same.

    Args:
      predictions: iterable of label maps (x, y, z).
      volumes: ``data.Volume`` of each, with labels.
      classes: names, background first.

    Returns:
      ``{"mean_dsc": …, "classes": {class: {metric: {"mean", "std", "undefined"}}},
      "cases": {case: {class: {metric: value}}}}``; the DSC is a fraction, distances are in mm,
      undefined ones are None and left out of the mean; ``std`` is the sample standard deviation
      over cases. ``mean_dsc`` is over cases and shown classes, None where there is none.
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
    overlaps = [case[name]["dsc"] for case in cases.values() for name in shown]
    return {
        "mean_dsc": float(np.mean(overlaps)) if overlaps else None,
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
    overlaps = dice(prediction, volume.label, classes=len(classes))
    found = {}
    for value, (name, dsc) in enumerate(zip(classes[1:], overlaps, strict=True), start=1):
        distances = surface_distances(
            prediction == value, volume.label == value, spacing=volume.spacing
        )
        hd95, assd = (None if math.isnan(d) else d for d in distances)
        found[name] = {"dsc": float(dsc), "hd95": hd95, "assd": assd}
    return found


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
