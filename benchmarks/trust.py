"""What the estimates of a run are worth: python -m benchmarks.trust RUN [--split validation]

For each signal, of the test cases: its correlation with the true DSC (Pearson and Spearman, over
all pairs of case and class, and Spearman within classes and over cases), and the area under the
risk–coverage curve (AURC): the mean of 1 − DSC over the most trusted share of the pairs, averaged
over all shares, the lower the better. Of the calibrated estimate besides: its mean absolute error,
and how often the interval holds the true DSC. Signals were chosen by --split validation alone,
where the estimate is that of a fit to these very cases.
"""

import argparse

import numpy as np
from scipy.stats import pearsonr, spearmanr

from mijax.data import read_splits
from mijax.inference import Predictor
from mijax.inference.signals import SIGNALS, shape
from mijax.inference.trust import read_trust, trust
from mijax.metrics import dice
from mijax.runs.source import open_data


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("run")
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    options = parser.parse_args()
    predictor = Predictor(options.run)
    source, known = open_data(predictor.run.config), read_trust(predictor.run)
    names = getattr(read_splits(predictor.run.folder / "splits.json"), options.split)
    volumes = [source.volume(name) for name in names]
    looks = list(predictor.look(volumes))
    last = [labels for labels, _ in predictor.at("last").segment(volumes)]
    rows = []
    for volume, one, other in zip(volumes, looks, last, strict=True):
        found = trust(known, one, volume.affine, source.classes)
        of = {"classes": len(source.classes)}
        true, checkpoints = dice(one.labels, volume.label, **of), dice(one.labels, other, **of)
        own = shape(one.labels, volume.affine, **of)
        for i, name in enumerate(source.classes[1:]):
            values, estimate = found.signals[name], found.classes[name]
            typical = known["annotated"][name]["log_volume"]
            rows.append(
                {
                    "case": volume.name,
                    "class": name,
                    "dsc": true[i],
                    "estimate": estimate.dsc,
                    "inside": estimate.low <= true[i] <= estimate.high,
                    "width": estimate.high - estimate.low,
                    "mean": found.mean,
                    **{s: values[s] for s in SIGNALS},
                    "checkpoints": checkpoints[i],
                    "volume": typical and -abs(np.log(max(own["volume_ml"][i], 1e-3)) - typical[0]),
                    "pieces": -own["pieces"][i],
                }
            )
            rows[-1]["entropy"] *= -1
    _print(rows, source.classes[1:], options)


def aurc(signal, dsc):
    """Area under the risk–coverage curve, the risk being 1 − DSC."""
    risks = 1 - dsc[np.argsort(-signal, kind="stable")]
    return float(np.mean(np.cumsum(risks) / np.arange(1, len(risks) + 1)))


def _print(rows, classes, options):
    column = {key: [row[key] for row in rows] for key in rows[0]}
    dsc, kinds = np.array(column["dsc"]), np.array(column["class"])
    cases = list(dict.fromkeys(column["case"]))
    of_case = np.array([cases.index(name) for name in column["case"]])

    def by_case(values):
        return np.bincount(of_case, values) / np.bincount(of_case)

    print(f"{options.run}: {len(cases)} {options.split} cases, mean DSC {100 * dsc.mean():.1f} %")
    print("| signal | Pearson | Spearman |", " | ".join(f"{c}" for c in classes), end="")
    print(" | cases | AURC | AURC, cases |\n" + "|---" * (len(classes) + 6) + "|")
    perfect = dsc + 0.0
    for name in ("estimate", *SIGNALS, "checkpoints", "volume", "pieces", "the DSC itself"):
        values = perfect if name == "the DSC itself" else np.array(column[name], float)
        # A class that was not found is trusted least by every signal, as by the estimate.
        values = np.where(np.isnan(values), np.nanmin(values) - 1e-6, values)
        within = [spearmanr(values[kinds == c], dsc[kinds == c])[0] for c in classes]
        cells = [pearsonr(values, dsc)[0], spearmanr(values, dsc)[0], *within]
        cells.append(spearmanr(by_case(values), by_case(dsc))[0])
        print(f"| {name} |", " | ".join(f"{x:.2f}" for x in cells), end=" | ")
        print(f"{aurc(values, dsc):.4f} | {aurc(by_case(values), by_case(dsc)):.4f} |")
    error = np.abs(dsc - np.array(column["estimate"]))
    means = {row["case"]: row["mean"] for row in rows}.values()
    true = by_case(dsc)
    inside = [m.low <= t <= m.high for m, t in zip(means, true, strict=True)]
    print(
        f"estimate: mean absolute error {100 * error.mean():.1f} points; the 90 % interval holds "
        f"the DSC of {100 * np.mean(column['inside']):.0f} % of the pairs (mean width "
        f"{100 * np.mean(column['width']):.0f} points) and {100 * np.mean(inside):.0f} % of the "
        f"case means ({100 * np.mean([m.high - m.low for m in means]):.0f} points)"
    )


if __name__ == "__main__":
    main()
