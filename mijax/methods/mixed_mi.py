"""Local mutual information between predictions that differ: under mixing, and a teacher's."""

import functools

import jax
import jax.numpy as jnp

from mijax.losses import kl_to_logits, local_mutual_information
from mijax.losses.pointwise import wide
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.mixing import (
    check_pseudo,
    dropped_channels,
    mixed_view,
    next_image,
    pseudo_label_loss,
)
from mijax.methods.parts import (
    check_decay,
    check_least,
    first_teacher,
    follow,
    is_used,
    ramp,
)
from mijax.transforms import check_boxes, check_ranges, paste, sample_view

ROWS = {
    "mixed_without_mi": Row("Mixing without MI", 54, {"method.mi_weight": 0.0}),
    "mixed_mi": Row("Mixed MI", 55),
}
QUANTITIES = {
    "mutual_information": Quantity("Mutual information", "nats"),
    "pseudo_label": Quantity("Distance to pseudo-labels"),
    "kl": Quantity("KL divergence from the teacher", "nats"),
    "prior": Quantity("KL divergence of the classes", "nats"),
    "kept": Quantity("Part of the pixels with a pseudo-label"),
}


def make(
    *,
    weight=2.0,
    mi_weight=0.1,
    consistency_weight=0.0,
    pseudo_weight=1.0,
    prior_weight=0.0,
    feature_weight=0.0,
    feature_dropout=0.5,
    between="teacher",
    radius=1,
    focus=0,
    marginal_weight=1.0,
    threshold=0.95,
    pseudo_loss="dice",
    decay=0.99,
    ramp_steps=0,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
    box_probability=0.5,
    box_area=(0.02, 0.4),
    box_aspect=(0.3, 1 / 0.3),
    brightness=0.2,
    contrast=0.5,
    gamma=0.0,
    noise=0.0,
    blur=2.0,
):
    """L(labelled) + weight · ½ Σᵢ [pseudo_weight · D − mi_weight · I(pᵢ; qᵢ) + consistency …].

    The local mutual information of Peng et al., MIDL 2020, where the two predictions of a pixel
    are made under conditions in which the network does disagree with itself: p₁ and p₂ are those
    for two strong views of T u, each with a box of another image pasted in (CutMix), and qᵢ is T of
    the teacher's prediction for u as it was drawn, pasted alike. D holds pᵢ to argmax qᵢ where qᵢ
    is sure, as UniMatch does, and the consistency is KL(qᵢ ‖ pᵢ). Each of the terms may be left
    out by its weight, so that this without MI is mi_weight 0. Pixels that T brought in from outside
    the frame count in none of them.

    Args:
      weight: λ, of all that follow.
      mi_weight: of the local mutual information, within λ.
      consistency_weight: of KL(qᵢ ‖ pᵢ), within λ.
      pseudo_weight: of D, within λ.
      prior_weight: of KL(π ‖ p̄), which holds the mean prediction p̄ of the unlabelled images, of
        what T left in the frame, to the classes' part π of the labelled ones that are annotated all
        over, within λ. T takes out borders: where the structures lie in the middle, right
        predictions have a p̄ of more foreground than π, by a sixth with the default ranges.
      feature_weight: of a third view beside the two, each of which has ½: T u, with channels of
        what the encoder hands to the decoder dropped. UniMatch has 1, and half of λ; 0 is none.
      feature_dropout: rate of the channel dropout of the third view.
      between: "teacher", I(pᵢ; qᵢ), or "views", I(p₁; p₂) on the pixels that neither box covers.
      radius: of the window of displacements; 1 is 3 × 3.
      focus: pixels round the foreground of q within which pixels count for the mutual information,
        so that background does not outweigh everything; 0 for all pixels.
      marginal_weight: of the marginals in the mutual information (IIC's lamb).
      threshold: τ, least probability of a pseudo-label.
      pseudo_loss: D, see ``unimatch``.
      decay: of the teacher, which is evaluated, see ``with_teacher``; 0 is the network itself.
      ramp_steps: steps over which the weight grows to its value.
      rotation, shear, scale, flip: of T, see ``sample_affine``; one T an image, for both views.
      box_probability, box_area, box_aspect: of the boxes, see ``sample_boxes``.
      brightness, contrast, gamma, noise, blur: of the strong views, see ``jitter_intensity``.
    """
    terms = {
        "weight": weight, "mi_weight": mi_weight, "consistency_weight": consistency_weight,
        "pseudo_weight": pseudo_weight, "prior_weight": prior_weight,
    }  # fmt: skip
    check_least(0, **terms, radius=radius, focus=focus, marginal_weight=marginal_weight)
    check_least(0, ramp_steps=ramp_steps, feature_weight=feature_weight)
    if not 0 <= feature_dropout < 1:
        raise ValueError(f"feature_dropout is at least 0 and below 1, not {feature_dropout}")
    check_pseudo(threshold=threshold, pseudo_loss=pseudo_loss)
    if between not in ("teacher", "views"):
        raise ValueError(f"between is teacher or views, not {between!r}")
    check_decay(decay)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    boxes = {"area": box_area, "aspect": box_aspect, "probability": box_probability}
    check_boxes(**boxes)
    jitter = {
        "brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise,
        "blur": blur,
    }  # fmt: skip
    check_least(0, **jitter)

    def drop_features(key, stream, name, feature):
        if stream < 3:  # the labelled images and the strong views
            return feature
        kept = dropped_channels(key, name, feature.shape, feature_dropout)
        return feature * kept.astype(feature.dtype)

    def init(key, start):
        return {}, first_teacher(start)

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        teacher_key, student_key, affine_key, *view_keys = jax.random.split(key, 5)
        images, teacher = batch.unlabelled, jax.lax.stop_gradient(memory["network"])
        [taught] = forward(teacher, images, key=teacher_key)
        q = jax.nn.softmax(taught.logits)
        view = sample_view(affine_key, images.shape[0], dims=images.ndim - 2, **ranges)
        images, q, valid = view.apply(images), view.apply(q), view.inside(images.shape[1:-1])
        views, boxed = zip(
            *(mixed_view(k, images, jitter=jitter, boxes=boxes) for k in view_keys), strict=True
        )
        targets = [paste(box, q, next_image(q)) for box in boxed]
        valid_in = [paste(box, valid, next_image(valid)) for box in boxed]
        shares, options = [0.5, 0.5], {}
        if is_used(feature_weight):
            views, targets, valid_in = [*views, images], [*targets, q], [*valid_in, valid]
            shares.append(feature_weight)
            options["perturb"] = functools.partial(drop_features, jax.random.fold_in(key, 5))
        sure = [jnp.max(t, axis=-1) >= threshold for t in targets]
        counted, all_sure = jnp.concatenate(valid_in), jnp.concatenate(sure)
        kept = jnp.sum(jnp.where(all_sure, counted, 0)) / jnp.maximum(jnp.sum(counted), 1)
        labelled, *students = forward(
            params["network"], batch.image, *views, key=student_key, **options
        )
        supervised = label_loss(labelled.logits, batch.label)
        logits = [output.logits for output in students]
        p = [jax.nn.softmax(x) for x in logits]
        value, logs = 0.0, {"supervised": supervised}

        def add(name, weight, term):
            nonlocal value
            value, logs[name] = value + weight * term, term

        def mean(terms):
            return sum(share * term for share, term in zip(shares, terms, strict=True))

        if is_used(pseudo_weight):
            distances = (
                pseudo_label_loss(x, jnp.argmax(t, axis=-1), certain, inside=v, kind=pseudo_loss)
                for x, t, certain, v in zip(logits, targets, sure, valid_in, strict=True)
            )
            add("pseudo_label", pseudo_weight, mean(distances))
        if is_used(consistency_weight):
            distances = (
                kl_to_logits(t, x, mask=v)
                for x, t, v in zip(logits, targets, valid_in, strict=True)
            )
            add("kl", consistency_weight, mean(distances))
        if is_used(mi_weight):

            def information(x, y, mask, target):
                mask = mask * near_foreground(target, focus) if focus else mask
                return local_mutual_information(
                    x, y, radius=radius, mask=mask, marginal_weight=marginal_weight
                )

            if between == "views":
                seen = valid * (1 - boxed[0]) * (1 - boxed[1])
                found = information(*p[:2], seen, q)
            else:
                found = mean(map(information, p, targets, valid_in, targets))
            add("mutual_information", -mi_weight, found)
        if is_used(prior_weight):
            # Of images that are annotated all over: the part of one says nothing of the whole.
            label, pixels = batch.label.astype(jnp.int32), tuple(range(1, batch.label.ndim))
            whole = jnp.all(label < q.shape[-1], axis=pixels, keepdims=True)
            drawn = jnp.where(whole[..., None], jax.nn.one_hot(label, q.shape[-1]), 0)
            size = jnp.sum(jnp.broadcast_to(whole, label.shape), dtype=drawn.dtype)
            prior = jnp.sum(drawn, axis=(0, *pixels)) / jnp.maximum(size, 1)
            seen = counted[..., None]
            predicted = jnp.sum(seen * wide(jnp.concatenate(p)), axis=(0, *pixels))
            predicted /= jnp.maximum(jnp.sum(seen), 1)
            log_ratio = jnp.log(jnp.maximum(prior, 1e-6)) - jnp.log(jnp.maximum(predicted, 1e-6))
            add("prior", prior_weight, jnp.sum(prior * log_ratio))
        logs["kept"] = kept
        value = supervised + weight * ramp(step, ramp_steps) * value
        return value, Aux(labelled.batch_stats, logs)

    def update(memory, params, batch_stats, step):
        return follow(memory, params, batch_stats, step, decay=decay)

    def predictor(params, batch_stats, memory):
        return memory["network"], memory["batch_stats"]

    return Method(loss, init, update, predictor, unlabelled=True, least_unlabelled=2)


def near_foreground(probs, distance):
    """Pixels in a square or cube of ``distance`` round a foreground pixel: (b, *space), 0 or 1."""
    # Not by the background: what T brought in from outside the frame has no class at all.
    foreground = jnp.sum(probs[..., 1:], axis=-1) > 0.5
    near, ones = foreground.astype(jnp.float32), (1,) * (probs.ndim - 1)
    for axis in range(1, near.ndim):
        window = (*ones[:axis], 2 * distance + 1, *ones[axis + 1 :])
        near = jax.lax.reduce_window(near, 0.0, jax.lax.max, window, ones, "SAME")
    return near
