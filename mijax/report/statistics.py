"""The numbers of Table 1: means over seeds, intervals, tests between rows, the gap closed."""

from typing import NamedTuple

import numpy as np

from mijax.errors import UserError
from mijax.inference.scores import METRICS
from mijax.report.names import FULL, PARTIAL

MEAN = "mean"  # the column of the mean over classes
SIGNIFICANT = 0.05
LEAST_PATIENTS = 6  # of a test: of fewer, the assumption of a normal distribution decides
RESAMPLES = 10_000  # of the bootstrap
_TINY = 1e-12


class Cell(NamedTuple):
    """One number of the table. DSC is a fraction, distances are in mm.

    Attributes:
      mean: over seeds, of the mean over cases; None where it is undefined.
      std: sample standard deviation over seeds; None for a single one.
      undefined: number of cases and seeds without a distance, left out of the mean.
      best: whether it is the best of its column.
      p: of the one-sided paired t-test against the best; None where there is none.
    """

    mean: float | None
    std: float | None
    undefined: int
    best: bool = False
    p: float | None = None

    @property
    def significant(self):
        return self.p is not None and self.p < SIGNIFICANT


class Table(NamedTuple):
    """Table 1 of some rows.

    Attributes:
      rows: of ``runs.Row``.
      columns: the foreground classes, then "mean".
      cells: ``cells[metric][column]`` is a list with a ``Cell`` a row.
      gaps: ``gaps[column]`` is a list with the gap closed a row, a fraction, or None.
      intervals: ``intervals[column]`` is a list with the 95 % interval (low, high) of the mean DSC
        a row, by bootstrap over patients, or None of few of them.
      against: ``against[label]`` is a list with a p a row, of the one-sided paired t-test that
        the mean DSC of the row is better than that of the row of that label, or None.
      unseen: the classes that no case shows; undefined in every row, and not in the mean.
    """

    rows: list
    columns: tuple[str, ...]
    cells: dict
    gaps: dict
    intervals: dict
    against: dict
    unseen: tuple[str, ...] = ()


def make_table(rows, *, against=()):
    """The ``Table`` of rows of the same cases and classes.

    Args:
      rows: of ``runs.Row``.
      against: labels of rows that each row is held against.

    Raises:
      UserError: if there is no row of such a label.
    """
    classes = tuple(rows[0].runs[0].entry["classes"])
    columns = (*classes, MEAN)
    seen = _seen(rows)
    parts = [*([i] if i in seen else [] for i in range(len(classes))), seen]  # of each column
    values = {metric: [_values(row, metric) for row in rows] for metric in METRICS}
    cells = {
        metric: {
            column: _compare(rows, [v[..., part] for v in values[metric]], higher=metric == "dsc")
            for column, part in zip(columns, parts, strict=True)
        }
        for metric in METRICS
    }
    gaps = {column: _gaps(rows, cells["dsc"][column]) for column in columns}
    intervals = {
        column: [
            bootstrap_interval(_mean(v[..., part]).mean(0), patients_of(row))
            for row, v in zip(rows, values["dsc"], strict=True)
        ]
        for column, part in zip(columns, parts, strict=True)
    }
    means = [_by_patient(_mean(v[..., seen]).mean(0), patients_of(rows[0])) for v in values["dsc"]]
    labels = [row.label for row in rows]
    tests = {}
    for label in against:
        if label not in labels:
            raise UserError(f"--against: {label!r} is none of the rows {', '.join(labels)}")
        other = labels.index(label)
        tests[label] = [
            None if i == other else paired_p(mean, means[other], higher=True)
            for i, mean in enumerate(means)
        ]
    unseen = tuple(name for i, name in enumerate(classes) if i not in seen)
    return Table(rows, columns, cells, gaps, intervals, tests, unseen)


def patients_of(row):
    """The patient of each case of a row, cases sorted by name; the case itself where unknown."""
    entry = row.runs[0].entry
    known = entry.get("patients", {})
    return [known.get(case, case) for case in sorted(entry["cases"])]


def bootstrap_interval(values, patients):
    """95 % interval of the mean over cases, when patients are drawn anew with all their cases.

    Args:
      values: (cases,).
      patients: of each case.

    Returns:
      (low, high), or None of fewer than ``LEAST_PATIENTS``.
    """
    _, index = np.unique(patients, return_inverse=True)
    count = index.max() + 1
    if count < LEAST_PATIENTS or np.isnan(values).any():
        return None
    sums, sizes = np.bincount(index, values), np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _by_patient(values, patients):
    """Means over the cases of each patient; NaN where none is defined."""
    patients = np.array(patients)
    groups = [values[patients == name] for name in dict.fromkeys(patients.tolist())]
    return np.array([_nanmean(group, axis=0) for group in groups])


