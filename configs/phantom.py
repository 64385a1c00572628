"""Volumes drawn from a seed, no download: the whole system in about three minutes on two cores.

python -m mijax.main --config configs/phantom.py
"""

from mijax.configs import common

OF_METHOD = {
    # A decay of 0.999 averages over more steps than there are.
    "mean_teacher": {"decay": 0.99},
    "uamt": {"decay": 0.99},
    "ict": {"decay": 0.99},
    "local_contrast": {"rounds": 1},  # with as many validations as there are
}


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "phantom"
    config.steps = 400
    config.warmup_steps = 20
    config.evaluate_every = 200
    config.model.widths = (8, 16, 32, 64)
    config.method.update(OF_METHOD.get(method, {}))
    data = config.data
    data.source.name = "phantom"
    data.source.patients = 60  # that are drawn, of one volume each
    data.source.seed = 0  # of the drawing
    data.source.shape = (48, 48, 8)  # voxels of a volume
    data.patches.size = (48, 48)
    data.splits.labelled = 2
    data.splits.validation = 6
    data.splits.test = 12
    return config
