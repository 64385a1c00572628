"""UniMatch, weak to strong consistency of images and features (Yang et al., CVPR 2023)."""

import jax
import jax.numpy as jnp

from mijax.methods import supervised
from mijax.methods.method import Quantity, Row
from mijax.methods.mixing import (
    check_pseudo,
    dropped_channels,
    mixed_view,
    next_image,
    pseudo_label_loss,
)
from mijax.methods.parts import check_least, with_consistency
from mijax.transforms import check_boxes, paste

ROWS = {"unimatch": Row("UniMatch", 34)}
QUANTITIES = {
    "pseudo_label": Quantity("Distance to pseudo-labels"),
    "strong": Quantity("Distance to pseudo-labels, strong views"),
    "features": Quantity("Distance to pseudo-labels, dropped features"),
    "kept": Quantity("Part of the pixels with a pseudo-label"),
}


def make(
    *,
    weight=2.0,
    strong_weight=0.5,
    feature_weight=0.5,
    threshold=0.95,
    pseudo_loss="dice",
    decay=0.0,
    ramp_steps=0,
    feature_dropout=0.5,
    complementary=False,
    box_probability=0.5,
    box_area=(0.02, 0.4),
    box_aspect=(0.3, 1 / 0.3),
    brightness=0.2,
    contrast=0.5,
    gamma=0.0,
    noise=0.0,
    blur=2.0,
):
    """L(labelled) + weight · [strong_weight · ½ Σ D(Sᵢ u) + feature_weight · D(features of u)].

    D holds a prediction to argmax q where max q ≥ threshold; q = softmax f̄(u), without a gradient,
    is the prediction for the image as it was drawn, weakly augmented. S₁ and S₂ change
    intensities, each in its own way, and into each a box of the next image of the batch is pasted,
    with its targets (CutMix). The third view is u itself, with channels of what the encoder hands
    to the decoder dropped.

    The authors' L(labelled) is half of ``config.label_loss=cross_entropy+squared_dice``, so that
    their weight of 1 is 2 here. S is ``jitter_intensity`` in place of torchvision's ColorJitter
    and Pillow's blur, and the box comes from the same batch in place of another. BatchNorm
    statistics are apart for each view, and the prediction that makes the targets is in training
    mode for both images of a mixture.

    Supervised training with the strong views on top; hyperparameters as of ``with_strong_views``.
    """
    return with_strong_views(
        supervised.make(),
        weight=weight,
        strong_weight=strong_weight,
        feature_weight=feature_weight,
        threshold=threshold,
        pseudo_loss=pseudo_loss,
        decay=decay,
        ramp_steps=ramp_steps,
        feature_dropout=feature_dropout,
        complementary=complementary,
        box_probability=box_probability,
        box_area=box_area,
        box_aspect=box_aspect,
        brightness=brightness,
        contrast=contrast,
        gamma=gamma,
        noise=noise,
        blur=blur,
    )


def with_strong_views(
    method,
    *,
    weight,
    strong_weight,
    feature_weight,
    threshold,
    pseudo_loss,
    decay,
    ramp_steps,
    feature_dropout,
    complementary=False,
    box_probability,
    box_area,
    box_aspect,
    brightness,
    contrast,
    gamma,
    noise,
    blur,
):
    """A method with UniMatch's terms for the unlabelled images on top: + weight · […].

    Args:
      method: ``Method``.
      weight: λ.
      strong_weight, feature_weight: of the two strong views together and of the features, within λ.
      threshold: τ, least probability of a pseudo-label.
      pseudo_loss: D; "dice", with squares in the denominator, or "cross_entropy", the mean over
        the pixels that count, times their part of all, as UniMatch V2.
      decay: of the teacher f̄ that makes the targets and is evaluated, see ``with_teacher``; with 0
        it is the network itself, as the authors have it. V2 takes 0.996.
      ramp_steps: steps over which the weight grows to its value; the authors have no ramp.
      feature_dropout: rate of the channel dropout of the features.
      complementary: drop channels of the two strong views, those of the one that stay in the
        other, rather than of a third view, as V2; feature_weight is then not used, and
        feature_dropout is 0.5. V2 leaves half of the images as they are, and its teacher is in
        evaluation mode.
      box_probability, box_area, box_aspect: of the boxes, see ``sample_boxes``.
      brightness, contrast, gamma, noise, blur: of S, see ``jitter_intensity``.

    Returns:
      ``Method``, with memory as of ``with_teacher``.

    Raises:
      ValueError: for values that do not do.
    """
    check_least(0, strong_weight=strong_weight, feature_weight=feature_weight)
    check_pseudo(threshold=threshold, pseudo_loss=pseudo_loss)
    if not 0 <= feature_dropout < 1:
        raise ValueError(f"feature_dropout is at least 0 and below 1, not {feature_dropout}")
    if complementary and feature_dropout != 0.5:
        raise ValueError(f"feature_dropout is 0.5 where complementary, not {feature_dropout}")
    boxes = {"area": box_area, "aspect": box_aspect, "probability": box_probability}
    check_boxes(**boxes)
    jitter = {
        "brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise,
        "blur": blur,
    }  # fmt: skip
    check_least(0, **jitter)

    def consistency(network, teacher, images, *, forward, step, key):
        weak_key, student_key, drop_key, *view_keys = jax.random.split(key, 5)
        [taught] = forward(teacher, images, key=weak_key)
        weak = jax.nn.softmax(taught.logits)
        confidence, target = jnp.max(weak, axis=-1), jnp.argmax(weak, axis=-1)
        views, targets = [], []
        for view_key in view_keys:
            view, inside = mixed_view(view_key, images, jitter=jitter, boxes=boxes)
            views.append(view)
            targets.append([paste(inside, x, next_image(x)) for x in (target, confidence)])
        weights = [strong_weight / 2, strong_weight / 2]
        if not complementary:
            views.append(images)
            targets.append([target, confidence])
            weights.append(feature_weight)

        def perturb(stream, name, feature):
            kept = dropped_channels(drop_key, name, feature.shape, feature_dropout)
            if complementary:
                kept = (kept, 2 - kept)[stream]
            elif stream < 2:
                return feature
            return feature * kept.astype(feature.dtype)

        outputs = forward(network, *views, key=student_key, perturb=perturb)
        distances = [
            pseudo_label_loss(output.logits, label, sure >= threshold, kind=pseudo_loss)
            for output, (label, sure) in zip(outputs, targets, strict=True)
        ]
        logs = {"strong": (distances[0] + distances[1]) / 2}
        if not complementary:
            logs["features"] = distances[2]
        logs["kept"] = jnp.mean(confidence >= threshold)
        return sum(w * d for w, d in zip(weights, distances, strict=True)), logs

    method = with_consistency(
        method, consistency, weight=weight, decay=decay, ramp_steps=ramp_steps, name="pseudo_label"
    )
    return method._replace(least_unlabelled=2)
