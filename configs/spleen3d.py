"""MSD Task09 Spleen in three dimensions: patches of CT volumes of 1.6 × 0.8 × 0.8 mm, on a GPU.

The cases of configs/spleen.py. Spacing, patch, network and batch are those that nnU-Net plans
for this set (its 192 voxels are front–back, ours left–right); intensities are those of a window of
soft tissue.

python -m mijax.main --config configs/spleen3d.py
"""

from mijax.configs import spleen
from mijax.models import plan_levels

_SPACING, _PATCH, _WIDTHS = (1.6, 0.8, 0.8), (64, 192, 160), (32, 64, 128, 256, 320, 320)


def get_config(method="local_mi"):
    config = spleen.get_config(method)
    config.name = "spleen3d"
    config.labelled_batch = 2
    config.unlabelled_batch = 2
    config.predict_batch = 2
    config.label_loss = "cross_entropy+dice"
    config.precision = "bfloat16"
    strides, kernels = plan_levels(_SPACING, _PATCH, depth=len(_WIDTHS))
    config.model.widths = _WIDTHS
    config.model.strides = strides
    config.model.kernels = kernels
    config.model.norm = "instance"
    config.model.remat = True
    patches = config.data.patches
    patches.dims = 3
    patches.size = _PATCH
    patches.fit = "whole"
    patches.depth_spacing, patches.spacing = _SPACING[:2]
    patches.intensity = "window"
    augmentation = config.augmentation
    augmentation.foreground = 0.33
    augmentation.rotation = 30.0
    augmentation.scale = (0.7, 1.4)
    augmentation.brightness = 0.1
    augmentation.contrast = 0.25
    augmentation.gamma = 0.3
    augmentation.noise = 0.1
    return config
