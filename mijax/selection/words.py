"""What is said of a selection: why each patient, and what may be expected of them."""

import csv
import io

import numpy as np

from mijax.errors import counted
from mijax.files import write_atomically

_NAMED = 3  # neighbours in a line


def reason(selection, patient):
    """Why a patient was chosen, in words with the numbers."""
    near, index = selection.stands_for[patient], selection.candidates.index
    text = []
    if selection.disagreement:
        value = selection.disagreement[patient]
        labelled = selection.candidates.labelled
        others = [v for p, v in selection.disagreement.items() if p not in labelled]
        rank = 1 + sum(other > value for other in others)
        text.append(
            f"the predictions for it agree to a DSC of {100 * (1 - value):.0f} % only, rank {rank} "
            f"of {len(others)} by disagreement"
        )
    if near:
        (own,), others = index([patient]), index(near)
        mean = selection.distances[own, others].mean()
        named = ", ".join(near[:_NAMED])
        text.append(
            f"stands for {counted(len(near), 'patient')} at a mean distance of {mean:.2f}; the "
            f"nearest: {named}"
        )
    else:
        text.append("like no other patient")
    return "; ".join(text)


def write_list(path, selection):
    """Writes the chosen patients as CSV, in one piece."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("rank", "patient", "cases", "reason"))
    for rank, patient in enumerate(selection.chosen, start=1):
        cases = " ".join(selection.candidates.scans[patient])
        writer.writerow((rank, patient, cases, reason(selection, patient)))
    write_atomically(path, text.getvalue())


def summary(selection):
    """The lines of the terminal: the list, and what it may be worth."""
    candidates = selection.candidates
    lines = [
        f"{rank}. {patient}: {reason(selection, patient)}"
        for rank, patient in enumerate(selection.chosen, start=1)
    ]
    how = ", drawn at random" * candidates.drawn
    for role in ("validation", "test"):
        if names := [n for n in getattr(candidates.splits, role) if n in candidates.bare]:
            lines.append(f"{role}{how}, to be annotated as well: {' '.join(names)}")
    if not candidates.splits.validation:
        lines.append("splits.json names no validation case; to train, it needs some with labels")
    number, total = len(selection.chosen), len(candidates.scans)
    more = f" and the {len(candidates.labelled)} with labels" if candidates.labelled else ""
    low, middle, high = np.percentile(selection.random, (2.5, 50, 97.5))
    draws, better = len(selection.random), (selection.random <= selection.coverage).sum()
    lines += [
        f"Coverage: the {total} training patients are {selection.coverage:.3f} from the nearest of "
        f"these {number}{more} on average; of {number} at random {middle:.3f} ({low:.3f} to "
        f"{high:.3f} in 95 of 100 draws). {better} of {draws} random draws cover them as well.",
        "That is a distance between images, not DSC"
        + (
            "."
            if selection.disagreement
            else ": it says that this is no unlucky draw, not what it will score."
        ),
    ]
    return lines
