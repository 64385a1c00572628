"""Optimiser of a run: Adam with linear warm-up and cosine decay."""

import optax


def learning_rate(*, peak, warmup_steps, steps):
    """Schedule: up to ``peak`` over ``warmup_steps``, then a half cosine down to 0 at ``steps``.

    The first step has ``peak / warmup_steps``, or ``peak`` without a warm-up.
    """
    return optax.warmup_cosine_decay_schedule(
        init_value=peak / max(warmup_steps, 1),
        peak_value=peak,
        warmup_steps=warmup_steps,
        decay_steps=max(steps, warmup_steps + 1),
    )


def make_optimizer(schedule, *, weight_decay):
    """Adam on that schedule; ``weight_decay`` is decoupled (AdamW), 0 for plain Adam."""
    return optax.adamw(schedule, weight_decay=weight_decay)
