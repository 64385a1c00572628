"""Mutual information between the class maps of an image and of its transformed copy."""

import itertools
import math

import jax
import jax.numpy as jnp

from mijax.losses.pointwise import TINY, counted, masked, sum_over, wide

EPSILON = 1e-5  # in the logarithms of ``regularised_information_loss``
STRIP = 2**26  # bytes of shifted copies of both maps that ``joint_distribution`` makes at a time


def local_mutual_information(
    p, q, *, radius=1, mask=None, symmetric=True, marginal_weight=1.0, axis_name=None
):
    """Mean mutual information over all displacements of a (2r+1)ⁿ window, in nats.

        (1/|N|) Σ_{(p,q) ∈ N} I(P_pq)

    **Sign.** To be maximised: subtract it from a loss. Equation 9 of the paper adds L_MI as
    printed, but its text, and its method, maximise it. Not linear in the batch: the mean of
    per-device values is a different quantity (see ``axis_name``).

    Args:
      p: (b, *space, k) probabilities of the images, of n = 2 or 3 axes of space.
      q: (b, *space, k) probabilities of their transformed copies, warped back: T⁻¹ f(T x).
      radius: r of the window of displacements; 1 is the paper's 3 × 3, 0 compares each
        pixel with itself alone.
      mask: (b, *space) or None; pixels where q stayed inside the frame.
      symmetric: use (P + Pᵀ)/2, as IIC and the authors do.
      marginal_weight: see ``mutual_information``.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar between 0 and log k (with ``marginal_weight`` 1).

    Raises:
      ValueError: for maps of different shapes or of another rank, or a negative radius.

    Reference: Peng et al., MIDL 2020, eq. 5–7; Ji et al., IIC, ICCV 2019.

    >>> p = jax.nn.one_hot(jnp.arange(16).reshape(1, 4, 4) % 2, 2)  # columns of two classes
    >>> f"{local_mutual_information(p, p, radius=0):.3f}"  # log 2: either tells the other
    '0.693'
    >>> uncertain = jnp.full_like(p, 0.5)
    >>> f"{local_mutual_information(p, uncertain, radius=0):.3f}"
    '0.000'
    """
    joint = joint_distribution(p, q, radius=radius, mask=mask, axis_name=axis_name)
    if symmetric:
        joint = (joint + jnp.swapaxes(joint, -1, -2)) / 2
    return jnp.mean(mutual_information(joint, marginal_weight=marginal_weight))


def mutual_information(joint, *, marginal_weight=1.0):
    """Mutual information of each joint distribution, in nats.

        I = Σ_kl P_kl (log P_kl − w log P_k· − w log P_·l)

    With ``marginal_weight`` 1 this is between 0 and log k. To be maximised: subtract it from
    a loss. Not linear in the batch: form ``joint`` over the whole batch first.

    Args:
      joint: (..., k, k), non-negative; each k × k block is normalised here.
      marginal_weight: w; above 1 favours balanced clusters (IIC's lamb). With 1/2 this is
        −(H(k|l) + H(l|k))/2, at most 0, which all of one class reaches as well.

    Returns:
      (...) one value a joint, in float32 or wider. Cells of probability 0 add 0, and their
      gradient is finite; a block of zeros has mutual information 0.

    Raises:
      ValueError: for a joint that is not square.

    Reference: Peng et al., MIDL 2020, eq. 7; Ji et al., IIC, ICCV 2019.

    >>> joints = jnp.stack([jnp.eye(2), jnp.eye(2)[::-1], jnp.ones((2, 2))])
    >>> [f"{x:.3f}" for x in mutual_information(joints)]  # the same, swapped, independent
    ['0.693', '0.693', '0.000']
    >>> sure = jnp.stack([jnp.diag(jnp.array([1 - x, x])) for x in (0.5, 0.1, 0.0)])
    >>> [f"{x:.3f}" for x in mutual_information(sure)]  # the more equal the classes, the larger
    ['0.693', '0.325', '0.000']
    >>> [f"{abs(x):.3f}" for x in mutual_information(sure, marginal_weight=0.5)]
    ['0.000', '0.000', '0.000']
    """
    _check_joint(joint)
    # Not in half precision, where TINY would be 0.
    joint = _normalise(wide(joint))
    rows = jnp.sum(joint, axis=-1, keepdims=True)
    columns = jnp.sum(joint, axis=-2, keepdims=True)
    # log(P) and xlogy give NaN gradients once a class dies; the clamp does not.
    log_joint, log_rows, log_columns = (
        jnp.log(jnp.maximum(x, TINY)) for x in (joint, rows, columns)
    )
    terms = joint * (log_joint - marginal_weight * (log_rows + log_columns))
    return jnp.sum(terms, axis=(-1, -2))


