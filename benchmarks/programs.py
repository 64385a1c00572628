"""Programs of a configuration, lowered for a chip that is not there."""

import importlib
from typing import NamedTuple

import jax
import jax.numpy as jnp

from benchmarks.chips import CHIPS
from mijax import parallel
from mijax.inference.network import evaluated
from mijax.methods import Unlabelled
from mijax.training.batches import TrainingSet
from mijax.training.build import build
from mijax.training.ragged import Ragged

# Classes, labelled and unlabelled images as configs/CONFIG.py splits them; and, of volumes that
# patches are drawn from, rows and their width.
SETS = {
    "acdc": (4, 76, 1580, ()),
    "hippocampus3d": (3, 4, 116, (36 * 50, 96)),
    "spleen3d": (2, 4, 32, (95 * 512, 512)),
}


class Job(NamedTuple):
    """One program to compile: the train step of a method, or ``predict``."""

    chip: str
    devices: int
    method: str
    precision: str
    steps: int
    config: str = "acdc"

    @classmethod
    def of(cls, row):
        return cls(**{key: row[key] for key in cls._fields if key in row})

    def __str__(self):
        return " ".join(map(str, self))


def lower(job):
    """The program of a ``Job``, lowered."""
    module = importlib.import_module(f"mijax.configs.{job.config}")
    config = module.get_config("local_mi" if job.method == "predict" else job.method)
    config.precision = job.precision
    classes, labelled, unlabelled, volume = SETS[job.config]
    names = [f"class {n}" for n in range(classes)]
    experiment = build(
        config, classes=names, channels=1, devices=CHIPS[job.chip].devices(job.devices)
    )
    state = experiment.like(unlabelled)

    def array(dtype, *shape):
        sharding = parallel.replicated(experiment.mesh)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    def images(dtype, count, *channels):
        if config.data.patches.fit != "whole":
            return array(dtype, count, *config.data.patches.size, *channels)
        rows, width = volume
        places = array(jnp.int32, count), array(jnp.int32, count, 3)
        return Ragged(array(dtype, count * rows, width, *channels), *places)

    if job.method == "predict":
        network = experiment.network
        taken = array(jnp.float32, network.batch, *config.data.patches.size, 1)
        return network.predict.lower(evaluated(experiment.method, state), taken)
    image = label = others = None
    if not experiment.method.examination:
        kind = jnp.int32 if volume and CHIPS[job.chip].clock else jnp.uint8  # as ragged.packed
        image, label = images(jnp.float32, labelled, 1), images(kind, labelled)
    if experiment.method.unlabelled:
        rest = (array(dtype, unlabelled) for dtype in (jnp.float32, jnp.int32))
        others = Unlabelled(images(jnp.float32, unlabelled, 1), *rest)
    return experiment.train_step(job.steps).lower(state, TrainingSet(image, label, others))
