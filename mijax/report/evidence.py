"""The figures of what the table says of chance, volumes and probabilities, with their captions."""

from mijax.report.calibration import reliability_diagram
from mijax.report.chance import LEAST_PATIENTS, RESAMPLES, patients_of
from mijax.report.ranking import blob_plot, find_ranking
from mijax.report.table import sample
from mijax.report.volumes import CLASSES, bland_altman, has_limits

_RANKING = (
    "Rank by mean DSC when patients{seeds} are drawn anew with replacement, {count:,} times; "
    "{sample}. The area of a disc is the share of the samples, the cross the median; "
    "95 % of them are within the line. {first} is first in {share:.0f} % of the samples."
)
_VOLUMES = (
    "Volume found less volume annotated, over the mean of the two (Bland and Altman); one dot a "
    "case{seeds}, {sample}. "
)
_LIMITS = (
    "Lines: the mean error, and dashed the limits of agreement, 1.96 standard deviations to both "
    f"sides, of a class that {LEAST_PATIENTS} patients have; the numbers are those, in ml."
)
_NO_LIMITS = f"Line and number: the mean error, in ml; limits take {LEAST_PATIENTS} patients."
_RELIABILITY = (
    "How often the predicted class is right, over the probability that it is given: annotated "
    "voxels of all cases{seeds} in 15 bins, {sample}. On the grey line they are equal; below it "
    "the network is too sure. Left all voxels, right those that the annotation or the prediction "
    "has as foreground."
)


def _ranking(table):
    if not (ranking := find_ranking(table)):
        return None
    text = _RANKING.format(
        seeds=" and seeds" * _several(table),
        count=RESAMPLES,
        sample=sample(table),
        first=table.rows[ranking.places[0]].label,
        share=100 * ranking.shares[0, 0],
    )
    return text, blob_plot(table, ranking)


def _volumes(table):
    if not (figure := bland_altman(table)):
        return None
    enough = has_limits(patients_of(table.rows[0]))
    text = _VOLUMES.format(seeds=" and seed" * _several(table), sample=sample(table))
    text += _LIMITS if enough else _NO_LIMITS
    if len(table.columns) - 1 > CLASSES:
        text += f" Of the {len(table.columns) - 1} classes the first {CLASSES} are shown."
    return text, figure


def _reliability(table):
    if not (figure := reliability_diagram(table.rows)):
        return None
    text = _RELIABILITY.format(seeds=" and seeds" * _several(table), sample=sample(table))
    return text, figure


def _several(table):
    return any(len(row.runs) > 1 for row in table.rows)


# By name: of a ``statistics.Table`` the caption and the figure, or None where there is none.
EVIDENCE = {"ranking": _ranking, "volumes": _volumes, "reliability": _reliability}
