"""Supervised training: full or partial, which are splits of the same method."""

from mijax.methods.method import FULL, PARTIAL, Aux, Method, Row

ROWS = {
    "full": Row(FULL, 0, {"data.splits.labelled": 0}, table1=True),
    "partial": Row(PARTIAL, 1, table1=True),
}


def make():
    """The loss of the labelled slices (eq. 4: cross-entropy), nothing else."""

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        [output] = forward(params["network"], batch.image, key=key)
        value = label_loss(output.logits, batch.label)
        return value, Aux(output.batch_stats, {"supervised": value})

    return Method(loss)
