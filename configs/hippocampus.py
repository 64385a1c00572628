"""MSD Task04 Hippocampus: MRI, about 35×50×36 voxels of 1 mm; 2 labelled volumes of 120.

python -m mijax.main --config configs/hippocampus.py --config.data.dir=Task04_Hippocampus
"""

from configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "hippocampus"
    config.steps = 1000
    config.labelled_batch = 8
    config.unlabelled_batch = 8
    config.evaluate_every = 250
    data = config.data
    data.size = (48, 64)
    data.labelled_cases = 2
    data.validation_cases = 20
    data.test_cases = 60
    # Scales differ by orders of magnitude between volumes, from 0–255 to 1.7 million.
    data.intensity = "zscore"
    augmentation = config.augmentation
    augmentation.rotation = 30.0
    augmentation.shear = 10.0
    augmentation.scale = (0.7, 1.4)
    augmentation.brightness = 0.4
    augmentation.contrast = 0.4
    augmentation.noise = 0.05
    return config
