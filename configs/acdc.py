"""ACDC, short-axis cine MRI of the heart: right ventricle, myocardium, left ventricle.

As in the paper, by patient: 100 patients with two scans each, of which 4 (8 scans) are labelled,
83 (166) unlabelled and 13 (26) for validation. The paper's 167 and 25 scans are odd numbers, so
the two scans of one patient were on both sides there; here they never are. Slices are resized
to 256², augmented by crops of 224² and rotations of ±20°; Adam 1e-3, 100 epochs of 300 steps.
The paper does not say how intensities are scaled: percentiles 1 and 99 of a volume, as for MRI
elsewhere here.

Register at https://www.creatis.insa-lyon.fr/Challenge/acdc/, download and unpack the database
from https://humanheart-project.creatis.insa-lyon.fr/database/, then, with the folder that holds
training/patient001, training/patient002, …:

python -m mijax.main --config configs/acdc.py --config.data.source.dir=FOLDER
"""

from mijax.configs import common

OF_METHOD = {"boundary_iic": {"edge_gamma": 0.75}}  # as its authors have it for ACDC


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "acdc"
    config.steps = 30_000
    config.warmup_steps = 3000
    config.evaluate_every = 1000
    config.method.update(OF_METHOD.get(method, {}))
    data = config.data
    data.source.name = "acdc"
    data.source.testing = False  # whether patients 101 to 150 are taken too
    data.patches.size = (256, 256)
    data.patches.fit = "resize"
    data.patches.intensity = "percentile"
    data.splits.labelled = 4
    data.splits.validation = 13
    data.splits.test = 0
    augmentation = config.augmentation
    augmentation.crop = (224, 224)
    augmentation.rotation = 20.0
    return config
