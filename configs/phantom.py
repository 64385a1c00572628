"""Volumes drawn from a seed, no download: the whole system in a minute or two on two cores.

python -m mijax.main --config configs/phantom.py
"""

from configs import common


def get_config(method="local_mi"):
    config = common.get_config(method)
    config.name = "phantom"
    config.steps = 600
    config.log_every = 50
    config.evaluate_every = 150
    config.model.widths = (8, 16, 32, 64)
    data = config.data
    data.source = "phantom"
    data.patients = 60
    data.seed = 0
    data.shape = (64, 64, 8)
    data.size = (64, 64)
    data.labelled_cases = 2
    data.validation_cases = 6
    data.test_cases = 12
    return config
