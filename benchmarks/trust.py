"""What the estimates of a run are worth: python -m benchmarks.trust RUN [--split validation]

For each signal, of the test cases: its correlation with the true DSC (Pearson and Spearman over all
pairs of case and class, Spearman within each class and over cases); the area under the
risk–coverage curve (AURC), which is the mean of 1 − DSC over the most trusted share, averaged over
all shares, the lower the better; and the mean absolute error in points of an estimate that is
learned from this signal, on the validation cases, as the run's own is from the agreement. At the
end, how often the interval of the run's estimate holds the true DSC.

Signals were chosen by --split validation, where errors are those of a fit to these very cases.
"""

import argparse

import numpy as np
from scipy.stats import pearsonr, spearmanr

from mijax.data import read_splits
from mijax.inference import Predictor
from mijax.inference.calibration import calibrate, estimates
from mijax.inference.signals import SIGNALS
from mijax.inference.trust import read_trust, trust
from mijax.metrics import dice
from mijax.runs.source import open_data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    options = parser.parse_args()
    predictor = Predictor(options.run)
    known = read_trust(predictor.run)
    splits = read_splits(predictor.run.folder / "splits.json")
    rows = _rows(predictor, getattr(splits, options.split), known)
    learned = rows if options.split == "validation" else _rows(predictor, splits.validation, known)
    _print(rows, learned, predictor.classes[1:], options)


def _rows(predictor, names, known):
    """A dict of signals, estimates and the true DSC for each pair of case and class."""
    source = open_data(predictor.run.config)
    patients = {case.name: case.patient for case in source.cases}
    volumes = [source.volume(name) for name in names]
    looks = predictor.look(volumes)
    last = (labels for labels, _ in predictor.at("last").segment(volumes))
    rows = []
    for volume, one, other in zip(volumes, looks, last, strict=True):
        found = trust(known, one, volume.affine, source.classes)
        k = len(source.classes)
        true, checkpoints = (dice(one.labels, x, classes=k) for x in (volume.label, other))
        for i, name in enumerate(source.classes[1:]):
            values, estimate = found.signals[name], found.classes[name]
            typical = known["annotated"][name]["log_volume"]
            unlike = typical and abs(np.log(max(values["volume_ml"], 1e-3)) - typical[0])
            rows.append(
                {
                    "case": volume.name,
                    "patient": patients[volume.name],
                    "class": name,
                    "dsc": true[i],
                    "estimate": estimate.dsc,
                    "inside": estimate.low <= true[i] <= estimate.high,
                    "width": estimate.high - estimate.low,
                    "mean": found.mean,
                    **{signal: values[signal] for signal in SIGNALS},
                    "entropy": np.exp(-values["entropy"]),
                    "checkpoints": checkpoints[i],
                    "volume": np.nan if unlike is None else np.exp(-unlike),
                    "pieces": 1 / max(values["pieces"], 1),
                }
            )
    return rows


def aurc(signal, dsc):
    """Area under the risk–coverage curve, the risk being 1 − DSC."""
    risks = 1 - dsc[np.argsort(-signal, kind="stable")]
    return float(np.mean(np.cumsum(risks) / np.arange(1, len(risks) + 1)))


def _print(rows, learned, classes, options):
    column = {key: [row[key] for row in rows] for key in rows[0]}
    dsc, kinds = np.array(column["dsc"]), np.array(column["class"])
    cases = list(dict.fromkeys(column["case"]))
    of_case = np.array([cases.index(name) for name in column["case"]])

    def by_case(values):
        return np.bincount(of_case, values) / np.bincount(of_case)

    print(f"{options.run}: {len(cases)} {options.split} cases, mean DSC {100 * dsc.mean():.1f} %")
    print("| signal | Pearson | Spearman |", " | ".join(f"{c}" for c in classes), end="")
    print(" | cases | AURC | AURC, cases | error |\n" + "|---" * (len(classes) + 7) + "|")
    for name in ("estimate", *SIGNALS, "checkpoints", "volume", "pieces", "the DSC itself"):
        values = np.array(column["dsc" if name == "the DSC itself" else name], float)
        # A class that was not found is trusted least by every signal, as by the estimate.
        values = np.where(np.isnan(values), np.nanmin(values) - 1e-6, values)
        within = [spearmanr(values[kinds == c], dsc[kinds == c])[0] for c in classes]
        cells = [pearsonr(values, dsc)[0], spearmanr(values, dsc)[0], *within]
        cells.append(spearmanr(by_case(values), by_case(dsc))[0])
        print(f"| {name} |", " | ".join(f"{x:.2f}" for x in cells), end=" | ")
        error = 100 * _error(name, rows, learned, classes)
        print(
            f"{aurc(values, dsc):.4f} | {aurc(by_case(values), by_case(dsc)):.4f} | {error:.1f} |"
        )
    means = {row["case"]: row["mean"] for row in rows}.values()
    true = by_case(dsc)
    inside = [m.low <= t <= m.high for m, t in zip(means, true, strict=True)]
    widths = column["width"], [m.high - m.low for m in means]
    of_pairs, of_means = (f"mean width {100 * np.mean(x):.0f} points" for x in widths)
    print(
        f"the 90 % interval holds the DSC of {100 * np.mean(column['inside']):.0f} % of the pairs "
        f"({of_pairs}) and {100 * np.mean(inside):.0f} % of the case means ({of_means})"
    )


def _error(name, rows, learned, classes):
    """Mean absolute error of estimates that are learned from a signal; NaN of what is none."""
    if name == "estimate":
        return np.mean([abs(row["estimate"] - row["dsc"]) for row in rows])
    if name not in rows[0]:
        return np.nan

    def table(rows, key):
        return np.array([row[key] for row in rows], float).reshape(-1, len(classes))

    patients = [row["patient"] for row in learned[:: len(classes)]]
    calibration = calibrate(table(learned, name), table(learned, "dsc"), patients)
    errors = []
    for signal, dsc in zip(table(rows, name), table(rows, "dsc"), strict=True):
        found, _ = estimates(calibration, signal)
        errors += [abs((e.dsc if e else 0) - d) for e, d in zip(found, dsc, strict=True)]
    return np.mean(errors)


if __name__ == "__main__":
    main()
