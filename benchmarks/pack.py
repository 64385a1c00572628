"""Packs a data set into one small file of arrays: python -m benchmarks.pack --config FILE OUTPUT

    python -m benchmarks.pack --config configs/acdc.py --config.data.source.dir=FOLDER acdc.npz

Then --config.data.source.name=arrays --config.data.source.dir=acdc.npz trains on it, on a machine
that has neither TFDS nor the folder. Grids and labels stay as they are, and images without a
correction of their bias field. Intensities are clipped at the percentiles 0.1 and 99.9 of a volume
and rounded to so many levels between them, which is all that is lost.
"""

from pathlib import Path

import numpy as np
from absl import flags
from ml_collections import config_flags

from mijax import commands
from mijax.data import write_arrays
from mijax.runs.source import open_data


def main(argv):
    """Writes the file."""
    values = flags.FLAGS
    if values.config is None or len(argv) != 2:
        commands.fail("needs --config FILE and an OUTPUT")
    values.config.data.patches.bias_correction = False  # or it would be corrected again when read
    source, output = open_data(values.config), Path(argv[1])
    volumes = ((case, quantised(source.volume(case.name), values.levels)) for case in source.cases)
    write_arrays(output, volumes, classes=source.classes)
    print(f"{output}: {len(source.cases)} cases, {output.stat().st_size / 2**20:.1f} MiB")


def quantised(volume, levels):
    """The volume with an image of so many values, in the unit it has: a window still fits it."""
    low, high = np.percentile(volume.image, [0.1, 99.9])
    step = max(high - low, 1e-6) / (levels - 1)
    image = low + step * np.clip(np.round((volume.image - low) / step), 0, levels - 1)
    # Neighbours in memory are neighbours in a slice, and LZMA finds more to do.
    return volume._replace(image=np.asfortranarray(image, np.float32))


def define_flags():
    config_flags.DEFINE_config_file("config", None, "configuration file, for its data")
    flags.DEFINE_integer("levels", 64, "intensities of a volume", lower_bound=2)


if __name__ == "__main__":
    commands.run(main, define_flags, arguments=True)
