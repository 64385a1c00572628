"""MSD Task04 Hippocampus: MRI, about 35×50×36 voxels of 1 mm; 2 labelled volumes of 120.

python -m mijax.main --config configs/hippocampus.py --config.data.dir=Task04_Hippocampus
"""

from configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "hippocampus"
    config.steps = 1500
    config.evaluate_every = 250
    data = config.data
    data.size = (48, 64)
    data.labelled_cases = 2
    data.validation_cases = 20
    data.test_cases = 60
    # Intensity scales differ by orders of magnitude between scanners, noise and position little.
    data.intensity = "percentile"
    augmentation = config.augmentation
    augmentation.rotation = 15.0
    augmentation.scale = (0.85, 1.18)
    augmentation.brightness = 0.1
    augmentation.contrast = 0.2
    augmentation.gamma = 0.2
    return config
