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
    values, seen = values_of(row, "dsc").mean(0), seen_classes(row)
    shown = np.full_like(values, np.nan)
    shown[:, seen] = values[:, seen]
    return np.concatenate([shown, mean_of_classes(values[:, seen])[:, None]], -1)


def seen_classes(row):
    """Indices of the classes that the cases of a row, which are those of each seed, show."""
    classes = row.runs[0].entry["classes"].values()
    return [i for i, metrics in enumerate(classes) if metrics["dsc"]["mean"] is not None]


def mean_of_classes(values):
    """Mean over the last axis; NaN, without a warning, where that is empty."""
    return values.mean(-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def values_of(row, metric):
    """(seeds, cases, classes), NaN where undefined; cases sorted by name."""
    classes = list(row.runs[0].entry["classes"])
    entries = [one.entry["cases"] for one in row.runs]
    values = [[[cases[case][c][metric] for c in classes] for case in sorted(cases)]
              for cases in entries]  # fmt: skip
    return np.array(values, float)  # makes None a NaN


def patient_means(rows, values, part):
    """(patients,) of each row."""
    # A case of which one class is undefined has no mean: that of the others would flatter it.
    # Scans of one patient are no independent cases.
    patients = patients_of(rows[0])
    return [by_patient(nanmean(mean_of_classes(v[..., part]), axis=0), patients) for v in values]
