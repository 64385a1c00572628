"""Uncertainty-aware Mean Teacher (Yu et al., MICCAI 2019)."""

import math

import jax
import jax.numpy as jnp

from mijax.losses import squared_error
from mijax.losses.pointwise import wide
from mijax.methods import supervised
from mijax.methods.method import Quantity, Row
from mijax.methods.parts import check_least, ramp, with_consistency
from mijax.transforms import check_ranges, sample_view

ROWS = {"uamt": Row("UAMT", 30)}
QUANTITIES = {"certain": Quantity("Part of the pixels that is certain")}


def make(
    *,
    weight=1.0,
    ramp_steps=3000,
    passes=8,
    noise=0.1,
    decay=0.999,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
):
    """L(labelled) + weight · mean of ‖softmax f(T x) − T softmax f̄(x + ε)‖² where f̄ is certain.

    A pixel is certain where the entropy of T p̄ is below (3/4 + 1/4 · ramp) · ln k; p̄ is the
    mean of further passes of softmax f̄(x + ε), each with an ε and a dropout of its own. The
    dropout is that of the network, ``config.model.dropout``, without which passes differ by ε
    alone.

    T is not the paper's, which has ε alone: it is here so that Mean Teacher is this without
    noise and certainty. Rotation and shear 0, scale (1, 1) and no flip leave it out. The
    authors' release evaluates the student; here it is the teacher, as for Mean Teacher.

    Args:
      weight: of the consistency; the squared distance is summed over classes. The authors have
        0.1 of its mean over two classes, which is 0.05 here, and a decay of 0.99.
      ramp_steps: steps over which weight and threshold grow to their values; in the paper all
        steps of a run. 0 takes nearly every pixel for certain.
      passes: of which p̄ is the mean.
      noise: standard deviation of ε, Gaussian and clipped to twice that.
      decay: of the teacher, see ``with_teacher``.
      rotation, shear, scale, flip: of T, see ``sample_affine``.
    """
    check_least(1, passes=passes)
    check_least(0, noise=noise)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)

    def consistency(network, teacher, images, *, forward, step, key):
        view_key, noise_key, student_key, teacher_key = jax.random.split(key, 4)
        view = sample_view(view_key, images.shape[0], dims=images.ndim - 2, **ranges)
        normal = jax.random.normal(noise_key, (1 + passes, *images.shape), images.dtype)
        noisy = images[None] + noise * jnp.clip(normal, -2.0, 2.0)
        outputs = forward(teacher, *noisy, key=teacher_key)
        target, *others = (jax.nn.softmax(wide(output.logits)) for output in outputs)
        mean = view.apply(sum(others) / passes)
        uncertainty = jnp.sum(jax.scipy.special.entr(mean), axis=-1)
        threshold = (0.75 + 0.25 * ramp(step, ramp_steps)) * math.log(mean.shape[-1])
        inside = view.inside(images.shape[1:-1])
        mask = jnp.where(uncertainty < threshold, inside, 0)
        [student] = forward(network, view.apply(images), key=student_key)
        probs = jax.nn.softmax(student.logits)
        distance = squared_error(probs, view.apply(target), mask=mask)
        return distance, {"certain": jnp.sum(mask) / jnp.maximum(jnp.sum(inside), 1.0)}

    return with_consistency(
        supervised.make(), consistency, weight=weight, decay=decay, ramp_steps=ramp_steps
    )
