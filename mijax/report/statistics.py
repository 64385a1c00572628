"""The numbers of Table 1: means over seeds, intervals, tests of one row, the gap closed."""

from typing import NamedTuple

import numpy as np

from mijax.errors import UserError
from mijax.inference.scores import METRICS
from mijax.report.calibration import errors_of
from mijax.report.chance import (
    SIGNIFICANT,
    by_patient,
    false_claim,
    holm,
    interval,
    nanmean,
    paired_p,
    patients_of,
    resampled_means,
    wilcoxon_p,
)
from mijax.report.gaps import competitors, gaps_closed
from mijax.report.values import MEAN, mean_of_classes, patient_means, seen_classes, values_of


class Cell(NamedTuple):
    """One number of the table, in the units of scores.json.

    Attributes:
      mean: over seeds, of the mean over cases; None where it is undefined.
      std: sample standard deviation over seeds; None for a single one.
      undefined: number of cases and seeds without a score, left out of the mean.
      best: whether it is the best of its column.
      p: of the one-sided paired t-test that the tested row is better, corrected by ``holm`` for
        the rows of the column; None where there is none.
      interval: 95 % interval (low, high) of the mean, by bootstrap over patients, and over patients
        and seeds of several seeds; None of few patients.
    """

    mean: float | None
    std: float | None
    undefined: int
    best: bool = False
    p: float | None = None
    interval: tuple[float, float] | None = None

    @property
    def significant(self):
        return self.p is not None and self.p < SIGNIFICANT


class Comparison(NamedTuple):
    """The tested row against another one, by the mean DSC over classes.

    Attributes:
      patients: with a mean DSC in both.
      difference: mean over patients, of the tested row less the other one.
      interval: 95 % interval (low, high) of it by bootstrap as of ``Cell``, or None.
      t, wilcoxon: p of the one-sided paired tests, corrected by ``holm`` for the rows; or None.
      false_claim: see ``chance.false_claim``; or None.
    """

    patients: int
    difference: float
    interval: tuple[float, float] | None
    t: float | None
    wilcoxon: float | None
    false_claim: float | None


class Table(NamedTuple):
    """Table 1 of some rows.

    Attributes:
      rows: of ``runs.Row``.
      columns: the foreground classes, then "mean".
      cells: ``cells[metric][column]`` is a list with a ``Cell`` a row; there is no mean of errors
        that have a sign.
      gaps: ``gaps[column]`` is a list with the gap closed a row, a fraction, or None.
      samples: of each row its mean DSC in each bootstrap sample, see ``chance.resampled_means``, or
        None of few patients.
      tested: index of the row that is tested against each other one, None of one row.
      picked: whether that is so because its mean DSC is the best, of the very same cases.
      unseen: the classes that no case shows; undefined in every row, and not in the mean.
      comparisons: ``{row: Comparison}`` of the tested row with each other one that it is tested
        against.
      errors: of each row its ``calibration.Errors`` by region; empty of one without.
    """

    rows: list
    columns: tuple[str, ...]
    cells: dict
    gaps: dict
    samples: list
    tested: int | None
    picked: bool
    unseen: tuple[str, ...]
    comparisons: dict
    errors: list


def make_table(rows, *, against=None):
    """The ``Table`` of rows of the same cases and classes.

    Args:
      rows: of ``runs.Row``.
      against: label of the row that is tested: for each other of ``gaps.competitors``, whether
        this is better. By default the first that a method declares to be ours, or else the one of
        the best mean DSC.

    Raises:
      UserError: if there is no row of such a label.
    """
    classes = tuple(rows[0].runs[0].entry["classes"])
    seen = seen_classes(rows[0])
    # Which classes are in each column.
    parts = {name: [i] if i in seen else [] for i, name in enumerate(classes)} | {MEAN: seen}
    values, cells = {}, {}
    for metric, about in METRICS.items():
        values[metric] = found = [values_of(row, metric) for row in rows]
        columns = parts if about.better else classes
        cells[metric] = {column: _column(rows, found, parts[column], metric) for column in columns}
    tested, picked = _tested(rows, cells["dsc"][MEAN], against)
    for metric in values if tested is not None else ():
        for column in cells[metric] if METRICS[metric].better else ():
            p = _tests(rows, values[metric], parts[column], tested, metric)
            cells[metric][column] = [
                cell._replace(p=p.get(i)) for i, cell in enumerate(cells[metric][column])
            ]
    gaps = {column: gaps_closed(rows, cells["dsc"][column]) for column in parts}
    samples = [
        _samples(row, v, seen, i)
        for i, (row, v) in enumerate(zip(rows, values["dsc"], strict=True))
    ]
    unseen = tuple(name for i, name in enumerate(classes) if i not in seen)
    compared = {} if tested is None else _comparisons(rows, cells, tested, values["dsc"], seen)
    errors = [errors_of(row, i) for i, row in enumerate(rows)]
    return Table(rows, tuple(parts), cells, gaps, samples, tested, picked, unseen, compared, errors)


