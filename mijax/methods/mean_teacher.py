"""Mean Teacher for segmentation (Perone and Cohen-Adad, 2018; Tarvainen and Valpola, 2017)."""

import jax
import jax.numpy as jnp

from mijax.losses import cross_entropy, squared_error
from mijax.methods.method import Aux, Method
from mijax.methods.parts import forward_streams, ramp
from mijax.transforms import check_ranges, sample_view


def make(
    *,
    weight=1.0,
    decay=0.999,
    ramp_steps=0,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=True,
    shared_statistics=False,
):
    """CE(labelled) + weight · ‖softmax f(T x) − T softmax f̄(x)‖², f̄ the teacher.

    The teacher is the moving average of the student's weights and of its BatchNorm
    statistics, and it is the teacher that is evaluated. Its targets carry no gradient.

    Args:
      weight: of the consistency; the squared distance is summed over classes.
      decay: of the average, after a warm-up: min(1 − 1/(t + 1), decay) at step t.
      ramp_steps: steps over which the weight grows to its value.
      rotation, shear, scale, flip: of T, see ``local_mi.make``.
      shared_statistics: see ``forward_streams``.
    """
    if not 0 <= decay <= 1:
        raise ValueError(f"decay is between 0 and 1, not {decay}")
    check_ranges(rotation=rotation, shear=shear, scale=scale)

    def init(key, network, batch_stats):
        # A copy: shared buffers could not be donated with the student's.
        return {}, jax.tree.map(jnp.copy, {"network": network, "batch_stats": batch_stats})

    def loss(params, memory, batch, *, forward, step, key):
        view_key, student_key, teacher_key = jax.random.split(key, 3)
        images = batch.unlabelled
        view = sample_view(
            view_key, images.shape[0], rotation=rotation, shear=shear, scale=scale, flip=flip
        )
        (logits, student), batch_stats = forward_streams(
            forward,
            params["network"],
            [batch.image, view.apply(images)],
            key=student_key,
            shared_statistics=shared_statistics,
        )
        teacher = jax.nn.softmax(forward(memory["network"], images, key=teacher_key).logits)
        target = jax.lax.stop_gradient(view.apply(teacher))
        # T leaves the frame where T of an image of ones does.
        mask = view.apply(jnp.ones_like(images[..., :1]))[..., 0] > 1 - 1e-3
        supervised = cross_entropy(logits, batch.label)
        distance = squared_error(jax.nn.softmax(student), target, mask=mask)
        return supervised + weight * ramp(step, ramp_steps) * distance, Aux(
            batch_stats, {"cross_entropy": supervised, "consistency": distance}
        )

    def update(memory, params, batch_stats, step):
        rate = jnp.minimum(1 - 1 / (step + 1), decay)
        student = {"network": params["network"], "batch_stats": batch_stats}
        return jax.tree.map(lambda old, new: rate * old + (1 - rate) * new, memory, student)

    def predictor(params, batch_stats, memory):
        return memory["network"], memory["batch_stats"]

    return Method(loss, init, update, predictor, copies=1)
