"""Terms that compare maps pixel by pixel, and the soft Dice overlap."""

import jax
import jax.numpy as jnp

TINY = float(jnp.finfo(jnp.float32).tiny)
NEVER = -1e30  # the logit of what is no candidate; finite, so that no 0 · ∞ makes a NaN


def cross_entropy(logits, labels, *, mask=None, axis_name=None):
    """Mean cross-entropy per pixel, in nats (eq. 4 of Peng et al., MIDL 2020).

    Args:
      logits: (..., k).
      labels: (...), integers in [0, k); any other makes NaN, unless its pixel is masked: with 255
        for what nobody annotated, ``mask=labels != 255``.
      mask: (...) or None; pixels of weight 0 are left out of the mean.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar ≥ 0; 0 where the mask is empty.
    """
    labels = _check_labels(logits, labels)
    log_probs = jax.nn.log_softmax(wide(masked(logits, mask)))
    k = log_probs.shape[-1]
    # Not by take_along_axis, whose gradient is a scatter.
    target = jax.nn.one_hot(labels, k, dtype=bool)
    picked = jnp.sum(jnp.where(target, log_probs, 0), axis=-1)
    known = _known(labels, k, mask)
    return _mean(jnp.where(known, -picked, jnp.nan), mask, axis_name)


def entropy(logits, *, mask=None, axis_name=None):
    """Mean Shannon entropy of the predictions per pixel, in nats: −Σ_k p_k log p_k.

    Args:
      logits: (..., k). Logits rather than probabilities, so that the gradient stays
        exact on confident pixels.
      mask: (...) or None.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar between 0 (certain) and log k (uniform).

    Reference: Vu et al., ADVENT, CVPR 2019.
    """
    log_probs = _log_softmax(logits, mask)
    return _mean(-jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1), mask, axis_name)


def kl_divergence(logits, probs, *, mask=None, axis_name=None):
    """Mean KL divergence per pixel, in nats: Σ_k p_k (log p_k − log q_k), p = softmax(logits).

    Equation 8 of Peng et al., MIDL 2020, with p = f(x) and q = T⁻¹ f(T x). The side that
    has logits goes through ``log_softmax``; q, which was warped, is clamped to the smallest
    normal number inside its logarithm. Neither needs an epsilon, which would bend the
    gradient of confident pixels.

    It is KL(first ‖ second). Optax's ``kl_divergence(log_predictions, targets)`` is KL(second ‖
    first): that is ``kl_to_logits(targets, logits)``.

    Args:
      logits: (..., k), of p.
      probs: (..., k), q. It may sum to less than 1 where a warp left the frame: mask there.
      mask: (...) or None; the validity of q.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar ≥ 0 for normalised q. Both sides have gradients; stop one with
      ``jax.lax.stop_gradient``.

    >>> logits = jnp.log(jnp.array([0.75, 0.25]))
    >>> f"{kl_divergence(logits, jnp.array([0.5, 0.5])):.4f}"  # log 2 less the entropy
    '0.1308'
    """
    _check_alike(logits, probs)
    log_p = _log_softmax(logits, mask)
    log_q = jnp.log(jnp.maximum(wide(masked(probs, mask)), TINY))
    return _mean(jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1), mask, axis_name)


def kl_to_logits(probs, logits, *, mask=None, axis_name=None):
    """Mean KL divergence per pixel, in nats: Σ_k p_k (log p_k − log q_k), q = softmax(logits).

    That of ``kl_divergence`` where it is q that has logits, and the probabilities p were warped.
    However far q is from p, the gradient of its logits is q − p, for p that sums to 1.

    Args:
      probs: (..., k), p. It may sum to less than 1 where a warp left the frame: mask there.
      logits: (..., k), of q.
      mask: (...) or None; the validity of p.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar ≥ 0 for normalised p. Both sides have gradients; stop one with
      ``jax.lax.stop_gradient``.
    """
    _check_alike(probs, logits)
    p = wide(masked(probs, mask))
    log_q = _log_softmax(logits, mask)
    return _mean(jnp.sum(p * (jnp.log(jnp.maximum(p, TINY)) - log_q), axis=-1), mask, axis_name)


def squared_error(p, q, *, mask=None, axis_name=None):
    """Mean over pixels of the squared distance ‖p − q‖² = Σ_k (p_k − q_k)².

    Summed, not averaged, over the classes: its scale does not depend on k.

    Args:
      p: (..., k) probabilities.
      q: (..., k) probabilities.
      mask: (...) or None.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar between 0 and 2.
    """
    _check_alike(p, q)
    p, q = (wide(masked(x, mask)) for x in (p, q))
    return _mean(jnp.sum((p - q) ** 2, axis=-1), mask, axis_name)


