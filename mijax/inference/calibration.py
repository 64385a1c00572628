"""From a signal to an estimate of the DSC with an interval, learned from a few scored cases.

    logit DSC = a + b · z + c_class,    z: the standardised logit of the signal

by ridge regression: pooled over classes, with a slope that is shrunk a little, and an offset of
each class that counts from about ``OFFSET`` cases on. Residuals are those of cases that are left
out; with their root mean square s, and as many degrees of freedom as cases less one, the interval
is that of Student's t for one more case. It grows wide by itself where cases are few.
"""

from typing import NamedTuple

import numpy as np

LEAST = 3  # cases; with fewer nothing is learned
LEVEL = 0.9  # of the interval
OFFSET = 8.0  # cases that the offset of a class is shrunk by
_SLOPE = 1.0
_LEAST_STD = 0.1  # of the logit of the signal
_EDGE = 0.01  # DSC and signals are moved this far into (0, 1)


class Calibration(NamedTuple):
    """What was learned; numbers and lists of them, as JSON has it.

    Attributes:
      cases: that it was learned from.
      mean, std: of the logit of the signal.
      intercept, slope: a, b.
      offsets: c of each class.
      spread: s of a class, on the logit scale.
      spread_of_mean: s of the mean over the classes of a case.
    """

    cases: int
    mean: float
    std: float
    intercept: float
    slope: float
    offsets: list
    spread: float
    spread_of_mean: float


class Estimate(NamedTuple):
    """An estimated DSC and its interval, as fractions."""

    dsc: float
    low: float
    high: float


UNKNOWN = (0.0, 1.0)


def calibrate(signal, dsc):
    """Learns from scored cases.

    Args:
      signal: (cases, classes) in [0, 1]; NaN where there is none.
      dsc: (cases, classes) in [0, 1]; NaN where it is not defined.

    Returns:
      ``Calibration``, or None of fewer than ``LEAST`` cases with both in a class.
    """
    usable = ~(np.isnan(signal) | np.isnan(dsc))
    rows = np.flatnonzero(usable.any(1))
    if len(rows) < LEAST:
        return None
    signal, dsc, usable = signal[rows], dsc[rows], usable[rows]
    residual, of_mean = [], []
    for i in range(len(rows)):
        rest = np.arange(len(rows)) != i
        found = _predicted(_fit(signal[rest], dsc[rest], usable[rest]), signal[i])
        residual += list((logit(dsc[i]) - logit(found))[usable[i]])
        mean = [np.mean(values[usable[i]]) for values in (dsc[i], found)]
        of_mean.append(logit(mean[0]) - logit(mean[1]))
    spread, spread_of_mean = (float(np.sqrt(np.mean(np.square(x)))) for x in (residual, of_mean))
    return Calibration(len(rows), *_fit(signal, dsc, usable), spread, spread_of_mean)


def estimates(calibration, signal):
    """``Estimate`` of each class with a signal, and of their mean; None of the others.

    Args:
      calibration: or None, and then the signal itself is the estimate, and nothing is known of its
        error.
      signal: (classes,), NaN where there is none.
    """
    known = ~np.isnan(signal)
    if calibration is None:
        found, half, half_of_mean = signal, None, None
    else:
        found = _predicted(calibration[1:6], signal)
        half, half_of_mean = (
            _quantile(calibration.cases) * np.sqrt(1 + 1 / calibration.cases) * s
            for s in (calibration.spread, calibration.spread_of_mean)
        )
    of_classes = [_around(x, half) if y else None for x, y in zip(found, known, strict=True)]
    return of_classes, _around(found[known].mean(), half_of_mean) if known.any() else None


def logit(x):
    x = np.clip(x, _EDGE, 1 - _EDGE)
    return np.log(x / (1 - x))


def expit(x):
    return 1 / (1 + np.exp(-x))


def _around(dsc, half):
    interval = UNKNOWN if half is None else expit(logit(dsc) + np.array([-half, half]))
    return Estimate(float(dsc), *map(float, interval))


def _quantile(cases):
    from scipy.stats import t  # takes a second to import

    return t.ppf((1 + LEVEL) / 2, cases - 1)


def _fit(signal, dsc, usable):
    """Mean and standard deviation of the logit, a, b and c of each class."""
    kinds = signal.shape[1]
    of_class = np.nonzero(usable)[1]
    x, y = logit(signal[usable]), logit(dsc[usable])
    mean, std = x.mean(), max(x.std(), _LEAST_STD)
    design = np.column_stack([np.ones(len(x)), (x - mean) / std, np.eye(kinds)[of_class]])
    ridge = np.diag([0.0, _SLOPE, *[OFFSET] * kinds])
    a, b, *c = np.linalg.solve(design.T @ design + ridge, design.T @ y).tolist()
    return float(mean), float(std), a, b, c


def _predicted(fit, signal):
    mean, std, a, b, c = fit
    return expit(a + b * (logit(signal) - mean) / std + np.array(c))
