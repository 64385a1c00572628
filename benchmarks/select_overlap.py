"""What choices are worth as atlases: python -m benchmarks.select_overlap DATA FOLDER [RUN …]

The label map of each training patient's first scan is laid over that of each other one, without
registration, and the DSC (mean over classes) says how alike the two are. A choice of N scores the
mean over the other patients of the DSC with the most alike of the N: what an atlas would reach that
always knew the right one. By embedding (the descriptor, its blocks, the features of each RUN): the
correlation of distance with 1 − DSC over all pairs; then for each N the mean of 300 random draws,
the correlation of their coverage with their score, and the score of each strategy with the share of
the draws that it exceeds.
"""

import sys

import numpy as np
from scipy import stats

from benchmarks.select import CONFIGS, NUMBERS, dealt, protocol
from benchmarks.select_report import STRATEGIES, embeddings
from mijax import commands
from mijax.data.patches import slice_volume
from mijax.runs.source import open_data
from mijax.selection.choice import coverage, pairwise

DRAWS, _HEIGHTS = 300, 24  # slices that each volume is brought to


def main():
    data, folder, *runs = sys.argv[1:]
    config = protocol(data, folder, "supervised")
    commands.prepare_jax(config)
    source = open_data(config)
    _, scans = dealt(data, source.cases)
    alike = overlaps([label_of(source, names[0], config) for names in scans.values()])
    pairs = np.triu_indices(len(alike), 1)
    print(f"mean DSC of two patients {alike[pairs].mean():.3f}")
    config.data.patches = CONFIGS[data].get_config("supervised").data.patches
    for name, embedding in embeddings(config, scans, runs).items():
        distances = pairwise(embedding)
        rank = stats.spearmanr(distances[pairs], -alike[pairs]).statistic
        print(f"{name}: distance and 1 − DSC {rank:+.2f}")
        for number in NUMBERS:
            print("  ", of_number(embedding, distances, alike, number), flush=True)


def label_of(source, name, config):
    """(k − 1, pixels) of the classes of a scan, at ``_HEIGHTS`` of its slices."""
    label = slice_volume(source.volume(name), config.data.patches).label
    places = (np.arange(_HEIGHTS) + 0.5) / _HEIGHTS * len(label)
    label = label[places.astype(int)].ravel()
    return np.stack([label == k for k in range(1, len(source.classes))]).astype(np.float32)


def overlaps(labels):
    """(p, p) DSC of any two, mean over classes."""
    found = 0.0
    for of_class in np.stack(labels, axis=1):
        sizes = of_class.sum(1)
        found += 2 * of_class @ of_class.T / np.maximum(sizes[:, None] + sizes, 1)
    return found / len(labels[0])


def of_number(embedding, distances, alike, number):
    """The line of one N."""

    def score(chosen):
        others = np.setdiff1d(np.arange(len(alike)), chosen)
        return alike[np.ix_(others, chosen)].max(1).mean()

    random = np.random.default_rng(number)
    draws = [random.permutation(len(alike))[:number] for _ in range(DRAWS)]
    scores = np.array([score(chosen) for chosen in draws])
    covered = [-coverage(distances, chosen) for chosen in draws]
    text = [
        f"N = {number}: random {scores.mean():.3f} ± {scores.std(ddof=1):.3f}, with coverage "
        f"{stats.spearmanr(covered, scores).statistic:+.2f}"
    ]
    for name, choose in STRATEGIES.items():
        own = score(choose(embedding, number))
        text.append(f"{name} {own:.3f} ({(scores < own).mean():.0%})")
    return "; ".join(text)


if __name__ == "__main__":
    main()
