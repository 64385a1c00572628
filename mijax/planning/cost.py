"""What a training step takes: tried out with images of noise."""

import time
from typing import NamedTuple

import jax
import numpy as np

from mijax import parallel
from mijax.methods import Unlabelled
from mijax.training.batches import TrainingSet
from mijax.training.build import build
from mijax.training.ragged import packed


class Cost(NamedTuple):
    """Of one step.

    Attributes:
      bytes: of the device, of all that the program holds, the training set aside.
      seconds: of the faster of two steps; None where it was not run.
      compile_seconds: of the program.
      steps: of the run.
    """

    bytes: int
    seconds: float | None
    compile_seconds: float
    steps: int


def step_cost(config, *, classes, channels, most):
    """The ``Cost`` of a configuration's training step.

    Args:
      config: of a run.
      classes: names, background first.
      channels: of an image.
      most: bytes above which it is compiled and not run, or None.
    """
    experiment = build(config, classes=classes, channels=channels)
    draw, size, box = np.random.default_rng(0), config.data.patches.size, experiment.cropping.box

    def images(count):
        shape = (count, *(box or size))
        image = draw.normal(size=(*shape, channels)).astype(np.float32)
        label = draw.integers(len(classes), size=shape).astype(np.uint8)
        if box:
            return packed(list(image), box=box), packed(list(label), box=box)
        return image, label

    count = config.unlabelled_batch
    others = None
    if experiment.method.unlabelled:
        zeros = np.zeros(count, np.float32)
        others = Unlabelled(images(count)[0], zeros, zeros.astype(np.int32))
    labelled = (None, None) if experiment.method.examination else images(config.labelled_batch)
    held_out = images(experiment.batches.held_out) if experiment.batches.held_out else None
    training_set = TrainingSet(*labelled, others, held_out)
    training_set = parallel.put(training_set, experiment.mesh)
    state = experiment.init(config.seed, count if others else 0)
    began = time.monotonic()
    step = experiment.train_step(1).lower(state, training_set).compile()
    compiled = time.monotonic() - began
    of_state = sum(x.nbytes for x in jax.tree.leaves(state))
    taken = int(step.memory_analysis().temp_size_in_bytes + of_state)
    if most is not None and taken > most:
        return Cost(taken, None, compiled, config.steps)
    seconds = []
    for _ in range(3):
        began = time.monotonic()
        state, _ = jax.block_until_ready(step(state, training_set))
        seconds.append(time.monotonic() - began)
    return Cost(taken, min(seconds[1:]), compiled, config.steps)
