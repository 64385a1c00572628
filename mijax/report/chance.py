"""Whether differences are more than chance: intervals, tests over patients, their correction."""

import numpy as np

SIGNIFICANT = 0.05
LEAST_PATIENTS = 6  # of a test: of fewer, the assumption of a normal distribution decides
RESAMPLES = 10_000  # of the bootstrap
_TINY = 1e-12


def patients_of(row):
    """The patient of each case of a row, cases sorted by name; the case itself where unknown."""
    entry = row.runs[0].entry
    known = entry.get("patients", {})
    return [known.get(case, case) for case in sorted(entry["cases"])]


def bootstrap_interval(values, patients):
    """95 % interval of the mean over cases, when patients are drawn anew with all their cases.

    Args:
      values: (cases,), NaN where undefined; such cases are left out.
      patients: of each case.

    Returns:
      (low, high), or None of fewer than ``LEAST_PATIENTS``.
    """
    known = ~np.isnan(values)
    names, index = np.unique(np.array(patients)[known], return_inverse=True)
    values, count = values[known], len(names)
    if count < LEAST_PATIENTS:
        return None
    sums, sizes = np.bincount(index, values), np.bincount(index)
    drawn = np.random.default_rng(0).integers(0, count, (RESAMPLES, count))
    means = sums[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def by_patient(values, patients):
    """Means over the cases of each patient; NaN where none is defined."""
    patients = np.array(patients)
    groups = [values[patients == name] for name in dict.fromkeys(patients.tolist())]
    return np.array([nanmean(group, axis=0) for group in groups])


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


def holm(values):
    """p values corrected for their number, so that by chance one is below α with probability ≤ α.

        p̃₍ᵢ₎ = max over j ≤ i of min(1, (m − j + 1) p₍ⱼ₎), of the m values in ascending order

    Reference: Holm, Scandinavian Journal of Statistics 6, 1979.
    """
    values = np.array(list(values), float)
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    corrected = np.empty_like(values)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1.0)
    return corrected.tolist()


def nanmean(values, *, axis):
    """Mean of what is defined; NaN, without a warning, where nothing is."""
    count = (~np.isnan(values)).sum(axis)
    return np.where(count > 0, np.nansum(values, axis) / np.maximum(count, 1), np.nan)