def _column(rows, values, part, metric):
    """The cells of a column, from (seeds, cases, classes) of each row."""
    cells = [
        _cell(v[..., part], interval(_samples(row, v, part, i)))
        for i, (row, v) in enumerate(zip(rows, values, strict=True))
    ]
    return _mark_best(rows, cells, metric)


def _samples(row, values, part, place):
    """Mean over classes of their ``resampled_means``, each over the cases that have a score of it.

    That is what ``_cell`` has as the mean; None where one of them is None.
    """
    patients = patients_of(row)
    of_classes = [resampled_means(values[..., i], patients, row=place) for i in part]
    known = of_classes and all(samples is not None for samples in of_classes)
    return np.mean(of_classes, axis=0) if known else None


def _patient_samples(row, values, part, place):
    """``resampled_means`` over patients with a score of all classes, as the paired tests take."""
    patients = patients_of(row)
    by_seed = by_patient(mean_of_classes(values[..., part]).T, patients).T
    return resampled_means(by_seed, list(dict.fromkeys(patients)), row=place)


def _comparisons(rows, cells, tested, values, seen):
    others = [i for i in competitors(rows) if i != tested]
    means = patient_means(rows, values, seen)
    pairs = {i: (means[tested], means[i]) for i in others}
    wilcoxon = _corrected({i: wilcoxon_p(*pair, higher=True) for i, pair in pairs.items()})
    found = {}
    for i, pair in pairs.items():
        differences = np.subtract(*pair)
        known = differences[~np.isnan(differences)]
        ours, other = (_patient_samples(rows[place], values[place], seen, place)
                       for place in (tested, i))  # fmt: skip
        found[i] = Comparison(
            len(known),
            float(known.mean()) if len(known) else np.nan,
            None if ours is None or other is None else interval(ours - other),
            cells["dsc"][MEAN][i].p,
            wilcoxon.get(i),
            false_claim(*pair, higher=True),
        )
    return found


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


def _mark_best(rows, cells, metric):
    """The cells of a column, the best of the competitors marked; none where there is one alone."""
    candidates, better = competitors(rows), METRICS[metric].better
    defined = [i for i in candidates if cells[i].mean is not None]
    if defined and len(candidates) > 1 and better:
        best = max(defined, key=lambda i: better * cells[i].mean)
        cells[best] = cells[best]._replace(best=True)
    return cells


def _tests(rows, values, part, tested, metric):
    """``{row: corrected p}`` that one row is better, from (seeds, cases, classes) of each row."""
    means = patient_means(rows, values, part)
    higher = METRICS[metric].better > 0
    return _corrected(
        {
            i: paired_p(means[tested], means[i], higher=higher)
            for i in competitors(rows)
            if i != tested
        }
    )


def _corrected(p):
    made = {i: value for i, value in p.items() if value is not None}
    return dict(zip(made, holm(made.values()), strict=True))


def _cell(values, interval):
    seeds = mean_of_classes(nanmean(values, axis=1))
    undefined = int(np.isnan(values).any(-1).sum())
    if np.isnan(seeds).any():
        return Cell(None, None, undefined)
    std = float(seeds.std(ddof=1)) if len(seeds) > 1 else None
    return Cell(float(seeds.mean()), std, undefined, interval=interval)
