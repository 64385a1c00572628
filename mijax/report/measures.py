"""The measures of runs that learned without labels: their table, and what each of them says."""

import math

import numpy as np

from mijax.report.table import NONE, csv_text, markdown_lines

_UNITS = {"mutual_information": "nats"}
_MEANINGS = {  # in the order of the table
    "mutual_information": "between the clusters of a pixel in two views of an image; {bound}.",
    "cluster_balance": (
        "entropy of the share of the clusters over ln K: 1 where all of them are equally frequent, "
        "0 where all pixels are in one."
    ),
    "agreement": (
        "share of the pixels with the same most probable cluster in both views; with a low "
        "balance it is high for no merit."
    ),
    "boundary_correlation": (
        "mean squared correlation, within small windows, of the edges of the image and the "
        "uncertainty of the clusters, from 0 to 1."
    ),
    "retrieval": "share of the images whose nearest second view is that of the same image.",
    "alignment": "mean cosine of the embeddings of two views of an image.",
}


def measures_grid(rows):
    """The table as ``(header, rows of text)``: mean over seeds, standard deviation in parentheses.

    Args:
      rows: of ``runs.Row``, of pre-training.
    """
    names = _names(rows)
    body = [
        [row.label, *(_text(_values(row, name)) for name in names), str(len(row.runs))]
        for row in rows
    ]
    return ["Method", *map(_heading, names), "Seeds"], body


def meanings(rows):
    """What each measure is, as ``(name, sentence)``; none of one that is not known here."""
    clusters = {row.settings.get("method.clusters") for row in rows}
    bound = "between 0 and ln K for K clusters"
    if len(clusters) == 1 and None not in clusters:
        (k,) = clusters
        bound = f"between 0 and ln K = {math.log(k):.2f} for K = {k} clusters"
    found = {name: _MEANINGS[name] for name in _names(rows) if name in _MEANINGS}
    return [(_words(name), text.format(bound=bound)) for name, text in found.items()]


def measures_caption(rows, *, checkpoint):
    """What the numbers are, in sentences."""
    split = rows[0].runs[0].entry["split"]
    several = any(len(row.runs) > 1 for row in rows)
    text = (
        f"Means over slices evenly spaced over all {split} cases, with one seeded transformation a "
        f"slice, of the {checkpoint} checkpoint"
    )
    text += ", and over seeds, with the standard deviation over seeds in parentheses." * several
    text += "." * (not several)
    if checkpoint == "best":
        text += " It was chosen on validation slices"
        text += ": the very same ones, which flatters all rows." if split == "validation" else "."
    return text


def to_markdown(rows, *, checkpoint):
    lines = ["**Pre-training**", "", *markdown_lines(*measures_grid(rows)), ""]
    lines += [measures_caption(rows, checkpoint=checkpoint), ""]
    lines += [f"- {name}: {text}" for name, text in meanings(rows)]
    return "\n".join([*lines, ""])


def to_csv(rows):
    """One line a row and measure, at full precision."""
    lines = [("method", "seeds", "measure", "unit", "mean", "std")]
    for row in rows:
        for name in _names([row]):
            mean, std = _summary(_values(row, name))
            lines.append((row.label, len(row.runs), name, _UNITS.get(name, ""), mean, std))
    return csv_text(lines)


def _names(rows):
    found = {name for row in rows for one in row.runs for name in one.entry["measures"]}
    return [name for name in _MEANINGS if name in found] + sorted(found - _MEANINGS.keys())


def _values(row, name):
    """Those of the runs that have the measure."""
    measures = [one.entry["measures"] for one in row.runs]
    return [found[name] for found in measures if name in found]


def _summary(values):
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return float(np.mean(values)), std


def _text(values):
    if not values:
        return NONE
    mean, std = _summary(values)
    return f"{mean:.3f}" + ("" if std is None else f" ({std:.3f})")


def _words(name):
    return name.replace("_", " ").capitalize()


def _heading(name):
    return _words(name) + (f" ({_UNITS[name]})" if name in _UNITS else "")
