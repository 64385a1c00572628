"""The scores of a run as text for people."""

from mijax.errors import counted
from mijax.inference.reliability import REGIONS
from mijax.inference.scores import METRICS, OPTIONS
from mijax.inference.tolerance import in_words


def table(scores):
    """The scores of a run as text for people, one row a checkpoint and class.

    Checkpoints of one step are one and the same, and there once.
    """
    if any("measures" in entry for entry in scores.values()):
        return _measures_table(scores)
    rows = [("checkpoint", "class", *(f"{m.name} {m.unit}" for m in METRICS.values()))]
    for label, entry in _by_step(scores):
        for class_name, metrics in entry["classes"].items():
            shown = (_show(metrics[name], metric.factor) for name, metric in METRICS.items())
            rows.append((label, class_name, *shown))
        mean = entry["mean_dsc"]
        mean = "undefined" if mean is None else f"{100 * mean:.2f}"
        rows.append((label, "mean", mean, *[""] * (len(METRICS) - 1)))
    line = f"{counted(len(entry['cases']), entry['split'] + ' case')}, mean (standard deviation)"
    line += "".join(f", --{name}" for name in OPTIONS if entry.get(name))
    line += f", NSD at {in_words(entry['nsd_tolerance'])}"
    return "\n".join([line, _aligned(rows), *_unseen(scores), *_calibration(scores)])


def _calibration(scores):
    """A line about each checkpoint whose probabilities were looked at."""
    for checkpoint, entry in _by_step(scores):
        if found := entry.get("calibration"):
            parts = [
                f"{100 * found[region]['ece']:.2f} % of {text}"
                for region, text in REGIONS.items()
                if found[region]["ece"] is not None
            ]
            if parts:
                yield f"expected calibration error, {checkpoint}: {', '.join(parts)}"


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


def _show(summary, factor):
    if summary["mean"] is None:
        return "undefined"
    spread = "" if summary["std"] is None else f" ({factor * summary['std']:.2f})"
    missing = f" [{summary['undefined']} undefined]" if summary["undefined"] else ""
    return f"{factor * summary['mean']:.2f}{spread}{missing}"
