"""The tables of a report as cells of text."""

import numpy as np

from mijax.errors import counted
from mijax.inference.scores import METRICS
from mijax.inference.tolerance import in_words
from mijax.report.chance import patients_of
from mijax.report.values import MEAN

NONE = "–"


def parts(table):
    """All tables, as ``(title, header, rows of cells)``.

    A cell is ``(text, best, significant)``, the last whether it is significantly worse than that
    of the tested row; the first of each row is the label.
    """
    others = (comparisons(table), p_values(table), checkpoints(table), calibration(table))
    return [*grids(table), *(part for part in others if part)]


def grids(table):
    """The tables of the metrics, the first of the DSC."""
    found = []
    for metric, cells in table.cells.items():
        about = METRICS[metric]
        header = ["Method", *map(_heading, cells)]
        rows = [
            [plain(row.label), *(_marked(about, column[i]) for column in cells.values())]
            for i, row in enumerate(table.rows)
        ]
        name = about.name
        if metric == "nsd":
            name += f" at {in_words(table.rows[0].runs[0].entry['nsd_tolerance'])}"
        if metric == "dsc":
            header, rows = _with_more(table, header, rows)
        found.append((f"{name} ({about.unit}), {sample(table)}", header, rows))
    return found


def sample(table):
    """``n = 20 cases``, or of fewer patients ``n = 20 cases of 18 patients``."""
    patients = patients_of(table.rows[0])
    cases, some = counted(len(patients), "case"), counted(len(set(patients)), "patient")
    return f"n = {cases}" + ("" if len(set(patients)) == len(patients) else f" of {some}")


def _with_more(table, header, rows):
    """The DSC, with intervals, the gap closed, the numbers of cases and of seeds."""
    gaps, means = table.gaps[MEAN], table.cells["dsc"][MEAN]
    columns = {
        "95 % interval": [cell.interval and _interval(cell.interval) for cell in means],
        "Gap closed": [None if gap is None else percent(gap) for gap in gaps],
        "Training cases": [row.training_cases for row in table.rows],
        "Seeds": [str(len(row.runs)) for row in table.rows],
    }
    columns = {title: texts for title, texts in columns.items() if any(texts)}
    more = zip(*columns.values(), strict=True)
    rows = [
        [*row, *(plain(text or NONE) for text in texts)]
        for row, texts in zip(rows, more, strict=True)
    ]
    return [*header, *columns], rows


def comparisons(table):
    """The tested row against each other one, by the mean DSC; None without any test."""
    found = table.comparisons
    if all(one.t is None for one in found.values()):
        return None
    header = ["Against", "Patients", "Difference", "95 % interval"]
    header += ["p, t-test", "p, Wilcoxon", "False claim"]
    rows = []
    for i, one in found.items():
        texts = [table.rows[i].label, str(one.patients), signed(100 * one.difference)]
        texts += [_interval(one.interval, signed)]
        texts += [show_p(p) for p in (one.t, one.wilcoxon, one.false_claim)]
        rows.append(list(map(plain, texts)))
    return f"Is {table.rows[table.tested].label} better? Mean DSC, in points", header, rows


def p_values(table):
    """The p values of the DSC by class; None where there is no test."""
    if all(cell.p is None for cells in table.cells["dsc"].values() for cell in cells):
        return None
    rows = [
        [row.label, *(show_p(table.cells["dsc"][column][i].p) for column in table.columns)]
        for i, row in enumerate(table.rows)
        if i != table.tested
    ]
    title = f"p of the t-test that {table.rows[table.tested].label} is better, DSC, {sample(table)}"
    return title, ["Method", *map(_heading, table.columns)], [list(map(plain, r)) for r in rows]


def checkpoints(table):
    """Mean DSC of the best and of the last checkpoint; None where they are the same."""
    rows = []
    for row in table.rows:
        found = [one.checkpoints for one in row.runs]
        if not all(one.get("best") and one.get("last") for one in found):
            continue
        means = [[one[name][1] for one in found] for name in ("best", "last")]
        if any(value is None or value != value for value in (*means[0], *means[1])):
            continue
        best, last = (100 * np.array(values) for values in means)
        steps = [", ".join(str(one[name][0]) for one in found) for name in ("best", "last")]
        texts = [_spread(best), _spread(last), signed((last - best).mean()), *steps]
        rows.append([row.label, *texts])
    if all(row[-1] == row[-2] for row in rows):
        return None
    header = ["Method", "Best", "Last", "Last − best", "Step of the best", "Last step"]
    title = f"Best and last checkpoint, mean DSC (%), {sample(table)}"
    return title, header, [list(map(plain, row)) for row in rows]


def calibration(table):
    """ECE of each row; None where none has any."""
    if not any(table.errors):
        return None
    header, columns = ["Method"], [[row.label for row in table.rows]]
    for region, heading in (("all", "All voxels"), ("foreground", "Foreground")):
        errors = [of_row.get(region) for of_row in table.errors]
        header.append(heading)
        columns.append([_spread(100 * one.by_seed) if one else NONE for one in errors])
        if any(one and one.interval for one in errors):
            header.append("95 % interval")
            columns.append([_interval(one.interval) if one else NONE for one in errors])
    rows = [list(map(plain, texts)) for texts in zip(*columns, strict=True)]
    return f"Calibration error, ECE (%), {sample(table)}", header, rows


def percent(fraction):
    return f"{100 * fraction:.0f} %".replace("-", "−")


def signed(value):
    return f"{value:+.2f}".replace("-", "−")


def show_p(p):
    if p is None:
        return NONE
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def plain(text):
    return text, False, False


def _interval(interval, show="{:.1f}".format):
    if interval is None:
        return NONE
    return " to ".join(show(100 * x) for x in interval)


def _spread(seeds):
    """Mean and, of several seeds, standard deviation."""
    return f"{seeds.mean():.2f}" + (f" ({seeds.std(ddof=1):.2f})" if len(seeds) > 1 else "")


def _heading(column):
    return "Mean" if column == MEAN else column


def _marked(about, cell):
    if cell.mean is None:
        text = NONE
    else:
        value = about.factor * cell.mean
        text = f"{value:.2f}" if about.better else signed(value)
        text += "" if cell.std is None else f" ({about.factor * cell.std:.2f})"
    text += f" [{cell.undefined}]" if cell.undefined else ""
    return text, cell.best, cell.significant
