"""Contrastive terms: embeddings of one class close together, those of others apart."""

import jax
import jax.numpy as jnp
import numpy as np

from mijax.losses.pointwise import NEVER, TINY, masked, sum_over, wide


def local_contrastive_loss(
    key,
    embeddings,
    labels,
    *,
    pairs,
    num_classes,
    anchors=3,
    temperature=0.1,
    axis_name=None,
):
    """Contrastive loss of pixels against the class means of pairs of images, in nats.

        ℓ(a) = −log(e^{s(a,μ_c)/τ} / Z) − log(e^{s(a,μ'_c)/τ} / Z)
        Z = Σ_c' e^{s(a,μ_c')/τ} + e^{s(a,μ'_c')/τ}

    a is a random pixel of class c of the image x, μ_c the mean of all embeddings of the class
    in x, μ'_c that in x', and s the cosine. Both images of a pair give anchors, and gradients
    flow through the means. The classes are those of the foreground: background is never anchor
    nor mean. The result is the mean of ℓ over pairs, classes and anchors; the authors' code
    divides its running sum after every pair instead, which leaves all the weight on the last.

    A class that an image lacks has no anchors there, its mean is left out of Z, and so is the
    term of ℓ that would have it in its numerator.

    Args:
      key: PRNG key of the anchors. Under ``axis_name`` give each device its own.
      embeddings: (n, *space, d), of 2 or 3 axes of space. Not normalised: the means are of the
        embeddings as they come.
      labels: (n, *space) integers, ground truth or pseudo-labels, 0 for background. Values
        outside [0, num_classes), 255 for one, count as nothing; so does what is embedded there.
      pairs: (m, 2) indices of images, a static sequence; under ``axis_name``, of the images on
        the device.
      num_classes: number of classes with the background.
      anchors: pixels drawn per image and foreground class, uniformly and with replacement; the
        pairs of an image share them.
      temperature: τ > 0.
      axis_name: mapped axis whose devices hold parts of the batch.

    Returns:
      Scalar ≥ 0; 2 log 2K for K classes whose embeddings are all the same, 0 if there is no
      foreground.

    Raises:
      ValueError: for shapes that do not match, pairs of images that are not there, fewer than
        two classes, no anchors or a temperature that is not positive.

    Reference: Chaitanya et al., Local contrastive loss with pseudo-label based self-training,
    MedIA 2023.
    """
    if embeddings.ndim not in (4, 5) or labels.shape != embeddings.shape[:-1]:
        raise ValueError(
            "embeddings are (n, *space, d) with labels (n, *space), of 2 or 3 axes of space, not "
            f"{embeddings.shape}, {labels.shape}"
        )
    if num_classes < 2 or anchors < 1:
        raise ValueError(f"needs 2 classes and 1 anchor at least, not {num_classes}, {anchors}")
    _check_temperature(temperature)
    n, *_, d = embeddings.shape
    first, second = _both_ways(pairs, n)

    # Pixels in one row p, foreground classes k without the background.
    embeddings, labels = embeddings.reshape(n, -1, d), labels.reshape(n, -1).astype(jnp.int32)
    foreground = (labels > 0) & (labels < num_classes)
    embeddings = wide(masked(embeddings, foreground))
    classes = jax.nn.one_hot(labels - 1, num_classes - 1, dtype=embeddings.dtype)
    counts = jnp.sum(classes, axis=1)
    means = _product("npk,npd->nkd", classes, embeddings) / jnp.maximum(counts, 1)[..., None]
    drawn = _sample_pixels(key, classes, anchors).reshape(n, -1, 1)
    drawn = jnp.take_along_axis(embeddings, drawn, axis=1)
    drawn, means = unit(drawn).reshape(n, -1, anchors, d), unit(means)

    # Anchors of the first image of each pair, against the means of the first and the second.
    present = counts > 0
    candidates = jnp.concatenate([present[first], present[second]], axis=1)[:, None, None, :]
    centres = jnp.concatenate([means[first], means[second]], axis=1)
    cosines = _product("mkad,mcd->mkac", drawn[first], centres)
    log_probs = jax.nn.log_softmax(jnp.where(candidates, cosines / temperature, NEVER))

    same_class = jnp.tile(jnp.eye(num_classes - 1, dtype=bool), 2)[None, :, None, :]
    terms = present[first][:, :, None, None] & candidates & same_class
    total = -jnp.sum(jnp.where(terms, log_probs, 0.0))
    count = anchors * jnp.sum(present[first], dtype=total.dtype)
    total, count = sum_over((total, count), axis_name)
    return total / jnp.where(count > 0, count, 1.0)


