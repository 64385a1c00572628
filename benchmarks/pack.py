"""Packs a data set into one small file of arrays: python -m benchmarks.pack --config FILE OUTPUT

    python -m benchmarks.pack --config configs/acdc.py --config.data.source.dir=FOLDER acdc.npz

Then --config.data.source.name=arrays --config.data.source.dir=acdc.npz trains on it, on a machine
that has neither TFDS nor the folder. Grids and labels stay as they are. Intensities are clipped at
the percentiles 0.1 and 99.9 of a volume and rounded to so many levels, which is all that is lost.
"""

from pathlib import Path

import numpy as np
from absl import app, flags
from ml_collections import config_flags

from mijax.data import write_arrays
from mijax.runs.source import open_data

_CONFIG = config_flags.DEFINE_config_file("config")
_LEVELS = flags.DEFINE_integer("levels", 64, "intensities of a volume, at most 256")


def main(argv):
    source = open_data(_CONFIG.value)
    volumes = ((case, quantised(source.volume(case.name))) for case in source.cases)
    write_arrays(Path(argv[1]), volumes, classes=source.classes)
    print(f"{argv[1]}: {len(source.cases)} cases, {Path(argv[1]).stat().st_size / 2**20:.1f} MiB")


def quantised(volume):
    """The volume with an image of uint8."""
    low, high = np.percentile(volume.image, [0.1, 99.9])
    scaled = (volume.image - low) / max(high - low, 1e-6) * (_LEVELS.value - 1)
    image = np.clip(scaled, 0, _LEVELS.value - 1).round().astype(np.uint8)
    # Neighbours in memory are neighbours in a slice, and LZMA finds more to do.
    return volume._replace(image=np.asfortranarray(image))


if __name__ == "__main__":
    app.run(main)
