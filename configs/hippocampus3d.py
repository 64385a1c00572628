"""MSD Task04 Hippocampus in three dimensions: a volume of 1 mm voxels is one image.

As configs/hippocampus.py, with the same splits, and without its tuned values of the methods.

python -m mijax.main --config configs/hippocampus3d.py --config.data.source.dir=Task04_Hippocampus
"""

from mijax.configs import hippocampus


def get_config(method="local_mi"):
    config = hippocampus.get_config(method)
    config.name = "hippocampus3d"
    config.labelled_batch = 2
    config.unlabelled_batch = 2
    config.predict_batch = 2
    config.model.widths = (8, 16, 32, 64)
    config.data.slices.dims = 3
    config.data.slices.size = (48, 48, 64)
    return config
