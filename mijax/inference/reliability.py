"""Whether the probability of the predicted class is how often it is right: the ECE.

    ECE = Σ_b n_b / n · |accuracy of bin b − mean probability in bin b|

over voxels in ``BINS`` bins of equal width by the probability of the class that they are given.
Most of a volume is background that nobody doubts; the ECE of the foreground is that of the voxels
that the annotation or the prediction has as any foreground class.

Reference: Naeini et al., AAAI 2015; Guo et al., ICML 2017.
"""

import numpy as np

from mijax.data import UNLABELLED

BINS = 15
REGIONS = {"all": "all voxels", "foreground": "those of the foreground"}


def case_reliability(labels, confidence, volume):
    """Sums over the voxels of a case that are annotated, by bin.

    Args:
      labels: (x, y, z), predicted.
      confidence: (x, y, z) float32, their probabilities; NaN where there is none.
      volume: ``data.Volume``, with its label.

    Returns:
      ``{region: (3, BINS)}`` of ``REGIONS``: number of voxels, sum of probabilities, number of
      those that are right; or None of a volume in which a class was not drawn, as its background
      may be anything.
    """
    if volume.undrawn:
        return None
    counts, sums = np.zeros((2, 2, BINS)), np.zeros((2, 2, BINS))  # foreground, right, bin
    for found, probability, true in zip(labels, confidence, volume.label, strict=True):
        known = (true != UNLABELLED) & (probability == probability)
        if not known.all():
            found, probability, true = found[known], probability[known], true[known]
        place = np.minimum((BINS * probability).astype(np.uint8), BINS - 1)
        place += BINS * (found == true).view(np.uint8)
        place += 2 * BINS * ((found > 0) | (true > 0)).view(np.uint8)
        place = place.ravel()
        counts += np.bincount(place, minlength=counts.size).reshape(counts.shape)
        sums += np.bincount(place, probability.ravel(), counts.size).reshape(counts.shape)
    by_bin = np.stack([counts.sum(1), sums.sum(1), counts[:, 1]], 1)  # (2, 3, BINS)
    return {"all": by_bin.sum(0), "foreground": by_bin[1]}


def calibration_error(by_bin):
    """ECE of (3, BINS) sums, a fraction; None of no voxel."""
    count, probability, right = by_bin
    return float(np.abs(right - probability).sum() / count.sum()) if count.sum() else None


def summary_of(cases):
    """What scores.json has of the reliability of some cases.

    Args:
      cases: ``{case: case_reliability}``, None of a case without one.

    Returns:
      ``{region: {"ece": mean over cases, "cases": {case: ece}, "voxels", "probability",
      "accuracy"}}``, the last three over the voxels of all cases, lists of ``BINS`` with None for
      a bin without voxels; or None where no case has one.
    """
    known = {name: one for name, one in cases.items() if one}
    if not known:
        return None
    found = {}
    for region in REGIONS:
        errors = {name: calibration_error(one[region]) for name, one in known.items()}
        defined = [error for error in errors.values() if error is not None]
        count, probability, right = sum(one[region] for one in known.values())
        found[region] = {
            "ece": float(np.mean(defined)) if defined else None,
            "cases": errors,
            "voxels": count.astype(int).tolist(),
            "probability": _ratios(probability, count),
            "accuracy": _ratios(right, count),
        }
    return found


def _ratios(sums, counts):
    return [float(s / n) if n else None for s, n in zip(sums, counts, strict=True)]
