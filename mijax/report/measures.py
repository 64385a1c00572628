"""The measures of runs that learned without labels: their table, and what each of them says."""

import collections

import numpy as np

from mijax import methods
from mijax.methods import Quantity
from mijax.report.formats import csv_text, markdown_lines
from mijax.report.table import NONE


def measures_grid(rows):
    """The table as ``(header, rows of text)``: mean over seeds, standard deviation in parentheses.

    Args:
      rows: of ``runs.Row``, of pre-training.
    """
    known = _quantities(rows)
    body = [
        [row.label, *(_text(_values(row, name)) for name in known), str(len(row.runs))]
        for row in rows
    ]
    return ["Method", *(quantity.heading for quantity in known.values()), "Seeds"], body


def meanings(rows):
    """What each measure is, as ``(title, sentence)``; none of one that its method does not tell."""
    settings = [row.config.method.to_dict() for row in rows]
    # Values of hyperparameters, of all rows that have them.
    values = collections.defaultdict(lambda: NONE)
    for key in {key for each in settings for key in each}:
        values[key] = " or ".join(dict.fromkeys(str(each[key]) for each in settings if key in each))
    return [
        (quantity.title, quantity.meaning.format_map(values))
        for quantity in _quantities(rows).values()
        if quantity.meaning
    ]


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
        for name, quantity in _quantities([row]).items():
            mean, std = _summary(_values(row, name))
            lines.append((row.label, len(row.runs), name, quantity.unit, mean, std))
    return csv_text(lines)


def _quantities(rows):
    """``{name: Quantity}`` of the measures that some rows have, in the order of their methods."""
    found = {name for row in rows for one in row.runs for name in one.entry["measures"]}
    known = {}
    for row in rows:
        for name, quantity in methods.quantities(row.config.method.name).items():
            if name in found:
                known.setdefault(name, quantity)
    others = sorted(found - known.keys())
    return known | {name: Quantity(name.replace("_", " ").capitalize()) for name in others}


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
