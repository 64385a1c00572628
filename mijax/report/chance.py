"""Whether differences are more than chance: intervals, tests over patients, their correction."""

import functools

import numpy as np

SIGNIFICANT = 0.05
LEAST_PATIENTS = 6  # of a test: of fewer, the assumption of a normal distribution decides
RESAMPLES = 10_000  # of the bootstrap
_TINY = 1e-12


def patients_of(row):
    """The patient of each case of a row, cases sorted by name."""
    entry = row.runs[0].entry
    return [entry["patients"][case] for case in sorted(entry["cases"])]


def resampled_means(values, patients, *, row=0):
    """Means over cases and seeds, when patients and seeds are drawn anew.

    Patients come with all their cases. Seeds, where there are several, are drawn apart from them,
    as each seed has seen all patients: the mean of a sample is that of the drawn seeds over the
    drawn patients. A few seeds spread less than all that might have been: of S of them the
    variance between seeds counts (S − 1)/S.

    Args:
      values: (cases,), or (seeds, cases); NaN where undefined, which is left out.
      patients: of each case. Of the same ones the same are drawn in every call, so that rows can
        be compared sample by sample.
      row: whose seeds they are; other rows have others.

    Returns:
      (RESAMPLES,), or None of fewer than ``LEAST_PATIENTS`` with a value, or of a seed without any.
    """
    values = np.atleast_2d(values)
    names, index = np.unique(np.array(patients), return_inverse=True)
    known = ~np.isnan(values)
    if len(set(index[known.any(0)])) < LEAST_PATIENTS or not known.any(1).all():
        return None
    patient = np.eye(len(names))[index]  # (cases, patients)
    drawn = _drawn(len(names), 0)
    sizes = drawn @ (known @ patient).T
    with np.errstate(invalid="ignore"):  # NaN of a sample without a value
        means = drawn @ (np.where(known, values, 0) @ patient).T / sizes  # (RESAMPLES, seeds)
    if len(values) == 1:
        return means[:, 0]
    return (means * _drawn(len(values), 1 + row)).sum(1) / len(values)


@functools.lru_cache(maxsize=32)
def _drawn(count, seed):
    """(RESAMPLES, count): how often each is among ``count`` of them drawn with replacement."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(count, np.full(count, 1 / count), RESAMPLES).astype(float)


def interval(samples):
    """(low, high) that 95 % of some samples are within; None of None."""
    return None if samples is None else tuple(np.nanpercentile(samples, (2.5, 97.5)).tolist())


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

    pairs = _pairs(better, worse)
    if pairs is None:
        return None
    return float(ttest_rel(*pairs, alternative="greater" if higher else "less").pvalue)


def wilcoxon_p(better, worse, *, higher):
    """p of the one-sided Wilcoxon signed-rank test of the same; arguments as of ``paired_p``.

    It takes ranks of the differences, and no normal distribution of them.
    """
    from scipy.stats import wilcoxon

    pairs = _pairs(better, worse)
    if pairs is None:
        return None
    differences = np.round(np.subtract(*pairs), 12)  # what is equal but for rounding is a tie
    return float(wilcoxon(differences, alternative="greater" if higher else "less").pvalue)


def false_claim(better, worse, *, higher):
    """Probability that ``better`` is, in the population of patients, not better after all.

        P(μ_A ≤ μ_B | data) = F_{n−1}(−√n d̄ / s),    s² = s_A² + s_B² − 2 r s_A s_B

    d̄ and s are the mean and the standard deviation of the differences over n patients, F that of
    Student's t: the posterior of normal differences of unknown variance with the prior 1/σ². As
    the scores of each patient are known, so is their correlation r, which the source estimates. It
    is the p of ``paired_p``, read as a probability; a posterior is not corrected for their number.

    Reference: Christodoulou et al., "False promises in medical imaging AI? Assessing validity of
    outperformance claims", arXiv 2505.04720, 2025.
    """
    return paired_p(better, worse, higher=higher)


def _pairs(better, worse):
    """Both where both are defined, or None of too few or of differences that are all the same."""
    both = ~(np.isnan(better) | np.isnan(worse))
    better, worse = better[both], worse[both]
    if len(better) < LEAST_PATIENTS or np.ptp(better - worse) < _TINY:
        return None
    return better, worse


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
