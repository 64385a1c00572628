"""The headline of a report: what its table says, in a sentence or two."""

from mijax.errors import counted
from mijax.methods import PARTIAL
from mijax.report.chance import LEAST_PATIENTS, SIGNIFICANT
from mijax.report.gaps import baseline, competitors
from mijax.report.table import percent
from mijax.report.values import MEAN


def finding(table):
    """The best row beside the baseline of the same labels, and the tests of ours; "" of one row.

    Args:
      table: ``statistics.Table``.
    """
    cells = table.cells["dsc"][MEAN]
    best = [i for i, cell in enumerate(cells) if cell.best]
    if not best:
        return ""
    (i,) = best
    return " ".join([_highest(table, i), *_chance(table, i), *_unlike(table)])


def _highest(table, i):
    cells, rows = table.cells["dsc"][MEAN], table.rows
    text = f"{rows[i].label} has the highest mean DSC, {100 * cells[i].mean:.2f} %"
    if len(competitors(rows)) < len(rows):
        text += ", full supervision aside"
    base = baseline(rows[i], rows, PARTIAL)
    if base == i:
        text += "; it is the baseline that learns from the labels alone"
    elif base is not None and cells[base].mean is not None:
        points = 100 * (cells[i].mean - cells[base].mean)
        text += f"; that is {points:.2f} points above {rows[base].label}, which has the same labels"
    if table.gaps[MEAN][i] is not None:
        text += f", and closes {percent(table.gaps[MEAN][i])} of the gap to full supervision"
    return text + "."


def _chance(table, best):
    """What the tests of the tested row say, in a sentence or none."""
    rows, tested, others = table.rows, table.tested, list(table.comparisons)
    if not others:
        return []
    patients = max(one.patients for one in table.comparisons.values())
    if patients < LEAST_PATIENTS:
        some = counted(patients, "patient")
        return [f"Whether differences are more than chance, {some} cannot tell."]
    ahead = [i for i in others if table.cells["dsc"][MEAN][i].significant]
    if len(others) == 1:
        than = rows[others[0]].label
    elif ahead and len(ahead) < len(others):
        than = f"{len(ahead)} of the {len(others)} other rows"
    else:
        than = "every other row" if ahead else "any other row"
    corrected = ", corrected for their number" * (len(others) > 1)
    return [
        f"{'It' if tested == best else rows[tested].label} is {'' if ahead else 'not '}"
        f"significantly better than {than} (p < {SIGNIFICANT}{corrected})."
    ]


def _unlike(table):
    """A warning where rows did not learn from the same labels."""
    labels = [table.rows[i].labels for i in competitors(table.rows)]
    if all(one == labels[0] for one in labels):
        return []
    of = "" if any(one[0] != labels[0][0] for one in labels) else "what was annotated of "
    return [f"Rows differ in {of}their labelled cases: only those of the same are like with like."]
