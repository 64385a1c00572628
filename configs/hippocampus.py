"""MSD Task04 Hippocampus: MRI, about 35×50×36 voxels of 1 mm; 4 labelled volumes.

python -m mijax.main --config configs/hippocampus.py --config.data.source.dir=Task04_Hippocampus
"""

from mijax.configs import common

# A T that the labelled images are augmented by as well; half of them are never upside down.
_VIEW = {"rotation": 15.0, "scale": (0.9, 1.1), "flip": 0.0}
_INTENSITY = {"brightness": 0.2, "contrast": 0.4, "noise": 0.1}  # of the transformed copy
_RAMP = {"ramp_steps": 600}  # of 800 steps, whatever config.steps: first all is background

OF_METHOD = {  # chosen on validation cases, see benchmarks/ACCURACY.md
    "mean_teacher": {**_VIEW, **_RAMP, "decay": 0.99, "weight": 2.0},
    "uamt": {**_VIEW, **_RAMP, "decay": 0.99, "weight": 3.0},
    "ict": {**_RAMP, "decay": 0.99, "weight": 3.0},
    "cross_pseudo": _RAMP,
    "fixmatch": {**_VIEW, **_RAMP, "gamma": 0.0},
    "local_mi": {
        **_VIEW,
        **_INTENSITY,
        **_RAMP,
        "weight": 1.0,
        "mi_weight": 0.01,
        "stop_gradient": True,
        "temperature": 0.1,
    },
    "global_local_mi": {
        **_VIEW,
        **_INTENSITY,
        **_RAMP,
        "consistency_weight": 3.0,
        "mi_weight": 0.03,
        "radius": (0, 1, 1),
        "subheads": 2,
    },
    "mixed_mi": {**_VIEW, **_RAMP},  # as FixMatch; not tuned
    "strong_mi": {**_VIEW, **_RAMP},  # likewise
    "boundary_iic": {"flip": 0.0, "gamma": 0.0},
}


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "hippocampus"
    config.steps = 800
    config.warmup_steps = 50
    config.learning_rate = 5e-3
    config.label_loss = "cross_entropy+dice"  # by cross-entropy alone a rare class may die
    config.labelled_batch = 8
    config.unlabelled_batch = 8
    config.evaluate_every = 200
    config.model.widths = (8, 16, 32, 64, 128)  # small images
    config.method.update(OF_METHOD.get(method, {}))
    if method == "boundary_iic":
        config.unlabelled_batch = 16
        config.learning_rate = 2e-3
    data = config.data
    data.patches.size = (48, 64)
    data.splits.labelled = 4
    data.splits.validation = 20
    data.splits.test = 60
    # Scales differ by orders of magnitude between volumes, from 0–255 to 1.7 million.
    data.patches.intensity = "zscore"
    augmentation = config.augmentation
    augmentation.rotation = 30.0
    augmentation.shear = 10.0
    augmentation.scale = (0.7, 1.4)
    augmentation.brightness = 0.4
    augmentation.contrast = 0.4
    augmentation.noise = 0.05
    return config
