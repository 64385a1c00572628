"""What every configuration starts from; a configuration file changes what it must."""

import os

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from mijax import methods

# Of methods whose authors name one: a phase, and over which part of the steps it goes, 1 over it.
PHASES = {
    "alternate_teachers": ("ramp_steps", 4),
    "copy_paste": ("pretrain_steps", 4),
    "uamt": ("ramp_steps", 1),
}


def get_config(method):
    """Defaults of everything, with the method and its own defaults filled in."""
    config = ConfigDict(
        {
            "name": "",
            "seed": 0,
            "plan": False,  # whether what no flag says is planned from the data: mijax.plan
            "cache": os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "mijax"),
            # training
            "steps": 3000,
            "label_loss": "cross_entropy",  # dice, squared_dice, cross_entropy+dice, …
            "labelled_batch": 4,
            "unlabelled_batch": 10,
            "optimizer": "adam",  # adam or sgd
            "learning_rate": 1e-3,
            "warmup_steps": 100,
            "schedule": "cosine",  # cosine or polynomial, of the learning rate
            "momentum": 0.9,  # for optimizer=sgd
            "weight_decay": 0.0,
            "precision": "float32",  # float32 or bfloat16, of activations
            "steps_per_dispatch": 0,  # steps a call of the device; 0: 1 on a CPU, else log_every
            "stream": placeholder(bool),  # slices from host memory; unset: only if they do not fit
            "log_every": 50,
            "evaluate_every": 500,  # and save; a multiple of log_every
            "predict_batch": 16,
            "method": {"name": method, **methods.defaults(method)},
            # a Mean Teacher on top of any method but of pre-training; decay 0: none
            "teacher": methods.teacher_defaults() | {"decay": 0.0},
            "hypergradient": {  # lets weights of the method learn from the validation cases
                "weights": (),  # their names, such as ("mi_weight", "consistency_weight")
                "rate": 0.01,  # a step changes a weight by at most about this part of it
                "batch": 16,  # validation slices a step
            },
            "init_from": "",  # folder of a run whose weights to begin with, classifier aside
            "grow_from": "",  # folder of a run whose cases to go on with; see --grow
            "model": {
                "widths": (16, 32, 64, 128, 256),  # of each level, from the finest down
                "strides": (),  # into each level below the first, 1 or 2 by axis; empty: 2
                "kernels": (),  # of each level, 1 or 3 by axis; empty: 3
                "norm": "batch",  # batch or instance
                "dropout": 0.0,
                "encoder_dropout": (),  # of each level; empty: none
                "deep_supervision": False,  # the label loss at coarser levels of the decoder too
                "remat": False,  # less memory and more time
            },
            "data": {
                "source": {
                    "name": "folder",
                    "dir": "",  # folder of the data
                    "follow_links": False,  # whether files in dir may be links to files elsewhere
                },
                "splits": {
                    "file": "",  # a splits.json to use instead of drawing one
                    "seed": 0,  # of the draw
                    "labelled": 4,  # patients; 0: all that have labels. The rest is unlabelled
                    "validation": 5,  # patients
                    "test": 0,  # patients; 0: scores are those of the validation cases
                },
                "annotation": {  # of volumes that were annotated in part
                    "file": "",  # a JSON file: slices that were annotated, classes that were drawn
                    "empty_is_unlabelled": False,  # slices that are background all over
                },
                "patches": {  # what the network sees of the volumes
                    "dims": 2,  # 2: slices; 3: a volume is one 3-D image, predicted in windows
                    "plane": "axial",  # of the slices, which the depth of a 3-D image is across
                    "size": (256, 256),  # height and width; depth, height and width with dims=3
                    "fit": "pad",  # pad, crop or resize; or whole, of which patches are drawn
                    "spacing": placeholder(float),  # in-plane mm to resample to first
                    "depth_spacing": placeholder(float),  # likewise mm a slice, with dims=3
                    "intensity": "percentile",  # percentile, minmax, zscore or window
                    "window": (-160.0, 240.0),  # native units, for intensity=window
                    "percentiles": (1.0, 99.0),  # for intensity=percentile
                    "bias_correction": False,  # N4, for MRI; takes seconds a volume
                },
            },
            # of labelled and unlabelled training slices alike
            "augmentation": {
                "crop": (),  # (depth,) height and width, at a random place; empty: none
                "foreground": 0.0,  # part of the labelled crops that is centred on a structure
                "rotation": 20.0,  # degrees, up to ±; in-plane
                "tilt": 0.0,  # likewise out of the plane, with dims=3; at 0 depth is not scaled
                "shear": 0.0,  # degrees, up to ±
                "scale": (1.0, 1.0),
                "flip": 0.0,  # probability with which each axis is flipped
                "quarter_turns": False,
                "brightness": 0.0,  # added, up to ±
                "contrast": 0.0,  # factor, up to exp(±)
                "gamma": 0.0,  # exponent, up to exp(±)
                "noise": 0.0,  # standard deviation, up to
                "blur": 0.0,  # standard deviation in pixels, up to
            },
        }
    )
    if method in PHASES:
        phase, part = PHASES[method]
        config.method[phase] = config.get_oneway_ref("steps") // part
    return config
