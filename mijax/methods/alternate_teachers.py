"""Alternate diverse teaching, AD-MT (Zhao et al., ECCV 2024)."""

import jax
import jax.numpy as jnp

from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.mixing import check_pseudo, next_image, pseudo_label_loss
from mijax.methods.parts import (
    check_decay,
    check_least,
    check_positive,
    first_teacher,
    follow,
    ramp,
)
from mijax.transforms import jitter_intensity, paste, place_boxes

ROWS = {"alternate_teachers": Row("Alternate teachers", 36)}
QUANTITIES = {
    "pseudo_label": Quantity("Distance to pseudo-labels"),
    "kept": Quantity("Part of the pixels with a pseudo-label"),
    "differ": Quantity("Part of the pixels where the teachers differ"),
}


def make(
    *,
    weight=4.0,
    ramp_steps=7500,
    threshold=0.95,
    pseudo_loss="dice",
    decay=0.99,
    period=50,
    alpha=4.0,
    conflicts=True,
    brightness=0.2,
    contrast=0.5,
    gamma=0.0,
    noise=0.0,
    blur=1.0,
):
    """L(labelled) + weight · D(f(u'), pseudo-labels of two teachers that take turns).

    q = (e^−H₁ q₁ + e^−H₂ q₂) / (e^−H₁ + e^−H₂), H the entropy of a pixel in bits; where the
    teachers' classes differ and the student is surer of another one than q is of its own, that is
    taken instead. D holds the prediction to the classes of q where it is at least ``threshold``.

    In the turn of the first teacher u' is S u, intensities changed; in that of the second a box of
    the next image is pasted into each (CutMix), of side √(1 − λ) of the frame, one
    λ ~ Beta(α, α) a batch. The teacher whose turn it is is updated, the other rests. A turn takes
    a random number of steps, up to ``period``.

    In the release the one that rests predicts with its running statistics, boxes may reach out of
    the frame, and targets that were mixed are compared with what the student says of the slices
    before; here all are in training mode, boxes are whole, and the student is asked first. It
    weights both teachers by e^−(H₁ + H₂), so that q is their plain mean; here it is the paper's. It
    has t // 2 − 50 for the step in the warm-up of the decay, which is 0 for the first 100; here it
    is the number of times that the teacher was updated, so that each begins as the student in its
    first turn. In 3-D a box has the side ∛(1 − λ). Its L(labelled) is half of
    ``config.label_loss=cross_entropy+squared_dice``, so that its weight of 2 is 4 here. The first
    teacher is evaluated.

    Args:
      weight: λ.
      ramp_steps: steps over which the weight grows to its value; the authors take a quarter of
        all.
      threshold: τ, least probability of a pseudo-label.
      pseudo_loss: D, see ``unimatch``.
      decay: of the teachers, see ``with_teacher``.
      period: the longest turn.
      alpha: α.
      conflicts: whether the student's prediction counts where the teachers' classes differ.
      brightness, contrast, gamma, noise, blur: of S, see ``jitter_intensity``.
    """
    check_least(0, weight=weight, ramp_steps=ramp_steps)
    check_least(1, period=period)
    check_positive(alpha=alpha)
    check_pseudo(threshold=threshold, pseudo_loss=pseudo_loss)
    check_decay(decay)
    jitter = {
        "brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise,
        "blur": blur,
    }  # fmt: skip
    check_least(0, **jitter)

    def turn_length(key, step):
        return jax.random.randint(jax.random.fold_in(key, step), (), 1, period + 1)

    def init(key, start):
        length_key, kept_key = jax.random.split(key)
        return {}, {
            "teachers": [first_teacher(start) for _ in range(2)],
            "updates": jnp.zeros((2,), jnp.int32),  # of each teacher, so far
            "turn": jnp.zeros((), jnp.int32),  # 0 of the first teacher, 1 of the second
            "left": turn_length(length_key, 0),
            # Of the default generator, whichever the given key is of: ``update`` wraps it again.
            "key": jax.random.key_data(jax.random.key(jax.random.bits(kept_key))),
        }

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        network, images = params["network"], batch.unlabelled
        keys = jax.random.split(key, 7)
        networks = [*(t["network"] for t in memory["teachers"]), network]
        predictions = [
            jax.nn.softmax(output.logits)
            for n, k in zip(networks, keys[:3], strict=True)
            for output in forward(jax.lax.stop_gradient(n), images, key=k)
        ]
        target, confidence, differ = ensemble(*predictions, conflicts=conflicts)
        strong = jitter_intensity(keys[3], images, **jitter)
        share = jax.random.beta(keys[4], alpha, alpha)
        space = images.shape[1:-1]
        side = (1 - share) ** (1 / len(space))
        sides = jnp.full((images.shape[0], len(space)), side)
        box = place_boxes(keys[5], sides, space) * memory["turn"].astype(jnp.float32)
        view = paste(box, jnp.where(memory["turn"] == 0, strong, images), next_image(images))
        target, confidence = (paste(box, x, next_image(x)) for x in (target, confidence))
        labelled, student = forward(network, batch.image, view, key=keys[6])
        distance = pseudo_label_loss(
            student.logits, target, confidence >= threshold, kind=pseudo_loss
        )
        supervised = label_loss(labelled.logits, batch.label)
        logs = {
            "supervised": supervised,
            "pseudo_label": distance,
            "kept": jnp.mean(confidence >= threshold),
            "differ": jnp.mean(differ),
        }
        value = supervised + weight * ramp(step, ramp_steps) * distance
        return value, Aux(labelled.batch_stats, logs)

    def update(memory, params, batch_stats, step):
        turn, left, updates = memory["turn"], memory["left"] - 1, memory["updates"]
        teachers = [
            jax.tree.map(
                lambda old, new, mine=turn == i: jnp.where(mine, new, old),
                teacher,
                follow(teacher, params, batch_stats, updates[i], decay=decay),
            )
            for i, teacher in enumerate(memory["teachers"])
        ]
        over = left == 0
        length = turn_length(jax.random.wrap_key_data(memory["key"]), step + 1)
        return memory | {
            "teachers": teachers,
            "updates": updates.at[turn].add(1),
            "turn": jnp.where(over, 1 - turn, turn),
            "left": jnp.where(over, length, left),
        }

    def predictor(params, batch_stats, memory):
        return memory["teachers"][0]["network"], memory["teachers"][0]["batch_stats"]

    return Method(loss, init, update, predictor, unlabelled=True, least_unlabelled=2)


def ensemble(first, second, student, *, conflicts=True):
    """Pseudo-labels of two teachers, the surer the heavier, with the student as arbiter.

    Args:
      first, second, student: (b, h, w, k) probabilities.
      conflicts: whether the student counts where the teachers differ.

    Returns:
      Labels, confidences and whether the teachers differ, each (b, h, w).
    """
    weights = [jnp.exp(-_bits(q))[..., None] for q in (first, second)]
    mean = (weights[0] * first + weights[1] * second) / (weights[0] + weights[1])
    target, confidence = jnp.argmax(mean, axis=-1), jnp.max(mean, axis=-1)
    differ = jnp.argmax(first, axis=-1) != jnp.argmax(second, axis=-1)
    if conflicts:
        own, certainty = jnp.argmax(student, axis=-1), jnp.max(student, axis=-1)
        # Not where it agrees with them, whose doubt stays.
        taken = differ & (own != target) & (certainty > confidence)
        target = jnp.where(taken, own, target)
        confidence = jnp.where(taken, certainty, confidence)
    return target, confidence, differ


def _bits(probs):
    """Entropy of each pixel in bits."""
    return jnp.sum(jax.scipy.special.entr(probs), axis=-1) / jnp.log(2.0)
