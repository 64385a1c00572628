"""PROMISE12, transversal T2 MRI of the prostate: 7 labelled, 33 unlabelled, 10 validation patients.

As in the paper; slices are resized to 256². The paper does not say how prostates are augmented:
rotations of ±10°, flips, crops (of 224², a shift of ±16 pixels) and brightness and contrast
±10 % are those of its authors' later release. Adam 1e-3, 100 epochs of 300 steps; intensities
by percentiles 1 and 99 of a volume.

Register at https://promise12.grand-challenge.org/, download and unpack the training data from
https://zenodo.org/records/8026660, then, with the folder that holds Case00.mhd, … or the unpacked
parts with them:

python -m mijax.main --config configs/promise12.py --config.data.source.dir=FOLDER
"""

from mijax.configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "promise12"
    config.steps = 30_000
    config.warmup_steps = 3000
    config.evaluate_every = 1000
    data = config.data
    data.source.name = "promise12"
    data.source.testing = False  # whether cases of a folder TestData are taken too
    data.patches.size = (256, 256)
    data.patches.fit = "resize"
    data.patches.intensity = "percentile"
    data.splits.labelled = 7
    data.splits.validation = 10
    data.splits.test = 0
    augmentation = config.augmentation
    augmentation.crop = (224, 224)
    augmentation.rotation = 10.0
    augmentation.flip = 0.5
    augmentation.brightness = 0.1
    augmentation.contrast = 0.1
    return config
