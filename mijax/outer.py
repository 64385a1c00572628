"""Weights of a method that learn by themselves, from validation slices (hyper-gradient)."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class OuterState(NamedTuple):
    """What of the weights is carried from step to step.

    Attributes:
      log_factors: {name: log of the weight over its start}.
      opt_state: of their optimiser.
    """

    log_factors: dict[str, jax.Array]
    opt_state: Any


class Outer(NamedTuple):
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
        """``OuterState`` of the beginning."""
        log_factors = {name: jnp.zeros(()) for name in self.start}
        return OuterState(log_factors, self.optimizer.init(log_factors))

    def weights(self, state):
        """{name: weight} of an ``OuterState``."""
        return {name: self.start[name] * jnp.exp(x) for name, x in state.log_factors.items()}

    def update(self, state, gradients):
        """The ``OuterState`` after a step, from d L_val / d w."""
        slopes = jax.tree.map(jnp.multiply, self.weights(state), gradients)
        updates, opt_state = self.optimizer.update(slopes, state.opt_state)
        return OuterState(optax.apply_updates(state.log_factors, updates), opt_state)


def make_outer(method, hyperparameters, *, weights, rate, batch):
    """``Outer`` of some weights of a method, with Adam.

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
    return Outer(method, {name: start[name] for name in weights}, optax.adam(rate), batch)
