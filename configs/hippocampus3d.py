"""MSD Task04 Hippocampus in three dimensions: a volume of 1 mm voxels is one image.

As configs/hippocampus.py, of whose slices the values of the methods were chosen.

python -m mijax.main --config configs/hippocampus3d.py --config.data.source.dir=Task04_Hippocampus
"""

from mijax.configs import hippocampus

OF_METHOD = hippocampus.OF_METHOD


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
