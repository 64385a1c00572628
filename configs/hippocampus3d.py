"""MSD Task04 Hippocampus in three dimensions: patches of volumes of 1 mm voxels.

As configs/hippocampus.py, of whose slices the values of the methods were chosen, but for 400
steps of patches of 2 labelled and 2 unlabelled volumes.

python -m mijax.main --config configs/hippocampus3d.py --config.data.source.dir=Task04_Hippocampus
"""

from mijax.configs import hippocampus

OF_METHOD = {
    method: {**values, **({"ramp_steps": 300} if "ramp_steps" in values else {})}
    for method, values in hippocampus.OF_METHOD.items()
}


def get_config(method="local_mi"):
    config = hippocampus.get_config(method)
    config.name = "hippocampus3d"
    config.steps = 400
    config.evaluate_every = 100
    config.labelled_batch = 2
    config.unlabelled_batch = 2
    config.predict_batch = 2
    config.model.widths = (8, 16, 32, 64)
    config.method.update(OF_METHOD.get(method, {}))
    config.data.patches.dims = 3
    config.data.patches.size = (32, 40, 48)  # most of a volume; all would be padded to twice that
    config.data.patches.fit = "whole"
    return config
