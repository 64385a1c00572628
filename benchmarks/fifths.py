"""Where along a structure runs are right: python -m benchmarks.fifths RUN [RUN …]

DSC by fifth of the slices that the annotation shows a class in, along the axis across
``config.data.patches.plane``: mean over classes, pooled over the voxels of all test cases (or,
without any, validation cases), on the native grid. One line a run of Markdown, for runs of slices
and of volumes alike; best checkpoint.
"""

import sys
from pathlib import Path

import numpy as np

from mijax import commands
from mijax.data import cut, read_splits
from mijax.inference import Predictor
from mijax.runs.source import open_data


def main(argv):
    """Prints the table."""
    print("| run | DSC | 1 | 2 | 3 | 4 | 5 |\n| --- |" + " ---: |" * 6)
    for folder in argv[1:]:
        predictor = Predictor(folder)
        config, splits = predictor.run.config, read_splits(Path(folder) / "splits.json")
        source = open_data(config)
        volumes = [source.volume(name) for name in splits.test or splits.validation]
        counts = np.zeros((5, len(source.classes), 2))
        for (labels, _), volume in zip(predictor.segment(volumes), volumes, strict=True):
            maps = (
                cut(x, volume.affine, plane=config.data.patches.plane)
                for x in (labels, volume.label)
            )
            counts += by_fifth(*maps, len(source.classes))
        shown = " | ".join(f"{100 * x:.1f}" for x in (dice(counts.sum(0)), *map(dice, counts)))
        print(f"| {Path(folder).name} | {shown} |")


def by_fifth(found, truth, classes):
    """(5, k, 2) twice the shared voxels, and the sum of both, of label maps (n, h, w).

    Slices count where their middles lie; beyond the annotation of any class, in the fifth that is
    nearest.
    """
    shown = np.flatnonzero(truth.any((1, 2)))
    place = np.clip(np.arange(len(truth)), shown[0], shown[-1])
    fifth = (2 * (place - shown[0]) + 1) * 5 // (2 * (shown[-1] + 1 - shown[0]))
    counts = np.zeros((5, classes, 2))
    for i in range(5):
        p, q = found[fifth == i], truth[fifth == i]
        for k in range(classes):
            counts[i, k] = 2 * ((p == k) & (q == k)).sum(), (p == k).sum() + (q == k).sum()
    return counts


def dice(counts):
    """Mean over the foreground classes that are somewhere, of (k, 2) counts."""
    shared, total = counts[1:].T
    return float(np.mean(shared[total > 0] / total[total > 0]))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    commands.run(main, arguments=True)
