"""Entropy minimisation (Vu et al., ADVENT, CVPR 2019)."""

from mijax.losses import entropy
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.parts import check_least, ramp

ROWS = {"entropy": Row("Entropy min.", 10, table1=True)}
QUANTITIES = {"entropy": Quantity("Entropy", "nats")}


def make(*, weight=1e-3, ramp_steps=0, shared_statistics=False):
    """L(labelled) + weight · mean pixel entropy of the unlabelled predictions.

    Args:
      weight: of the entropy; the authors of MIDL 2020 tried 1e-5 … 1e-3.
      ramp_steps: steps over which the weight grows to its value.
      shared_statistics: see ``Method``.
    """
    check_least(0, weight=weight, ramp_steps=ramp_steps)
    options = {"shared_statistics": True} if shared_statistics else {}

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        labelled, unlabelled = forward(
            params["network"], batch.image, batch.unlabelled, key=key, **options
        )
        logs = {
            "supervised": label_loss(labelled.logits, batch.label),
            "entropy": entropy(unlabelled.logits),
        }
        value = logs["supervised"] + weight * ramp(step, ramp_steps) * logs["entropy"]
        return value, Aux(labelled.batch_stats, logs)

    return Method(loss, unlabelled=True)
