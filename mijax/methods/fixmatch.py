"""FixMatch, weak to strong consistency (Sohn et al., NeurIPS 2020), for segmentation."""

import jax
import jax.numpy as jnp

from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.mixing import pseudo_label_loss
from mijax.methods.parts import check_least, check_threshold, ramp
from mijax.transforms import check_ranges, jitter_intensity, sample_view

ROWS = {"fixmatch": Row("FixMatch", 33)}
QUANTITIES = {
    "pseudo_cross_entropy": Quantity("Cross-entropy to pseudo-labels", "nats"),
    "kept": Quantity("Part of the pixels with a pseudo-label"),
}


def make(
    *,
    weight=1.0,
    threshold=0.95,
    ramp_steps=0,
    brightness=0.2,
    contrast=0.4,
    gamma=0.4,
    noise=0.1,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
):
    """L(labelled) + weight · mean of 1[max q ≥ threshold] · CE(f(J T x), argmax q).

    q = T softmax f(x), without a gradient, is the prediction for the image as it was drawn,
    weakly augmented. J changes intensities; J and T are in place of the authors' RandAugment
    and Cutout. The mean is over all pixels inside the frame, those below the threshold too.
    The authors evaluate a moving average of the weights: ``config.teacher`` with weight 0.

    Args:
      weight: λ_u.
      threshold: τ, least probability of a pseudo-label.
      ramp_steps: steps over which the weight grows to its value; the authors have no ramp.
      brightness, contrast, gamma, noise: of J, see ``jitter_intensity``.
      rotation, shear, scale, flip: of T, see ``sample_affine``.
    """
    check_threshold(threshold)
    strengths = {"brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise}
    check_least(0, weight=weight, ramp_steps=ramp_steps, **strengths)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        view_key, jitter_key, strong_key, weak_key = jax.random.split(key, 4)
        images, network = batch.unlabelled, params["network"]
        view = sample_view(view_key, images.shape[0], dims=images.ndim - 2, **ranges)
        [weak] = forward(jax.lax.stop_gradient(network), images, key=weak_key)
        probs = view.apply(jax.nn.softmax(weak.logits))
        inside = view.inside(images.shape[1:-1])
        sure = jnp.max(probs, axis=-1) >= threshold
        kept = jnp.sum(jnp.where(sure, inside, 0)) / jnp.maximum(jnp.sum(inside), 1.0)
        strong = jitter_intensity(jitter_key, view.apply(images), **strengths)
        labelled, strong = forward(network, batch.image, strong, key=strong_key)
        pseudo = pseudo_label_loss(
            strong.logits, jnp.argmax(probs, axis=-1), sure, inside=inside, kind="cross_entropy"
        )
        supervised = label_loss(labelled.logits, batch.label)
        logs = {"supervised": supervised, "pseudo_cross_entropy": pseudo, "kept": kept}
        value = supervised + weight * ramp(step, ramp_steps) * pseudo
        return value, Aux(labelled.batch_stats, logs)

    return Method(loss, unlabelled=True)
