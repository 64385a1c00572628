"""Scores as they were written, and whether those of two runs can be compared."""

import json

import numpy as np

from mijax.errors import UserError, quoted
from mijax.inference.scores import METRICS, OPTIONS, VOLUME

_PLACE = {"dir", "follow_links"}  # of config.data.source; the rest says which volumes they are


def read_scores(folder, checkpoint):
    """One checkpoint's part of the scores.json of a run, and ``{checkpoint: (step, mean DSC)}``.

    Raises:
      UserError: if it is damaged.
    """
    path = folder / "scores.json"
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
        entry = scores[checkpoint]
        if not (_measured(entry) or _segmented(entry)) or not {"step", "split"} <= entry.keys():
            raise ValueError("it is incomplete")
        both = {name: (one.get("step"), one.get("mean_dsc")) for name, one in scores.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); python -m mijax.evaluate --workdir {quoted(folder)} "
            "writes it again"
        ) from error
    return entry, both


def _measured(entry):
    measures = entry.get("measures", {})
    return bool(measures) and all(isinstance(value, float) for value in measures.values())


def _segmented(entry):
    classes = list(entry["classes"])
    return bool(entry["cases"] and "mean_dsc" in entry) and all(
        list(case) == classes and case[name].keys() >= {*METRICS, VOLUME}
        for case in entry["cases"].values()
        for name in classes
    )


def _volumes(entry):
    """``{(case, class): ml}`` of the annotation, None of a class that nobody drew there."""
    return {
        (case, name): values[VOLUME]
        for case, classes in entry.get("cases", {}).items()
        for name, values in classes.items()
    }


def check_comparable(first, other):
    """Refuses two runs that do not go into one table.

    Args:
      first, other: ``runs.Scored``.

    Raises:
      UserError: if their data, classes, cases or ways of scoring differ.
    """

    def volumes(one):
        # An option that one of them does not name is at its default there.
        sources = [x.run.config.data.source for x in (first, other)]
        shared = set.intersection(*map(set, sources)) - _PLACE
        return {key: one.run.config.data.source[key] for key in shared}

    for what, value in (
        ("data sets", volumes),
        ("classes", lambda one: list(one.entry.get("classes", ()))),
        ("cases", lambda one: sorted(one.entry.get("cases", ()))),
        ("splits", lambda one: one.entry["split"]),
    ):
        if value(first) != value(other):
            raise UserError(
                f"{first.run.folder} and {other.run.folder} are not comparable: they were scored "
                f"on different {what}"
            )
    annotated = [_volumes(one.entry) for one in (first, other)]
    shared = sorted(annotated[0].keys() & annotated[1].keys())
    values = np.array([[found[key] for key in shared] for found in annotated], float)  # NaN of None
    for place in np.flatnonzero(~np.isclose(*values, rtol=1e-6, equal_nan=True)):
        case, name = shared[place]
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: {name} of case "
            f"{case} was annotated otherwise when they were scored; python -m mijax.evaluate "
            "--workdir RUN scores again"
        )
    if _are_others(*((_scored_cases(one), one.entry.get("data")) for one in (first, other))):
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: their cases had other "
            "labels or voxel grids when they were scored; python -m mijax.evaluate --workdir RUN "
            "scores again"
        )
    tolerances = [one.entry.get("nsd_tolerance") for one in (first, other)]  # None of measures
    if tolerances[0] != tolerances[1]:
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: their NSD is of "
            "different tolerances; python -m mijax.evaluate --workdir RUN --nsd_tolerance=… scores "
            "again"
        )
    options = [[bool(one.entry.get(name)) for name in OPTIONS] for one in (first, other)]
    if options[0] != options[1]:
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: one was scored with "
            f"--{' or --'.join(OPTIONS)}, the other without; python -m mijax.evaluate "
            "--workdir RUN scores again"
        )
    data = ((one.splits.validation, noted(one.run).get("data")) for one in (first, other))
    if _are_others(*data):
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: they are of different "
            "data, whose cases have the same names"
        )


def _scored_cases(one):
    return tuple(one.entry.get("cases") or getattr(one.splits, one.entry["split"]))


def noted(run):
    """``Run.info``; empty where info.json is lost or damaged: a report does without."""
    try:
        return run.info()
    except UserError:
        return {}


def _are_others(first, other):
    """Whether volumes differ: of each (names, fingerprint), which depends on the order of names."""
    return first[0] == other[0] and None not in (first[1], other[1]) and first[1] != other[1]
