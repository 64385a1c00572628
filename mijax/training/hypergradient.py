"""Weights of a method that learn by themselves, from validation slices (hyper-gradient)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mijax.training.optimizer import promoting


class Gradients(NamedTuple):
    """What comes of a loss: gradients of the parameters, value, ``methods.Aux``.

    ``hyper`` is the ``HyperState`` after the step, or None.
    """

    grads: Any
    value: jax.Array
    aux: Any
    hyper: Any = None


class HyperState(NamedTuple):
    """What of the weights is carried from step to step.

    Attributes:
      log_factors: {name: log of the weight over its start}.
      opt_state: of their optimiser.
    """

    log_factors: dict[str, jax.Array]
    opt_state: Any


class Hypergradient(NamedTuple):
    """The outer problem: the weights w for which a step lowers the validation loss most.

        θ(w) = θ + update(∇_θ L(θ, w)),    w ← w · exp(Adam(−w · d L_val(θ(w)) / d w))

    One step of the inner optimiser is unrolled and differentiated as it is, moments and all.
    Adam on the logarithm keeps a weight positive and makes the rate a relative one: at most
    about ``rate`` a step.

    Attributes:
      method: ``weights -> Method``, with values of {name: scalar} in the place of its own.
      start: {name: positive number}, the weights at the beginning.
      optimizer: Optax transformation of the log factors.
      batch: validation slices a step.

    Reference: Baydin et al., Online learning rate adaptation with hypergradient descent, ICLR
    2018; Liu et al., DARTS, ICLR 2019, eq. 6, for the step that is unrolled.
    """

    method: Callable
    start: dict[str, float]
    optimizer: optax.GradientTransformation
    batch: int

    def init(self):
        """``HyperState`` of the beginning."""
        log_factors = {name: jnp.zeros(()) for name in self.start}
        return HyperState(log_factors, self.optimizer.init(log_factors))

    def weights(self, state):
        """{name: weight} of an ``HyperState``."""
        return {name: self.start[name] * jnp.exp(x) for name, x in state.log_factors.items()}

    def update(self, state, slopes):
        """The ``HyperState`` after a step, from d L_val / d w."""
        slopes = jax.tree.map(jnp.multiply, self.weights(state), slopes)
        updates, opt_state = self.optimizer.update(slopes, state.opt_state)
        return HyperState(optax.apply_updates(state.log_factors, updates), opt_state)

    def gradients(self, state, held_out, *, gradients, updated, held_out_loss):
        """``Gradients`` of a step by the weights as they are, and the weights after it.

        Args:
          state: ``TrainState``.
          held_out: images and labels.
          gradients: ``Method -> Gradients``.
          updated: ``gradients -> params`` after the step.
          held_out_loss: ``(params, batch_stats, held_out) -> scalar``.
        """

        def by_weights(weights):
            found = gradients(self.method(weights))
            return found.grads, found

        weights = self.weights(state.hyper)
        grads, to_weights, found = jax.vjp(by_weights, weights, has_aux=True)
        slopes = jax.grad(
            lambda grads: held_out_loss(updated(grads), found.aux.batch_stats, held_out)
        )(grads)
        # Adam's square root has no derivative for a parameter that never had a gradient.
        slopes = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0.0), slopes)
        return found._replace(
            grads=grads,
            aux=found.aux._replace(logs=found.aux.logs | weights),
            hyper=self.update(state.hyper, to_weights(slopes)[0]),
        )


def make_hypergradient(method, hyperparameters, *, weights, rate, batch):
    """``Hypergradient`` of some weights of a method, with Adam.

    Args:
      method: ``weights -> Method``.
      hyperparameters: of the method, with the weights to begin with.
      weights: names of those that learn.
      rate: Adam's step, of the log factors.
      batch: validation slices a step.

    Raises:
      ValueError: for a name that is not a weight's, or a number that is not positive.
    """
    start = {k: v for k, v in hyperparameters.items() if "weight" in k and isinstance(v, float)}
    for name in weights:
        if name not in start:
            raise ValueError(f"there is no weight {name!r}, but {', '.join(start) or 'none'}")
        if not start[name] > 0:
            raise ValueError(f"{name} begins above 0, not at {start[name]}")
    if not (rate > 0 and batch > 0):
        raise ValueError(f"rate and batch are positive, not {rate} and {batch}")
    optimizer = promoting(optax.adam(rate))
    return Hypergradient(method, {name: start[name] for name in weights}, optimizer, batch)
