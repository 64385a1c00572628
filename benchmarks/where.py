"""Where runs are wrong, and how sure they are: python -m benchmarks.where RUN [RUN …]

Of the best checkpoint of each run, over its test cases (or, without any, its validation cases), one
line a run of Markdown:

- DSC by class, and of all classes in the lowest fifth of the slices that the annotation shows a
  class in, in the three in the middle, and in the highest: pooled over the pixels of all cases.
- Agreement with the annotation and with itself under T: the part of the pixels, foreground by
  annotation or prediction, whose most probable class is the annotated one, or the one that is found
  after a rotation of ±20° and a scale of 0.8 to 1.25 and back. On slices, not on the native grid.
- Confidence on the same pixels, and the expected calibration error in 15 bins of it.

--data_dir=FOLDER where the data have moved.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from absl import flags

from mijax import commands
from mijax.data import read_splits
from mijax.data.patches import slice_volume
from mijax.errors import UserError
from mijax.inference import Predictor
from mijax.inference.batching import predict_stacks
from mijax.runs.folder import open_run
from mijax.runs.source import open_data
from mijax.transforms import sample_view

BINS = 15
PARTS = ("low", "middle", "high")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "folder of the data", allow_override=True)


def main(argv):
    """Prints the table."""
    lines = []
    for folder in argv[1:]:
        run = open_run(folder)
        if _DATA_DIR.value:
            run.config.data.source.dir = _DATA_DIR.value
        lines.append((Path(folder).name, examine(run)))
    names = list(dict.fromkeys(name for _, found in lines for name in found))
    print("| run | " + " | ".join(names) + " |")
    print("| --- |" + " ---: |" * len(names))
    for label, found in lines:
        print(f"| {label} | " + " | ".join(f"{100 * found[name]:.1f}" for name in names) + " |")


def examine(run):
    """What the table says of a run, by name, as fractions."""
    source = open_data(run.config)
    splits = read_splits(run.folder / "splits.json")
    if run.config.data.patches.dims != 2:
        raise UserError(f"{run.folder} predicts volumes; these measures are of slices")
    predictor = Predictor(run)
    network = predictor.network
    names = splits.test or splits.validation
    cuts = [slice_volume(source.volume(name), run.config.data.patches) for name in names]
    images = np.concatenate([cut.image for cut in cuts])
    truth = np.concatenate([cut.label for cut in cuts])
    parts = np.concatenate([part_of(cut.label) for cut in cuts])
    view = sample_view(jax.random.key(0), len(images), rotation=20.0, scale=(0.8, 1.25))

    def predict(stack):
        weights, batch = predictor.weights, network.batch
        return next(predict_stacks(network.predict, weights, [stack], batch=batch))

    probs = predict(images)
    again = np.asarray(view.restore(predict(np.asarray(view.apply(images)))))
    inside = np.asarray(view.mask(images.shape[1:3])) > 0
    return measures(probs, again, inside, truth, parts, source.classes)


def part_of(label):
    """For each slice of a case: 0, 1 or 2 where the annotation lies low, in the middle or high.

    −1 where it shows no class.
    """
    shown = np.flatnonzero(label.any((1, 2)))
    where = np.full(len(label), -1)
    fifth = (2 * np.arange(len(shown)) + 1) * 5 // max(2 * len(shown), 1)  # by their middles
    where[shown] = np.array([0, 1, 1, 1, 2])[fifth]
    return where


def measures(probs, again, inside, truth, parts, classes):
    """The measures of ``--help`` of some slices.

    Args:
      probs, again: (n, h, w, k) probabilities, and those under T, brought back.
      inside: (n, h, w), whether a pixel stayed inside the frame under T.
      truth: (n, h, w).
      parts: (n,), see ``part_of``.
      classes: names, background first.
    """
    found = probs.argmax(-1)
    result = {name: dice(found, truth, [k]) for k, name in enumerate(classes) if k}
    kinds = range(1, len(classes))
    for i, name in enumerate(PARTS):
        result[f"{name} slices"] = dice(found[parts == i], truth[parts == i], kinds)
    region = (found > 0) | (truth > 0)
    right, sure = (found == truth)[region], probs.max(-1)[region]
    result["annotation"] = right.mean()
    result["itself under T"] = (found == again.argmax(-1))[region & inside].mean()
    result["confidence"] = sure.mean()
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    off = np.abs(np.bincount(bins, right - sure, BINS))
    result["calibration error"] = off.sum() / len(sure)
    return result


def dice(found, truth, kinds):
    """Mean over classes of the DSC of all pixels together; 0 of one that is nowhere."""
    scores = []
    for k in kinds:
        both = ((found == k) & (truth == k)).sum()
        scores.append(2 * both / max((found == k).sum() + (truth == k).sum(), 1))
    return float(np.mean(scores))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    commands.run(main, arguments=True)
