"""What every configuration starts from; a configuration file changes what it must."""

import os

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mijax import methods


def get_config(method):
    """Defaults of everything, with the method and its own defaults filled in."""
    return ConfigDict(
        {
            "name": "",
            "seed": 0,
            "cache": os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "mijax"),
            # training
            "steps": 3000,
            # or dice, or cross_entropy+dice, or with squared_dice (V-Net's) in the place of dice
            "label_loss": "cross_entropy",
            "labelled_batch": 4,
            "unlabelled_batch": 10,
            "optimizer": "adam",  # or sgd
            "learning_rate": 1e-3,
            "warmup_steps": 100,
            "schedule": "cosine",  # of the learning rate; or polynomial
            "momentum": 0.9,  # for optimizer=sgd
            "weight_decay": 0.0,
            "precision": "float32",  # of activations; or bfloat16
            "steps_per_dispatch": 0,  # 0: 1 on a CPU, log_every elsewhere
            "stream": placeholder(bool),  # training slices from the host; unset: if they must
            "log_every": 50,
            "evaluate_every": 500,  # and save; a multiple of log_every
            "predict_batch": 16,
            "method": {"name": method, **methods.defaults(method)},
            # a Mean Teacher on top of any method; decay 0: none
            "teacher": methods.teacher_defaults() | {"decay": 0.0},
            # weights of the method that learn from the validation cases, by hyper-gradient:
            # names as in method, such as ("mi_weight", "consistency_weight"); empty: none
            "hypergradient": {"weights": (), "rate": 0.01, "batch": 16},
            "init_from": "",  # folder of a run whose weights to begin with, classifier aside
            "model": {"widths": (16, 32, 64, 128, 256), "dropout": 0.0, "encoder_dropout": ()},
            "data": {
                "source": {
                    "name": "folder",
                    "dir": "",
                    "follow_links": False,  # whether files in dir may be links to files elsewhere
                },
                "splits": {  # numbers of patients; the rest is unlabelled
                    "file": "",  # a splits.json to use instead of drawing one
                    "seed": 0,
                    "labelled": 4,  # 0: all that have labels
                    "validation": 5,
                    "test": 0,  # 0: scores are those of the validation cases
                },
                "slices": {  # made of the volumes
                    "plane": "axial",
                    "size": (256, 256),
                    "fit": "pad",  # or crop (or pad, as need be), or resize
                    "spacing": placeholder(float),  # in-plane mm to resample to first
                    "intensity": "percentile",  # or minmax, zscore, window
                    "window": (-160.0, 240.0),  # native units, for intensity=window
                    "percentiles": (1.0, 99.0),  # for intensity=percentile
                    "bias_correction": False,  # N4, for MRI; seconds a volume, once, then stored
                },
            },
            # of labelled and unlabelled training slices alike
            "augmentation": {
                "crop": (),  # height and width; empty: none
                "rotation": 20.0,  # degrees
                "shear": 0.0,  # degrees
                "scale": (1.0, 1.0),
                "flip": False,
                "quarter_turns": False,
                "brightness": 0.0,
                "contrast": 0.0,
                "gamma": 0.0,
                "noise": 0.0,
                "blur": 0.0,  # standard deviation in pixels
            },
        }
    )
