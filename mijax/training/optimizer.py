"""Optimiser of a run: Adam or SGD with linear warm-up and cosine or polynomial decay."""

import jax
import optax

OPTIMIZERS = ("adam", "sgd")
SCHEDULES = ("cosine", "polynomial")


def learning_rate(schedule, *, peak, warmup_steps, steps):
    """Schedule: up to ``peak`` over ``warmup_steps``, then down to 0 at ``steps``.

    The first step has ``peak / warmup_steps``, or ``peak`` without a warm-up.

    Args:
      schedule: "cosine", half a cosine, or "polynomial", (1 − t)^0.9.
      peak, warmup_steps, steps: see above.
    """
    warmup = {"init_value": peak / max(warmup_steps, 1), "end_value": 0.0}
    steps = max(steps, warmup_steps + 1)
    if schedule == "cosine":
        return optax.warmup_cosine_decay_schedule(
            **warmup, peak_value=peak, warmup_steps=warmup_steps, decay_steps=steps
        )
    rising = optax.linear_schedule(warmup["init_value"], peak, warmup_steps)
    falling = optax.polynomial_schedule(peak, 0.0, power=0.9, transition_steps=steps - warmup_steps)
    return optax.join_schedules([rising, falling], [warmup_steps])


def make_optimizer(name, schedule, *, weight_decay, momentum=0.9):
    """The optimiser of that name on that schedule.

    "adam" has a decoupled ``weight_decay`` (AdamW); 0 is plain Adam. "sgd" has momentum, and the
    weight decay added to the gradients, as PyTorch.
    """
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    if name == "adam":
        steps = (optax.scale_by_adam(), decay, optax.scale_by_learning_rate(schedule))
    else:
        steps = (decay, optax.trace(momentum), optax.scale_by_learning_rate(schedule))
    # As one vector: dozens of small tensors are dozens of programs on a GPU.
    return promoting(optax.flatten(optax.chain(*steps)))


def promoting(transformation):
    """The same under strict promotion of types: Optax raises a float to an integer's power."""

    def update(updates, state, params=None):
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(updates, state, params)

    return optax.GradientTransformation(transformation.init, update)
