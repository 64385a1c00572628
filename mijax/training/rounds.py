"""Rounds of a method that begins anew, several times, with what its best network says."""

import jax

from mijax import parallel
from mijax.errors import UserError
from mijax.inference.batching import predict_stacks


def round_starts(rounds, config):
    """Steps at which ``Rounds``, or None, begin, evenly spaced, each where a checkpoint is.

    Raises:
      UserError: if there are fewer checkpoints than rounds.
    """
    every, count = config.evaluate_every, rounds.count if rounds else 0
    starts = {-(-config.steps * i // ((count + 1) * every)) * every for i in range(1, count + 1)}
    if len(starts) < count or max(starts, default=0) >= config.steps:
        raise UserError(
            f"config.method.rounds ({count}) do not fit into config.steps ({config.steps}): each "
            f"begins at a multiple of config.evaluate_every ({every}); lower that"
        )
    return starts


def begin_round(experiment, state, weights, training_set):
    """The state with the memory of a new round.

    Args:
      experiment: ``Experiment`` of a method with rounds.
      state: ``TrainState`` at the end of a round.
      weights: of the best network so far.
      training_set: ``TrainingSet`` of arrays of the host.
    """
    network = experiment.network

    def predict(images):
        return next(predict_stacks(network.predict, weights, [images], batch=network.batch))

    memory = jax.device_get(state.memory)
    memory = experiment.method.rounds.refresh(memory, predict, training_set.unlabelled)
    return state._replace(memory=parallel.put(memory, network.mesh))
