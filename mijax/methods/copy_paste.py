"""Bidirectional copy-paste between labelled and unlabelled images (Bai et al., CVPR 2023)."""

import jax
import jax.numpy as jnp

from mijax.errors import UserError
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.parts import check_decay, check_least, first_teacher, follow
from mijax.transforms import largest_components, paste, place_boxes

ROWS = {"copy_paste": Row("Copy-paste", 35)}
QUANTITIES = {
    "labelled": Quantity("Loss of the labelled regions"),
    "copied": Quantity("Loss of the other regions, with pseudo-labels"),
}


def check_batches(labelled, unlabelled):
    """Refuses numbers of images that cannot be mixed.

    Raises:
      UserError: for these.
    """
    if labelled % 2 or unlabelled < labelled:
        raise UserError(
            "copy_paste mixes an even number of labelled images with as many unlabelled ones: "
            f"config.labelled_batch {labelled} and config.unlabelled_batch {unlabelled} do not do"
        )


def make(*, weight=0.5, pretrain_steps=0, side=2 / 3, decay=0.99, largest=True):
    """Σ over two mixtures: L(labelled region) + weight · L(pseudo-labelled region).

        in  = u_a·M + x_a·(1 − M)      out = x_b·M + u_b·(1 − M)

    x_a and x_b are the halves of the labelled images, u_a and u_b those of as many unlabelled
    ones (what there is beside them is not used), and M is 0 in one box a batch and 1 outside it.
    The pseudo-labels are argmax f̄(u), of each class the largest connected region of a slice. For
    the first ``pretrain_steps`` both mixtures are x_b·M + x_a·(1 − M), with their labels, and the
    mean of the two is taken.

    f̄ is the teacher; the student is evaluated, as the authors do, with the statistics of ``in``
    alone. Their L is half of
    ``config.label_loss=cross_entropy+squared_dice``. They pre-train in a run of its own, from
    whose best checkpoint by validation they go on; here it is the beginning of the same run.

    Args:
      weight: of the pseudo-labelled region.
      pretrain_steps: see above; the authors take 10,000 and then 30,000 steps.
      side: of M, as a part of the height and width of the frame.
      decay: of the teacher, see ``with_teacher``.
      largest: whether pseudo-labels are cut down to their largest connected regions.
    """
    check_least(0, weight=weight, pretrain_steps=pretrain_steps)
    if not 0 < side <= 1:
        raise ValueError(f"side is above 0 and at most 1, not {side}")
    check_decay(decay)

    def init(key, start):
        return {}, first_teacher(start)

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        count, others = batch.image.shape[0], batch.unlabelled.shape[0]
        check_batches(count, others)
        unlabelled = batch.unlabelled[:count]
        box_key, teacher_key, student_key = jax.random.split(key, 3)
        teacher = jax.lax.stop_gradient(memory["network"])
        [taught] = forward(teacher, unlabelled, key=teacher_key)
        pseudo = jnp.argmax(taught.logits, axis=-1)
        if largest:
            pseudo = largest_components(pseudo, taught.logits.shape[-1])
        (x_a, x_b), (y_a, y_b), (u_a, u_b), (v_a, v_b) = (
            jnp.split(x, 2) for x in (batch.image, batch.label, unlabelled, pseudo)
        )
        pretrains = step < pretrain_steps
        inner, outer = jnp.where(pretrains, x_b, u_a), jnp.where(pretrains, x_a, u_b)
        inner_label = jnp.where(pretrains, y_b, v_a.astype(y_b.dtype))
        outer_label = jnp.where(pretrains, y_a, v_b.astype(y_a.dtype))
        box = place_boxes(box_key, jnp.full((1, x_a.ndim - 2), side), x_a.shape[1:-1])
        box = jnp.broadcast_to(box, y_a.shape)
        mixtures = forward(
            params["network"], paste(box, inner, x_a), paste(box, x_b, outer), key=student_key
        )
        into, onto = (output.logits for output in mixtures)
        labelled = label_loss(into, y_a, mask=box) + label_loss(onto, y_b, mask=1 - box)
        other = label_loss(into, inner_label, mask=1 - box)
        other = other + label_loss(onto, outer_label, mask=box)
        value = jnp.where(pretrains, (labelled + other) / 2, labelled + weight * other)
        return value, Aux(mixtures[0].batch_stats, {"labelled": labelled, "copied": other})

    def update(memory, params, batch_stats, step):
        return follow(memory, params, batch_stats, step, decay=decay)

    return Method(loss, init, update, unlabelled=True)
