"""Supervised training: full or partial, which are splits of the same method."""

from mijax.losses import cross_entropy
from mijax.methods.method import Aux, Method


def make():
    """Cross-entropy on the labelled slices (eq. 4), nothing else."""

    def loss(params, memory, batch, *, forward, step, key):
        output = forward(params["network"], batch.image, key=key)
        value = cross_entropy(output.logits, batch.label)
        return value, Aux(output.batch_stats, {"cross_entropy": value})

    return Method(loss)