def soft_dice_loss(
    probs, labels, *, mask=None, background=False, squared=False, absent=False, axis_name=None
):
    """1 − soft Dice, pooled over the batch and averaged over the classes.

        1 − mean_k (2 Σ p_k y_k + ε) / (Σ p_k + Σ y_k + ε),   or p_k² and y_k² below

    Args:
      probs: (..., k).
      labels: (...), integers in [0, k); any other makes NaN, unless its pixel is masked.
      mask: (...) or None; pixels of weight 0 are ignored.
      background: whether class 0 counts.
      squared: squares in the denominator, as V-Net has them.
      absent: whether a class counts that is absent from ``labels`` over the whole batch; its
        Dice is then ε / (Σ p_k + ε), ε = 1e-5. Otherwise it is left out of the mean and ε is 0.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar in [0, 1]; 0 if no class counts.

    Reference: Milletari et al., V-Net, 3DV 2016; with ``background``, ``squared`` and ``absent``
    as in the releases of SSL4MIS, UniMatch and AD-MT.

    >>> labels = jnp.array([[0, 1, 1], [0, 0, 1]])
    >>> f"{soft_dice_loss(jax.nn.one_hot(labels, 2), labels):.2f}"
    '0.00'
    >>> half = jnp.full((2, 3, 2), 0.5)  # 2 · ½ · 3 / (½ · 6 + 3) of class 1
    >>> f"{soft_dice_loss(half, labels):.2f}"
    '0.50'
    """
    labels = _check_labels(probs, labels)
    probs = wide(masked(probs, mask))
    # Outside [0, k), as in cross-entropy: a class of its own, or nothing, it would go unnoticed.
    known = _known(labels, probs.shape[-1], mask)
    target = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    target = jnp.where(known[..., None], target, jnp.nan)
    weights = 1.0 if mask is None else mask[..., None].astype(probs.dtype)
    pixels = tuple(range(probs.ndim - 1))
    overlap, predicted, true = (
        sum_over(jnp.sum(weights * x, axis=pixels), axis_name)
        for x in (probs * target, probs**2 if squared else probs, target)
    )
    scored = jnp.ones_like(true, bool) if absent else ~(true <= 0)  # NaN counts
    if not background:
        scored = scored.at[0].set(False)
    smooth = 1e-5 if absent else 0.0
    dice = (2 * overlap + smooth) / jnp.where(scored, predicted + true + smooth, 1.0)
    number = jnp.maximum(jnp.sum(scored, dtype=dice.dtype), 1)
    return jnp.sum(jnp.where(scored, 1 - dice, 0.0)) / number


def sum_over(x, axis_name):
    """``x`` added over the devices of a mapped axis, or ``x`` itself without one."""
    return x if axis_name is None else jax.lax.psum(x, axis_name)


def masked(x, mask):
    """``x`` (..., k), 0 where the mask (...) is: a NaN there reaches neither value nor gradient."""
    if mask is None:
        return x
    check_mask(mask, x.shape[:-1])
    return jnp.where(counted(mask)[..., None], x, 0)


def counted(mask):
    """Where a mask of weights or of truth values is above 0."""
    return wide(mask) > 0


def wide(x):
    """``x`` in float32, or in float64 if it is."""
    x = jnp.asarray(x)
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)


def check_mask(mask, shape):
    """Raises ValueError for a mask that is none of maps of that shape; 1 stands for any length."""
    same = len(mask.shape) == len(shape)
    if not same or any(m not in (1, n) for m, n in zip(mask.shape, shape, strict=True)):
        raise ValueError(f"a mask of these maps is {shape}, not {mask.shape}")


def _log_softmax(logits, mask):
    """Log-probabilities; of a class with a logit of −∞ finite, so that it adds 0 where p is 0."""
    logits = wide(masked(logits, mask))
    return jax.nn.log_softmax(jnp.where(jnp.isneginf(logits), NEVER, logits))


def _check_alike(first, second):
    if first.shape != second.shape:
        raise ValueError(f"two maps of one shape are compared, not {first.shape}, {second.shape}")


def _known(labels, k, mask):
    """Where labels are classes, or do not count: elsewhere there is no loss but NaN."""
    known = (labels >= 0) & (labels < k)
    return known if mask is None else known | ~counted(mask)


def _check_labels(maps, labels):
    """The labels in 32 bits, since the number of classes may not fit into their own."""
    if labels.shape != maps.shape[:-1]:
        raise ValueError(f"maps {maps.shape} have labels {maps.shape[:-1]}, not {labels.shape}")
    return jnp.asarray(labels).astype(jnp.int32)


def _mean(values, mask, axis_name):
    weights = jnp.broadcast_to(1 if mask is None else mask, values.shape).astype(values.dtype)
    # where, not a product: a label outside [0, k) is NaN even in a pixel that does not count.
    total = jnp.sum(jnp.where(weights > 0, values, 0.0) * weights)
    total, count = sum_over((total, jnp.sum(weights)), axis_name)
    return total / jnp.where(count > 0, count, 1.0)
