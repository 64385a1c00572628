"""The scores of rows as arrays, and means of them."""

import numpy as np

from mijax.report.chance import by_patient, nanmean, patients_of

MEAN = "mean"  # the column of the mean over classes


def case_means(row):
    """Mean DSC over classes and seeds of each case, by name."""
    names = sorted(row.runs[0].entry["cases"])
    return dict(zip(names, case_scores(row)[:, -1].tolist(), strict=True))


def case_scores(row):
    """(cases, columns) DSC, averaged over seeds, NaN of no case's class; cases sorted by name."""
    values, seen = values_of(row, "dsc").mean(0), seen_classes([row])
    shown = np.full_like(values, np.nan)
    shown[:, seen] = values[:, seen]
    return np.concatenate([shown, mean_of_classes(values[:, seen])[:, None]], -1)


def seen_classes(rows):
    """Indices of the classes that the cases of some rows show.

    Rows share their cases: where one says that a class is in none of them, it is undefined in
    all, those included that were scored before mijax looked.
    """
    entries = [one.entry["classes"] for row in rows for one in row.runs]
    unseen = {
        name
        for classes in entries
        for name, metrics in classes.items()
        if metrics.get("dsc", {}).get("mean", 0) is None
    }
    return [i for i, name in enumerate(entries[0]) if name not in unseen]


def mean_of_classes(values):
    """Mean over the last axis; NaN, without a warning, where that is empty."""
    return values.mean(-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def values_of(row, metric):
    """(seeds, cases, classes), NaN where undefined; cases sorted by name.

    None of a row that was scored, in one of its seeds, before mijax had the metric.
    """
    classes = list(row.runs[0].entry["classes"])
    entries = [one.entry["cases"] for one in row.runs]
    if not all(metric in case[c] for cases in entries for case in cases.values() for c in classes):
        return None
    values = [[[cases[case][c][metric] for c in classes] for case in sorted(cases)]
              for cases in entries]  # fmt: skip
    return np.array(values, float)  # makes None a NaN


def patient_means(rows, values, part):
    """(patients,) of each row; all NaN of one without values."""
    # A case of which one class is undefined has no mean: that of the others would flatter it.
    # Scans of one patient are no independent cases.
    patients = patients_of(rows[0])
    nothing = np.full((1, len(patients), len(part)), np.nan)
    return [
        by_patient(
            nanmean(mean_of_classes(nothing if v is None else v[..., part]), axis=0), patients
        )
        for v in values
    ]