def supervised_contrastive_loss(embeddings, labels, *, temperature=0.07, axis_name=None):
    """Contrastive loss of a batch in which those of one label belong together, in nats.

        −mean_i 1/|P(i)| Σ_{p ∈ P(i)} log(e^{s(i,p)/τ} / Σ_{a ≠ i} e^{s(i,a)/τ})

    s is the cosine, and P(i) all others with the label of i. Those that are the only one of
    their label are left out of the mean, not out of the sums. With two views of each image and
    one label an image, this is SimCLR's loss.

    Args:
      embeddings: (n, d), of any length.
      labels: (n,) integers.
      temperature: τ > 0.
      axis_name: mapped axis whose devices hold parts of the batch; each device compares its
        own with all.

    Returns:
      Scalar ≥ 0; log(n − 1) if all embeddings are the same, 0 if no label comes twice.

    Raises:
      ValueError: for shapes that do not match, or a temperature that is not positive.

    Reference: Khosla et al., Supervised contrastive learning, NeurIPS 2020, eq. 2 (L_out).
    """
    if embeddings.ndim != 2 or labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"embeddings are (n, d) with labels (n,), not {embeddings.shape}, {labels.shape}"
        )
    _check_temperature(temperature)
    embeddings = unit(wide(embeddings))
    everyone, positions = (embeddings, labels), jnp.arange(len(labels), dtype=jnp.int32)
    if axis_name is not None:
        everyone = jax.lax.all_gather(everyone, axis_name, tiled=True)
        positions += len(labels) * jax.lax.axis_index(axis_name)
    others, other_labels = everyone

    itself = positions[:, None] == jnp.arange(len(others), dtype=jnp.int32)[None, :]
    cosines = _product("nd,md->nm", embeddings, others)
    log_probs = jax.nn.log_softmax(jnp.where(itself, NEVER, cosines / temperature))
    positive = (labels[:, None] == other_labels[None, :]) & ~itself
    positives = jnp.sum(positive, axis=1, dtype=embeddings.dtype)
    values = -jnp.sum(jnp.where(positive, log_probs, 0.0), axis=1) / jnp.maximum(positives, 1)
    total, count = jnp.sum(values), jnp.sum(positives > 0, dtype=values.dtype)
    total, count = sum_over((total, count), axis_name)
    return total / jnp.where(count > 0, count, 1.0)


def _both_ways(pairs, n):
    """First and second images of all pairs, each taken once either way round."""
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or len(pairs) == 0:
        raise ValueError(f"pairs are (m, 2) indices of images, not an array {pairs.shape}")
    if pairs.min() < 0 or pairs.max() >= n:
        raise ValueError(f"pairs are of images 0 to {n - 1}, not {pairs.min()} to {pairs.max()}")
    return np.concatenate([pairs, pairs[:, ::-1]]).T


def _sample_pixels(key, classes, count):
    """Indices (n, k, count) of random pixels of each class, uniform and with replacement.

    Those of a class that is absent mean nothing.
    """
    # The r-th pixel of a class, from 0, is preceded by all pixels where r is not yet exceeded.
    cumulated = jnp.cumsum(classes.astype(jnp.int32), axis=1)
    sizes = cumulated[:, -1, :, None]
    shape = (*sizes.shape[:2], count)
    ranks = jax.random.randint(key, shape, 0, jnp.maximum(sizes, 1), jnp.int32)
    indices = jnp.sum(cumulated[..., None] <= ranks[:, None], axis=1)
    return jnp.minimum(indices, classes.shape[1] - 1)


def unit(x):
    """Each vector at length 1; a vector of 0 stays one, with a finite gradient."""
    square = jnp.sum(x**2, axis=-1, keepdims=True)
    return x / jnp.sqrt(jnp.where(square > TINY, square, 1.0))


def _product(formula, a, b):
    return jnp.einsum(formula, a, b, precision=jax.lax.Precision.HIGHEST)


def _check_temperature(temperature):
    if not temperature > 0:
        raise ValueError(f"temperature is positive, not {temperature}")
