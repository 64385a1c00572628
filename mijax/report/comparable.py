"""Scores as they were written, and whether those of two runs can be compared."""

import json

import numpy as np

from mijax.errors import UserError
from mijax.inference.scores import OPTIONS, VOLUME

_PLACE = {"dir", "follow_links"}  # of config.data.source; the rest says which volumes they are
_ALWAYS = {"dsc", "hd95", "assd"}  # metrics of a case; others came later


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
            f"{path} is damaged ({error}); python -m mijax.evaluate --workdir {folder} writes it "
            "again"
        ) from error
    return entry, both


def _measured(entry):
    measures = entry.get("measures", {})
    return bool(measures) and all(isinstance(value, float) for value in measures.values())


def _segmented(entry):
    classes = list(entry["classes"])
    return bool(entry["cases"] and "mean_dsc" in entry) and all(
        list(case) == classes and case[name].keys() >= _ALWAYS
        for case in entry["cases"].values()
        for name in classes
    )


def _volumes(entry):
    """``{(case, class): ml}`` of the annotation, None of a class that nobody drew there."""
    return {
        (case, name): values[VOLUME]
        for case, classes in entry.get("cases", {}).items()
        for name, values in classes.items()
        if VOLUME in values
    }


def check_comparable(first, other):
    """Refuses two runs that do not go into one table.

    Args:
      first, other: ``runs.Scored``.

    Raises:
      UserError: if their data, classes, cases or ways of scoring differ.
    """

    def volumes(one):
        # Of a key that only one of them has, versions of mijax differ, not the volumes.
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
    for case, name in sorted(annotated[0].keys() & annotated[1].keys()):
        one, another = (np.float64(found[case, name]) for found in annotated)  # NaN of None
        if not np.isclose(one, another, rtol=1e-6, equal_nan=True):
            raise UserError(
                f"{first.run.folder} and {other.run.folder} are not comparable: {name} of case "
                f"{case} was annotated otherwise when they were scored; python -m mijax.evaluate "
                "scores again"
            )
    tolerances = [one.entry.get("nsd_tolerance") for one in (first, other)]
    if None not in tolerances and tolerances[0] != tolerances[1]:
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: their NSD is of "
            "different tolerances; python -m mijax.evaluate --nsd_tolerance scores again"
        )
    options = [[bool(one.entry.get(name)) for name in OPTIONS] for one in (first, other)]
    if options[0] != options[1]:
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: one was scored with "
            f"--{' or --'.join(OPTIONS)}, the other without; python -m mijax.evaluate scores again"
        )
    data, other_data = (one.run.info().get("data") for one in (first, other))
    validation, other_validation = (sorted(one.splits.validation) for one in (first, other))
    if data and other_data and data != other_data and validation == other_validation:
        raise UserError(
            f"{first.run.folder} and {other.run.folder} are not comparable: they are of different "
            "data, whose cases have the same names"
        )
