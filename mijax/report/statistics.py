"""The numbers of Table 1: means over seeds, intervals, tests of one row, the gap closed."""

from typing import NamedTuple

import numpy as np

from mijax.errors import UserError
from mijax.inference.scores import METRICS
from mijax.methods import FULL, PARTIAL
from mijax.report.chance import (
    SIGNIFICANT,
    bootstrap_interval,
    by_patient,
    holm,
    nanmean,
    paired_p,
    patients_of,
)

MEAN = "mean"  # the column of the mean over classes
_TINY = 1e-12


class Cell(NamedTuple):
    """One number of the table. DSC is a fraction, distances are in mm.

    Attributes:
      mean: over seeds, of the mean over cases; None where it is undefined.
      std: sample standard deviation over seeds; None for a single one.
      undefined: number of cases and seeds without a score, left out of the mean.
      best: whether it is the best of its column.
      p: of the one-sided paired t-test that the tested row is better, corrected by ``holm`` for
        the rows of the column; None where there is none.
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
      tested: index of the row that is tested against each other one, None of one row.
      picked: whether that is so because its mean DSC is the best, of the very same cases.
      unseen: the classes that no case shows; undefined in every row, and not in the mean.
    """

    rows: list
    columns: tuple[str, ...]
    cells: dict
    gaps: dict
    intervals: dict
    tested: int | None = None
    picked: bool = False
    unseen: tuple[str, ...] = ()


def make_table(rows, *, against=None):
    """The ``Table`` of rows of the same cases and classes.

    Args:
      rows: of ``runs.Row``.
      against: label of the row that is tested: for each other one, but full supervision, which
        is no competitor, whether this is better. By default the first that a method declares to
        be ours, or else the one of the best mean DSC.

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
            column: _mark_best(rows, [_cell(v[..., part]) for v in values[metric]], metric)
            for column, part in zip(columns, parts, strict=True)
        }
        for metric in METRICS
    }
    tested, picked = _tested(rows, cells["dsc"][MEAN], against)
    for metric in METRICS if tested is not None else ():
        for column, part in zip(columns, parts, strict=True):
            p = _tests(rows, [v[..., part] for v in values[metric]], tested, metric)
            cells[metric][column] = [
                cell._replace(p=p.get(i)) for i, cell in enumerate(cells[metric][column])
            ]
    gaps = {column: _gaps(rows, cells["dsc"][column]) for column in columns}
    intervals = {
        column: [
            bootstrap_interval(_mean(v[..., part]).mean(0), patients_of(row))
            for row, v in zip(rows, values["dsc"], strict=True)
        ]
        for column, part in zip(columns, parts, strict=True)
    }
    unseen = tuple(name for i, name in enumerate(classes) if i not in seen)
    return Table(rows, columns, cells, gaps, intervals, tested, picked, unseen)


def _tested(rows, cells, label):
    """Index of the row that is tested, or None, and whether it is the best of its cells."""
    labels = [row.label for row in rows]
    if label is not None:
        if label not in labels:
            raise UserError(f"--against: {label!r} is none of the rows {', '.join(labels)}")
        return labels.index(label), False
    if len(rows) == 1:
        return None, False
    ours = [i for i, row in enumerate(rows) if row.declared.ours]
    best = [i for i, cell in enumerate(cells) if cell.best]
    return next(iter(ours + best), None), not ours


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


def _mark_best(rows, cells, metric):
    """The cells of a column, the best marked; none where there is one row."""
    defined = [i for i, cell in enumerate(cells) if cell.mean is not None]
    # Full supervision is the bound that the others are held against, not one of them.
    candidates = [i for i in defined if rows[i].kind != FULL] or defined
    if candidates and len(rows) > 1:
        best = (max if metric == "dsc" else min)(candidates, key=lambda i: cells[i].mean)
        cells[best] = cells[best]._replace(best=True)
    return cells


def _tests(rows, values, tested, metric):
    """``{row: corrected p}`` that one row is better, from (seeds, cases, classes) of each row."""
    # A case of which one class is undefined has no mean: that of the others would flatter it.
    # Scans of one patient are no independent cases.
    means = [by_patient(nanmean(_mean(v), axis=0), patients_of(rows[0])) for v in values]
    p = {
        i: paired_p(means[tested], means[i], higher=metric == "dsc")
        for i, row in enumerate(rows)
        if i != tested and row.kind != FULL
    }
    made = {i: value for i, value in p.items() if value is not None}
    return dict(zip(made, holm(made.values()), strict=True))


def _cell(values):
    seeds = _mean(nanmean(values, axis=1))
    undefined = int(np.isnan(values).any(-1).sum())
    if np.isnan(seeds).any():
        return Cell(None, None, undefined)
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else None
    return Cell(float(seeds.mean()), std, undefined)


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
