"""The tables of accuracy, and the tests between their rows, from a file of scores.

    python -m benchmarks.tables benchmarks/acdc_3_labelled.csv
    python -m benchmarks.tables benchmarks/acdc_1_labelled.csv --full benchmarks/acdc_3_labelled.csv

The file has a line for each row of the table, seed, case and class: DSC, HD95 and ASSD. All is of
means over the seeds of each patient: intervals by bootstrap over the patients, p of one-sided
paired t-tests over them, corrected by Holm's method for the rows of the table that is printed.
"""

import argparse
import collections
import csv

import numpy as np

from mijax.errors import UserError
from mijax.report.chance import holm, interval, nanmean, paired_p, resampled_means

FULL, PARTIAL = "Full supervision", "Partial supervision"
AGAINST = ("Ours (KL)", "UniMatch + Ours (KL)")
_COLUMNS = ("method", "seed", "patient", "class", "dsc", "hd95", "assd")


def read_scores(file):
    """Classes, and {row: (seeds, patients, classes, 3)}: DSC in %, HD95 and ASSD, of a file.

    Means over the cases of a patient. Seeds and patients are in order.

    Raises:
      UserError: if it has other columns.
    """
    found = collections.defaultdict(list)
    with open(file, encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if missing := [name for name in _COLUMNS if name not in (reader.fieldnames or ())]:
            raise UserError(f"{file} has no column {missing[0]}; they are {', '.join(_COLUMNS)}")
        for line in reader:
            key = line["method"], int(line["seed"]), line["patient"], line["class"]
            found[key].append([float(line[name] or "nan") for name in ("dsc", "hd95", "assd")])
    classes = list(dict.fromkeys(key[3] for key in found))
    rows = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row, seed, patient, label in found:
        rows[row][seed].setdefault(patient, dict.fromkeys(classes))
        rows[row][seed][patient][label] = nanmean(
            np.array(found[row, seed, patient, label]), axis=0
        )
    return classes, {
        row: np.array(
            [[list(seeds[s][p].values()) for p in sorted(seeds[s])] for s in sorted(seeds)]
        )
        * (100, 1, 1)
        for row, seeds in rows.items()
    }


def means(scores):
    """DSC of each patient in %, the mean over seeds and classes."""
    return scores[..., 0].mean((0, 2))


def rows_of(classes, rows, order):
    """Yields the lines of the table of rows."""
    heads = ["row", "seeds", *classes, "mean", "95 % interval", "gap closed", "HD95", "ASSD"]
    yield "| " + " | ".join(heads) + " |"
    yield "|---" * len(heads) + "|"
    low, high = (means(rows[name]).mean() for name in (PARTIAL, FULL))
    for name in order:
        seeds = rows[name][..., 0].mean((1, 2))
        spread = f" ({seeds.std(ddof=1):.1f})" if len(seeds) > 1 else ""
        dsc = [f"{x:.1f}" for x in rows[name][..., 0].mean((0, 1))]
        ends = "{:.1f} to {:.1f}".format(*_ends(means(rows[name])))
        gap = f"{round(100 * (seeds.mean() - low) / (high - low))} %".replace("-", "−")
        gap = "" if name in (FULL, PARTIAL) else gap
        hd95, assd = nanmean(rows[name][..., 1:], axis=(0, 1, 2))
        mean, far = f"{seeds.mean():.1f}{spread}", (f"{hd95:.1f}", f"{assd:.2f}")
        cells = [name, str(len(seeds)), *dsc, mean, ends, gap, *far]
        yield "| " + " | ".join(cells) + " |"


def tests_of(rows, against, others):
    """Yields the lines of the table of tests: what a row has more than each of the others."""
    gains = {name: means(rows[against]) - means(rows[name]) for name in others}
    values = [paired_p(gain, np.zeros(len(gain)), higher=True) for gain in gains.values()]
    yield f"| {against} less | difference, 95 % interval | p | p, Holm |"
    yield "|---|---|---|---|"
    for (name, gain), p, corrected in zip(gains.items(), values, holm(values), strict=True):
        change = "{:+.2f}, {:.2f} to {:.2f}".format(gain.mean(), *_ends(gain)).replace("-", "−")
        yield f"| {name} | {change} | {_p(p)} | {_p(corrected)} |"


def _ends(values):
    """95 % interval of the mean over patients."""
    return interval(resampled_means(values, range(len(values))))


def _p(value):
    return "< 0.001" if value < 0.001 else f"{value:.2g}"


def of_file(file, *, full="", names=(), against=AGAINST):
    """Yields the table of rows of a file, and that of tests of each row in ``against`` it has.

    Args:
      file: of scores.
      full: file that has the row of full supervision; the same by default.
      names: of the rows; all by default. From the lowest mean to the highest.
      against: names of rows.

    Raises:
      UserError: if there is no full or partial supervision, or none of ``names``.
    """
    classes, rows = read_scores(file)
    of_full = read_scores(full)[1] if full else rows
    if FULL not in of_full:
        raise UserError(f"{full or file} has no row {FULL}; name a file that has it by --full")
    rows[FULL] = of_full[FULL]
    if missing := [name for name in (PARTIAL, *names) if name not in rows]:
        raise UserError(f"{file} has no row {missing[0]}; its rows are {', '.join(rows)}")
    others = [name for name in names or rows if name not in (FULL, PARTIAL)]
    others.sort(key=lambda name: means(rows[name]).mean())
    yield "\n".join(rows_of(classes, rows, [FULL, PARTIAL, *others]))
    for better in against:
        if better in others:
            rest = [name for name in (PARTIAL, *others) if name != better]
            yield "\n".join(tests_of(rows, better, rest))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scores", help="file of scores")
    parser.add_argument("--full", default="", help="file that has the row of full supervision")
    parser.add_argument("--rows", nargs="+", default=(), help="rows to print; all by default")
    parser.add_argument("--against", nargs="+", default=AGAINST, help="rows that are tested")
    values = parser.parse_args()
    options = {"full": values.full, "names": values.rows, "against": values.against}
    try:
        print("\n\n".join(of_file(values.scores, **options)))
    except (UserError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