def regularised_information_loss(joint, *, balance=0.5, marginal_weight=1.0):
    """Negative mutual information that also asks for a balanced, diagonal joint, in nats.

        L_RR = −Σ_kl [α δ_kl/k + (1−α) P_kl] log P_kl + λ Σ_kl P_kl (log P_k· + log P_·l)

    **Sign.** A loss, to be minimised; ``mutual_information`` is to be maximised. With
    ``balance`` 0 it is −``mutual_information``. Above 0, part of the joint entropy is replaced
    by the cross-entropy of P to the uniform diagonal: clusters of equal size, and the same
    cluster in both views rather than any one-to-one relation. The minimum, with
    ``marginal_weight`` 1, is −log k and stands there.

    Each logarithm is of its argument + 1e-5, as the authors have it, so that a diagonal cell
    of probability 0 has a bounded value and a gradient that pulls it up. With ``balance`` 0
    this moves the value by at most k² · 1e-5 nats: 0.016 for 40 clusters.

    Not linear in the batch: form ``joint`` over the whole batch first, and make it symmetric,
    (P + Pᵀ)/2, as the authors do.

    Args:
      joint: (..., k, k), non-negative; each k × k block is normalised here.
      balance: α in [0, 1], the weight of the uniform diagonal.
      marginal_weight: λ; above 1 favours balanced clusters.

    Returns:
      (...) one value a joint, in float32 or wider. A block of zeros has value and gradient 0.

    Raises:
      ValueError: for a balance outside [0, 1], or a joint that is not square.

    Reference: Peng et al., Boundary-aware information maximization, MedIA 2024, stage 1.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is between 0 and 1, not {balance}")
    _check_joint(joint)
    present = jnp.any(joint != 0, axis=(-1, -2))  # as NaN is
    joint = _normalise(wide(joint))
    rows = jnp.sum(joint, axis=-1, keepdims=True)
    columns = jnp.sum(joint, axis=-2, keepdims=True)
    log_joint, log_rows, log_columns = (jnp.log(x + EPSILON) for x in (joint, rows, columns))
    k = joint.shape[-1]
    diagonal = jnp.broadcast_to(jnp.eye(k, dtype=joint.dtype) / k, joint.shape)
    # P stays in the weight as a variable: at α = 0 the gradient too is that of −I.
    terms = marginal_weight * joint * (log_rows + log_columns)
    terms -= (balance * diagonal + (1 - balance) * joint) * log_joint
    return jnp.where(present, jnp.sum(terms, axis=(-1, -2)), 0.0)


def joint_distribution(p, q, *, radius, mask=None, axis_name=None):
    """Joint distribution of the classes of pixels at each displacement, as one product.

        P_d[k, l] ∝ Σ_{b,i} p[b, i, k] · q[b, i+d, l],   −r ≤ d ≤ r along each of the n axes

    With the shifts along the first axis of space on p and those along the others on q, all
    (2r+1)ⁿ sums are blocks of one product, of a pixels × ((2r+1)·k) and a pixels × ((2r+1)ⁿ⁻¹·k)
    matrix. Equal to ``joint_distribution_by_convolution``, with a gradient that is several times
    as fast.

    Where these matrices, copies of the maps, would take more than 64 MiB, they are made for a
    strip of rows at a time, in 3-D for some slices, in the gradient again: one loop, of as many
    products. Radius 1 of 10 images of 224² and 4 classes is one product, radius 3 of 20 clusters
    one of 9 strips, radius 1 of 2 volumes of 32 × 96² and 4 classes one of 2.

    Args:
      p: (b, *space, k) probabilities, of n = 2 or 3 axes of space.
      q: (b, *space, k) probabilities.
      radius: r ≥ 0.
      mask: (b, *space) or None; weights of pixels, on both maps (IIC has it, the authors' code
        forgets it). A pair counts √(m m'), so that a pixel beside itself counts m.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      (2r+1, 2r+1, k, k), in 3-D (2r+1, 2r+1, 2r+1, k, k), in float32 or wider, as it is summed;
      each k × k block sums to 1, or to 0 where the mask leaves nothing.

    Raises:
      ValueError: for maps of different shapes or of another rank, or a negative radius.

    Reference: Peng et al., MIDL 2020, eq. 6.

    >>> p = jax.nn.one_hot(jnp.array([[[0, 1, 1]]]), 2)  # one row of three pixels
    >>> joint_distribution(p, p, radius=1)[1, 2]  # with the right neighbour: 0 and 1, 1 and 1
    Array([[0. , 0.5],
           [0. , 0.5]], dtype=float32)
    """
    p, q = _prepare(p, q, mask, radius)
    length, others, k = p.shape[1], p.ndim - 3, p.shape[-1]
    window = 2 * radius + 1
    # Strips of rows or slices, since those of images would gather images from all devices.
    fitting = max(1, min(length, math.ceil((window + window**others) * p.nbytes / STRIP)))
    height = math.ceil(length / fitting)
    strips = math.ceil(length / height)
    below = strips * height - length
    # Σ_ij p[i, j] q[i+dy, j+dx] = Σ_ij p[i−dy, j] q[i, j+dx], zero outside the frame.
    whole, frame = (0, 0), (radius, radius)
    p = jnp.pad(p, (whole, (radius, radius + below), *[whole] * others, whole))
    q = jnp.pad(q, (whole, (0, below), *[frame] * others, whole))

    def of_strip(first):
        above = jax.lax.dynamic_slice_in_dim(p, first, height + 2 * radius, axis=1)
        return _product(above, jax.lax.dynamic_slice_in_dim(q, first, height, axis=1), radius)

    if strips > 1:
        parts = jax.lax.map(jax.checkpoint(of_strip), height * jnp.arange(strips))
        joint = jnp.sum(parts, axis=0)
    else:
        joint = _product(p, q, radius)
    joint = jnp.moveaxis(joint.reshape(window, k, *[window] * others, k), 1, -2)
    return _normalise(sum_over(joint, axis_name))


def joint_distribution_by_convolution(p, q, *, radius, mask=None, axis_name=None):
    """The definition of ``joint_distribution``: p as the kernel of a convolution over q.

    Batch and classes change roles: classes of q are the batch, images the features, classes
    of p the output. Same arguments and result; kept as the oracle of the tests.
    """
    p, q = _prepare(p, q, mask, radius)
    space = "DHW"[5 - p.ndim :]
    joint = jax.lax.conv_general_dilated(
        q,
        p,
        window_strides=[1] * len(space),
        padding=[(radius, radius)] * len(space),
        dimension_numbers=(f"C{space}N", f"I{space}O", f"{space}NC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return _normalise(sum_over(jnp.swapaxes(joint, -1, -2), axis_name))


def _product(p, q, radius):
    """Σ p q of maps padded by the radius, p along the first axis of space and q along the others.

    ((2r+1)·k, (2r+1)ⁿ⁻¹·k).
    """
    height, sizes, shifts = q.shape[1], p.shape[2:-1], range(2 * radius + 1)
    first = [p[:, 2 * radius - s : 2 * radius - s + height] for s in shifts]
    others = [
        q[:, :, *(slice(s, s + n) for s, n in zip(starts, sizes, strict=True))]
        for starts in itertools.product(shifts, repeat=len(sizes))
    ]
    # Images and pixels are not made one axis before, which would gather images from all devices.
    pixels = tuple(range(p.ndim - 1))
    return jax.lax.dot_general(
        jnp.concatenate(first, -1),
        jnp.concatenate(others, -1),
        ((pixels, pixels), ((), ())),
        precision=jax.lax.Precision.HIGHEST,
    )


def _prepare(p, q, mask, radius):
    if p.shape != q.shape or p.ndim not in (4, 5):
        raise ValueError(
            "p and q are two maps of one shape, (b, h, w, k) or (b, d, h, w, k), not "
            f"{p.shape}, {q.shape}"
        )
    if radius < 0:
        raise ValueError(f"radius is at least 0, not {radius}")
    # Cast here, once: the products and, through them, their gradients stay in float32.
    p, q = wide(p), wide(q)
    p, q = (x.astype(jnp.result_type(p, q)) for x in (p, q))
    if mask is not None:
        # Not the root of 0, whose slope is infinite.
        weights = jnp.sqrt(jnp.where(counted(mask), wide(mask), 1.0))[..., None].astype(p.dtype)
        p, q = masked(p, mask) * weights, masked(q, mask) * weights
    return p, q


def _check_joint(joint):
    if jnp.ndim(joint) < 2 or joint.shape[-1] != joint.shape[-2]:
        raise ValueError(f"a joint is (..., k, k), not {jnp.shape(joint)}")


def _normalise(joint):
    total = jnp.sum(joint, axis=(-1, -2), keepdims=True)
    return joint / jnp.where(total > 0, total, 1.0)
