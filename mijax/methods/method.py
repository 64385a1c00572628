"""The record that every training method is."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Batch(NamedTuple):
    """Augmented slices of one step.

    Attributes:
      image: (b, h, w, c) labelled images.
      label: (b, h, w) their labels.
      unlabelled: (u, h, w, c) images, or None where the method asks for none.
    """

    image: jax.Array
    label: jax.Array
    unlabelled: jax.Array | None


class Output(NamedTuple):
    """What ``forward`` gives: logits (b, h, w, k), features by name, new running statistics."""

    logits: jax.Array
    features: dict[str, jax.Array]
    batch_stats: Any


class Aux(NamedTuple):
    """What a loss gives besides its value: new running statistics, and scalars to log."""

    batch_stats: Any
    logs: dict[str, jax.Array]


class Method(NamedTuple):
    """A training method as pure functions.

    ``params`` is ``{"network": …, **heads}``, all of it optimised; ``memory`` is whatever
    else the method carries from step to step (a teacher, pseudo-labels): checkpointed, not
    differentiated.

    Attributes:
      loss: ``(params, memory, batch, *, forward, step, key) -> (scalar, Aux)``, where
        ``forward(network, images, *, key, streams=None) -> Output`` runs the network in
        training mode; ``streams`` are counts of images with BatchNorm statistics of their own.
      init: ``(key, network, batch_stats) -> (heads, memory)``.
      update: ``(memory, params, batch_stats, step) -> memory``, after the optimiser;
        ``step`` counts from 0.
      predictor: ``(params, batch_stats, memory) -> (network, batch_stats)``, what is
        evaluated.
      copies: forward passes an unlabelled image takes part in; 0 for a method that looks at
        labelled images alone and is given no others.
    """

    loss: Callable
    init: Callable = lambda key, network, batch_stats: ({}, {})
    update: Callable = lambda memory, params, batch_stats, step: memory
    predictor: Callable = lambda params, batch_stats, memory: (params["network"], batch_stats)
    copies: int = 0
