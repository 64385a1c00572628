"""MSD Task09 Spleen as in the paper: 4 labelled, 32 unlabelled, 5 validation patients.

Portal-venous CT, min–max to [0, 1], axial slices of 512². Downloads itself (1.5 GB) unless
--config.data.source.dir names the folder.

python -m mijax.main --config configs/spleen.py
"""

from mijax.configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "spleen"
    config.steps = 30_000
    config.warmup_steps = 3000
    config.evaluate_every = 1000
    data = config.data
    data.source.name = "spleen"
    data.patches.size = (512, 512)
    data.patches.fit = "resize"
    data.patches.intensity = "minmax"
    data.splits.labelled = 4
    data.splits.validation = 5
    data.splits.test = 0
    return config
