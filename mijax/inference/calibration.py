"""From a signal to an estimate of the DSC with an interval, learned from a few scored cases.

    logit DSC = a + b · z + c_class,    z: the standardised logit of the signal

by ridge regression: pooled over classes, with a slope that is shrunk a little, and an offset of
each class that counts from about ``OFFSET`` cases on. Residuals are those of patients that are left
out, and their mean square s² is taken together with a prior: ``PRIOR_PATIENTS`` more of a spread of
``PRIOR_SPREAD``, without which a few easy cases would promise much. The interval is that of
Student's t for one more case. It grows wide by itself where patients are few, and for a signal
unlike theirs.
"""

from typing import NamedTuple

import numpy as np

LEAST = 3  # patients; with fewer nothing is learned
LEVEL = 0.9  # of the interval
OFFSET = 8.0  # cases that the offset of a class is shrunk by
PRIOR_PATIENTS = 2
PRIOR_SPREAD = 0.4  # on the logit scale: 7 points about a DSC of 80 %
_SLOPE = 1.0
_LEAST_STD = 0.1  # of the logit of the signal
_EDGE = 0.01  # DSC, signals and estimates are moved this far into (0, 1)


class Calibration(NamedTuple):
    """What was learned; numbers and lists of them, as JSON has it.

    Attributes:
      patients: that it was learned from.
      mean, std: of the logit of the signal.
      coefficients: a, b and c of each class.
      covariance: of the coefficients, in units of s², as if a case were one observation.
      spread: s of a class, on the logit scale.
      spread_of_mean: s of the mean over the classes of a case.
    """

    patients: int
    mean: float
    std: float
    coefficients: list
    covariance: list
    spread: float
    spread_of_mean: float

    def check(self, classes):
        """Raises ValueError of what cannot have been learned of that many classes."""
        size = 2 + classes
        if [np.shape(x) for x in self[3:5]] != [(size,), (size, size)]:
            raise ValueError("of another number of classes")
        if not all(np.isfinite(x).all() for x in self):
            raise ValueError("a number is none")
        if self.patients < LEAST:
            raise ValueError(f"learned from {self.patients} patients")


class Estimate(NamedTuple):
    """An estimated DSC and its interval, as fractions."""

    dsc: float
    low: float
    high: float


UNKNOWN = (0.0, 1.0)


def calibrate(signal, dsc, patients):
    """Learns from scored cases.

    Args:
      signal: (cases, classes) in [0, 1]; NaN where there is none.
      dsc: (cases, classes) in [0, 1]; NaN where it is not defined.
      patients: of each case.

    Returns:
      ``Calibration``, or None of fewer than ``LEAST`` patients with both in a class.
    """
    usable = ~(np.isnan(signal) | np.isnan(dsc))
    rows = np.flatnonzero(usable.any(1))
    patients = np.array(patients)[rows]
    if len(set(patients)) < LEAST:
        return None
    signal, dsc, usable = signal[rows], dsc[rows], usable[rows]
    left_out = [
        _mean_squares(signal, dsc, usable, patients == one) for one in sorted(set(patients))
    ]
    total = PRIOR_PATIENTS * PRIOR_SPREAD**2 + np.sum(left_out, 0)
    spreads = np.sqrt(total / (PRIOR_PATIENTS + len(left_out)))
    return Calibration(len(left_out), *_fit(signal, dsc, usable), *spreads.tolist())


def estimates(calibration, signal):
    """``Estimate`` of each class with a signal, and of their mean; None of the others.

    Args:
      calibration: or None, and then the signal itself is the estimate, and nothing is known of its
        error.
      signal: (classes,), NaN where there is none.
    """
    known = ~np.isnan(signal)
    if not known.any():
        return [None] * len(signal), None
    if calibration is None:
        found, half, half_of_mean = signal, np.full(len(signal), np.inf), np.inf
    else:
        fit = calibration[1:5]
        found, rows = _predicted(fit, signal), _design(fit, signal)
        half = _half(calibration, rows, calibration.spread)
        half_of_mean = _half(calibration, rows[known].mean(0), calibration.spread_of_mean)
    of_classes = [_around(*x) if y else None for *x, y in zip(found, half, known, strict=True)]
    return of_classes, _around(found[known].mean(), half_of_mean)


def logit(x):
    x = np.clip(x, _EDGE, 1 - _EDGE)
    return np.log(x / (1 - x))


def expit(x):
    return 1 / (1 + np.exp(-x))


def _around(dsc, half):
    with np.errstate(over="ignore"):
        interval = expit(logit(dsc) + np.array([-half, half]))
    return Estimate(float(dsc), *map(float, interval))


def _half(calibration, rows, spread):
    """Half the interval on the logit scale, for rows (…, 2 + classes) of the design."""
    from scipy.stats import t  # takes a second to import

    quantile = t.ppf((1 + LEVEL) / 2, PRIOR_PATIENTS + calibration.patients - 1)
    leverage = np.einsum("...i,ij,...j->...", rows, calibration.covariance, rows)
    return quantile * spread * np.sqrt(1 + leverage)


def _mean_squares(signal, dsc, usable, left_out):
    """Of a patient's residuals, and of those of the means of the cases."""
    rest = ~left_out
    fit = _fit(signal[rest], dsc[rest], usable[rest])
    pairs, means = [], []
    for x, y, use in zip(signal[left_out], dsc[left_out], usable[left_out], strict=True):
        found = _predicted(fit, x)[use]
        pairs += list(logit(y[use]) - logit(found))
        means.append(logit(y[use].mean()) - logit(found.mean()))
    return [np.mean(np.square(residuals)) for residuals in (pairs, means)]


def _fit(signal, dsc, usable):
    """Mean and standard deviation of the logit, coefficients, covariance."""
    logits = logit(signal[usable])
    scale = float(logits.mean()), float(max(logits.std(), _LEAST_STD))
    rows = np.stack([_design(scale, x) for x in signal])[usable]
    precision = rows.T @ rows + np.diag([0.0, _SLOPE, *[OFFSET] * signal.shape[1]])
    coefficients = np.linalg.solve(precision, rows.T @ logit(dsc[usable]))
    # The classes of a case err together: that many pairs are one observation.
    covariance = np.linalg.inv(precision) * len(rows) / len(signal)
    return *scale, coefficients.tolist(), covariance.tolist()


def _design(fit, signal):
    """(classes, 2 + classes), of the signals of a case."""
    standardised = (logit(signal) - fit[0]) / fit[1]
    return np.column_stack([np.ones(len(signal)), standardised, np.eye(len(signal))])


def _predicted(fit, signal):
    return np.clip(expit(_design(fit, signal) @ fit[2]), _EDGE, 1 - _EDGE)
