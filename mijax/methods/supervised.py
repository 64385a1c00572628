"""Supervised training: full or partial, which are splits of the same method."""

from mijax.methods.method import Aux, Method


def make():
    """The loss of the labelled slices (eq. 4: cross-entropy), nothing else."""

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        [output] = forward(params["network"], batch.image, key=key)
        value = label_loss(output.logits, batch.label)
        return value, Aux(output.batch_stats, {"supervised": value})

    return Method(loss)
