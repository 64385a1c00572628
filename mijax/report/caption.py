"""What the numbers of a report are, in sentences."""

from mijax.inference.scores import METRICS
from mijax.report.chance import LEAST_PATIENTS, RESAMPLES, SIGNIFICANT, patients_of
from mijax.report.gaps import competitors
from mijax.report.table import calibration, checkpoints, comparisons, sample
from mijax.report.values import MEAN


def caption(table, *, checkpoint):
    """What the numbers are, in sentences."""
    entry = table.rows[0].runs[0].entry
    seeds = max(len(row.runs) for row in table.rows)
    sentences = [
        f"Mean over the {entry['split']} cases ({sample(table)}) of the {checkpoint} checkpoint"
        + (", and over seeds, with the standard deviation over seeds in parentheses"
           if seeds > 1 else "")
        + ". DSC is per volume (3D); HD95 and ASSD are in mm on the native grid. NSD is the part "
        "of both surfaces within the tolerance of the other one. The volume error is that of the "
        "prediction less that of the annotation. Training cases: labelled + unlabelled."
    ]  # fmt: skip
    if entry.get("largest_component"):
        sentences.append("Of each class the largest component of a label map was kept.")
    if entry.get("mirror"):
        sentences.append("Probabilities are means over mirror images.")
    if table.unseen:
        sentences.append(
            f"No case shows {', '.join(table.unseen)}: undefined, and left out of the mean."
        )
    if checkpoint == "best" and entry["split"] == "validation":
        sentences.append(
            "The checkpoint was chosen by the DSC of the very same cases, which flatters all rows."
        )
    if entry["split"] == "validation" and (learned := _with_learned_weights(table)):
        sentences.append(
            f"{learned}: the weights of the losses were learned from the labels of the very same "
            "cases, which flatters it."
        )
    if any(cell.best for cells in table.cells["dsc"].values() for cell in cells):
        aside = ", full supervision aside" * _beside_full(table)
        sentences.append(f"Bold: the best of a column{aside}.")
    if table.comparisons:
        sentences += _about_tests(table)
    if any(cell.interval for cell in table.cells["dsc"][MEAN]):
        sentences.append(
            "95 % interval: of the mean over cases, by bootstrap over patients"
            + (", and over patients and seeds of a row of several seeds; that of a single seed "
               "says nothing about others" if seeds > 1 else "")
            + f" ({RESAMPLES:,} samples)."
        )  # fmt: skip
    elif not table.comparisons:
        sentences.append(f"No 95 % intervals: {_too_few(table)}.")
    if any(gap is not None for gap in table.gaps[MEAN]):
        sentences.append(
            "Gap closed: (method − partial) / (full − partial) of the mean DSC, where partial and "
            "full are the supervised baselines."
        )
    distances = [m for m in table.cells if METRICS[m].unit == "mm"]
    if any(c.undefined for m in distances for cells in table.cells[m].values() for c in cells):
        sentences.append(
            "[n]: in n cases (over all seeds) the class was not found, or was found where there "
            "is none; their distance is undefined and left out. –: a seed has no distance at all."
        )
    if any(cell.undefined for cells in table.cells["dsc"].values() for cell in cells):
        sentences.append("A class that was not drawn in a case has no score there.")
    if checkpoints(table):
        sentences.append(
            "The best checkpoint is that of the highest validation DSC, by which the last is not "
            "chosen."
        )
    if calibration(table):
        sentences.append(
            "ECE: by how much the probability of the predicted class misses its accuracy, mean "
            "over 15 bins by their voxels, of each case; of all annotated voxels, and of those "
            "that annotation or prediction has as foreground."
        )
    return " ".join(sentences)


def _with_learned_weights(table):
    return ", ".join(row.label for row in table.rows if row.config.hypergradient.weights)


def _beside_full(table):
    """Whether full supervision is the bound of other rows."""
    return len(competitors(table.rows)) < len(table.rows)


def _too_few(table):
    """Why there are no tests and no intervals."""
    count = len(set(patients_of(table.rows[0])))
    if count < LEAST_PATIENTS:
        return f"they take {LEAST_PATIENTS} patients, and there are {count}"
    return f"they take {LEAST_PATIENTS} patients with a score of each class, and there are fewer"


def _about_tests(table):
    label, cells = table.rows[table.tested].label, table.cells["dsc"].values()
    if not any(cell.p is not None for column in cells for cell in column):
        if any(cell.interval for cell in table.cells["dsc"][MEAN]):
            return ["No t-test: all patients have the same differences."]
        return [f"No t-test, and no intervals: {_too_few(table)}."]
    but = ", all but full supervision," * _beside_full(table)
    sentences = [
        f"* p < {SIGNIFICANT} in a one-sided paired t-test that {label} is better than the row, "
        "over patients whose scores were averaged over seeds and scans first. p values are "
        f"corrected by Holm's method for the number of rows that it is tested against{but} in each "
        "column for itself; not for the number of classes and metrics. They say nothing about "
        "other draws of the labelled cases."
    ]
    if comparisons(table):
        sentences.append(
            f"Differences are those of {label} less the row. The p values of both tests are "
            "one-sided, paired by patient and corrected by Holm's method. False claim: the "
            f"probability that {label} is not better in the population of patients, the posterior "
            "of normal differences with the reference prior, not corrected for the number of rows "
            "(Christodoulou et al., 2025)."
        )
    if table.picked:
        sentences.append(f"{label} is tested for having the best mean DSC of the same cases, "
                         "which flatters it; --against names another row.")  # fmt: skip
    return sentences