def paired_p(better, worse, *, higher):
    """p of the one-sided paired t-test that ``better`` is better than ``worse``, by patient.

    Args:
      better, worse: (patients,), NaN where undefined; such patients are left out.
      higher: whether higher is better.

    Returns:
      p, or None where fewer than ``LEAST_PATIENTS`` are left or all differences are the same.
    """
    from scipy.stats import ttest_rel

    both = ~(np.isnan(better) | np.isnan(worse))
    better, worse = better[both], worse[both]
    if len(better) < LEAST_PATIENTS or np.ptp(better - worse) < _TINY:
        return None
    return float(ttest_rel(better, worse, alternative="greater" if higher else "less").pvalue)


def case_means(row):
    """Mean DSC over classes and seeds of each case, by name."""
    names = sorted(row.runs[0].entry["cases"])
    return dict(zip(names, case_scores(row)[:, -1].tolist(), strict=True))


def case_scores(row):
    """(cases, columns) DSC, averaged over seeds, NaN of no case's class; cases sorted by name."""
    values, seen = _values(row, "dsc").mean(0), _seen([row])
    shown = np.full_like(values, np.nan)
    shown[:, seen] = values[:, seen]
    return np.concatenate([shown, _mean(values[:, seen])[:, None]], -1)


def _seen(rows):
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


def _mean(values):
    """Mean over the last axis; NaN, without a warning, where that is empty."""
    return values.mean(-1) if values.shape[-1] else np.full(values.shape[:-1], np.nan)


def _values(row, metric):
    """(seeds, cases, classes), NaN where undefined; cases sorted by name."""
    classes = list(row.runs[0].entry["classes"])
    entries = [one.entry["cases"] for one in row.runs]
    values = [[[cases[case][c][metric] for c in classes] for case in sorted(cases)]
              for cases in entries]  # fmt: skip
    return np.array(values, float)  # makes None a NaN


def _compare(rows, values, *, higher):
    """A ``Cell`` for the (seeds, cases, classes) values of each row."""
    cells = [_cell(v) for v in values]
    # Full supervision is the bound that the others are held against, not one of them.
    defined = [i for i, cell in enumerate(cells) if cell.mean is not None]
    candidates = [i for i in defined if rows[i].kind != FULL] or defined
    if not candidates or len(rows) == 1:
        return cells
    best = (max if higher else min)(candidates, key=lambda i: cells[i].mean)
    # A case of which one class is undefined has no mean: that of the others would flatter it.
    # Scans of one patient are no independent cases.
    means = [_by_patient(_nanmean(_mean(v), axis=0), patients_of(rows[0])) for v in values]
    for i, row in enumerate(rows):
        if i == best:
            cells[i] = cells[i]._replace(best=True)
        elif row.kind == FULL:
            cells[i] = cells[i]._replace(p=paired_p(means[i], means[best], higher=higher))
        else:
            cells[i] = cells[i]._replace(p=paired_p(means[best], means[i], higher=higher))
    return cells


def _cell(values):
    seeds = _mean(_nanmean(values, axis=1))
    undefined = int(np.isnan(values).any(-1).sum())
    if np.isnan(seeds).any():
        return Cell(None, None, undefined)
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else None
    return Cell(float(seeds.mean()), std, undefined)


def _nanmean(values, *, axis):
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)


def _gaps(rows, cells):
    """(method − partial) / (full − partial) of each row, against the fitting baselines."""
    gaps = []
    for row, cell in zip(rows, cells, strict=True):
        full, partial = (baseline(row, rows, base) for base in (FULL, PARTIAL))
        gap = None
        if row.kind != FULL and row.base != PARTIAL and None not in (full, partial, cell.mean):
            width = cells[full].mean - cells[partial].mean
            gap = (cell.mean - cells[partial].mean) / width if width > _TINY else None
        gaps.append(gap)
    return gaps


def baseline(row, rows, base):
    """Index of the baseline trained like the row: the only one, or the one of equal settings.

    With ``base`` PARTIAL it had the very same labels.
    """

    def shared(other):
        ours = ("method.", "teacher.", "init_from.", "data.splits.labelled", "data.splits.file")
        return {k: v for k, v in other.settings.items() if not k.startswith(ours)}

    found = [
        i
        for i, other in enumerate(rows)
        if other.base == base
        and (base == FULL or set(other.splits.labelled) == set(row.splits.labelled))
    ]
    equal = [i for i in found if shared(rows[i]) == shared(row)]
    chosen = equal or found
    return chosen[0] if len(chosen) == 1 else None
