"""ACDC at a size that two CPU cores can train, in less than an hour of a core a run.

As configs/acdc.py, but for slices resized to 128², crops of 80², a U-Net of half the widths, 3,000
steps of 6 labelled and 6 unlabelled slices, cross-entropy + Dice, and an augmentation that is
worth several points where three patients are labelled. Of the protocol and of mixed_mi several
settings were tried, on the validation patients, of other methods one at most: benchmarks/ACDC.md.

python -m mijax.main --config configs/acdc_small.py --config.data.source.dir=FOLDER
"""

from mijax.configs import acdc

# The heart lies the same way in every scan: flips would teach that left is right.
_VIEW = {"rotation": 20.0, "shear": 0.0, "scale": (0.8, 1.25), "flip": 0.0}
_RAMP = {"ramp_steps": 500}
OF_METHOD = {
    "local_mi": {**_VIEW, **_RAMP},
    "mean_teacher": {**_VIEW, **_RAMP, "decay": 0.99},
    "uamt": {**_VIEW, "ramp_steps": 1000, "decay": 0.99},
    "ict": {**_RAMP, "decay": 0.99},
    "cross_pseudo": _RAMP,
    "fixmatch": {**_VIEW, **_RAMP},
    "unimatch": _RAMP,
    "strong_mi": {**_VIEW, **_RAMP},
    "mixed_mi": {**_VIEW, **_RAMP, "mi_weight": 0.2, "focus": 5},
    "global_local_mi": {**_VIEW, **_RAMP},
    "boundary_iic": {**acdc.OF_METHOD["boundary_iic"], "flip": 0.0},
}


def get_config(method="local_mi"):
    config = acdc.get_config(method)
    config.name = "acdc_small"
    config.steps = 3000
    config.warmup_steps = 100
    config.evaluate_every = 500
    config.log_every = 100
    config.learning_rate = 3e-3
    config.label_loss = "cross_entropy+dice"
    config.labelled_batch = 6
    config.unlabelled_batch = 6
    config.model.widths = (8, 16, 32, 64, 128)
    config.method.update(OF_METHOD.get(method, {}))
    data = config.data
    data.patches.size = (128, 128)
    data.splits.labelled = 3
    data.splits.validation = 10
    data.splits.test = 20
    augmentation = config.augmentation
    augmentation.crop = (80, 80)
    augmentation.rotation = 30.0
    augmentation.scale = (0.75, 1.3)
    augmentation.brightness = 0.1
    augmentation.contrast = 0.3
    augmentation.gamma = 0.4
    augmentation.noise = 0.1
    return config
