"""Cross Pseudo Supervision (Chen et al., CVPR 2021)."""

import jax
import jax.numpy as jnp

from mijax.losses import cross_entropy
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.parts import check_least, ramp

ROWS = {"cross_pseudo": Row("Cross pseudo supervision", 32)}
QUANTITIES = {
    "other_supervised": Quantity("Loss of the labelled slices, other network"),
    "cross_pseudo": Quantity("Cross pseudo supervision", "nats"),
}


def make(*, weight=1.0, ramp_steps=0):
    """Σ over two networks f, g: L(f, labels) + weight · CE(f, argmax g), and f and g swapped.

    The networks differ in their initial weights; with ``config.init_from`` both have the given
    ones, and differ in those of their classifiers, as the paper's two share a pre-trained backbone
    and have heads of their own. CE to each other's hard labels, which carry no
    gradient, is a mean over labelled images plus one over unlabelled ones, as in the paper; the
    release takes one mean over both. The first network is evaluated.

    Args:
      weight: λ; the authors take 1.5 (VOC) and 6 (Cityscapes) of their one mean.
      ramp_steps: steps over which the weight grows to its value; the authors have no ramp.
    """
    check_least(0, weight=weight, ramp_steps=ramp_steps)

    def init(key, start):
        return {"other": start.another(key)}, {}

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        first, second = (
            forward(params[name], batch.image, batch.unlabelled, key=k)
            for name, k in zip(("network", "other"), jax.random.split(key), strict=True)
        )
        logs = {
            "supervised": label_loss(first[0].logits, batch.label),
            "other_supervised": label_loss(second[0].logits, batch.label),
            "cross_pseudo": sum(
                cross_entropy(f.logits, jnp.argmax(g.logits, axis=-1))
                for f, g in zip(first + second, second + first, strict=True)
            ),
        }
        supervised = logs["supervised"] + logs["other_supervised"]
        value = supervised + weight * ramp(step, ramp_steps) * logs["cross_pseudo"]
        return value, Aux(first[0].batch_stats, logs)

    return Method(loss, init, unlabelled=True)
