"""Pre-training by boundary-aware information maximisation (Peng et al., MedIA 2024), stage 1."""

import jax
import jax.numpy as jnp

from mijax.errors import UserError, times
from mijax.losses import (
    boundary_correlation,
    edge_strength,
    joint_distribution,
    mutual_information,
    pixel_entropy,
    regularised_information_loss,
)
from mijax.methods.method import Aux, Examination, Method, Quantity, Row
from mijax.methods.parts import check_least, check_positive
from mijax.models import ClusterHead
from mijax.transforms import check_ranges, jitter_intensity, sample_view

ROWS = {"boundary_iic": Row("Boundary-aware IIC", 52)}
QUANTITIES = {
    "mutual_information": Quantity(
        "Mutual information",
        "nats",
        "between the clusters of a pixel in two views of an image; between 0 and ln K for "
        "K = {clusters} clusters.",
    ),
    "cluster_balance": Quantity(
        "Cluster balance",
        meaning="entropy of the share of the clusters over ln K: 1 where all of them are equally "
        "frequent, 0 where all pixels are in one.",
    ),
    "agreement": Quantity(
        "Agreement",
        meaning="share of the pixels with the same most probable cluster in both views; with a "
        "low balance it is high for no merit.",
    ),
    "boundary_correlation": Quantity(
        "Boundary correlation",
        meaning="mean squared correlation, within small windows, of the edges of the image and "
        "the uncertainty of the clusters, from 0 to 1.",
    ),
}


def make(
    *,
    feature="Up_conv2",
    clusters=40,
    subheads=3,
    hidden=0,
    temperature=1.0,
    balance=0.5,
    marginal_weight=1.0,
    boundary_weight=1.0,
    edge_gamma=0.5,
    window=5,
    spacing=(),
    brightness=0.2,
    contrast=0.2,
    gamma=0.69,
    rotation=45.0,
    shear=0.0,
    scale=(0.8, 1.3),
    translation=0.1,
    flip=0.5,
):
    """Mean over sub-heads of L_RR − w_cc · cc; no labels, and no classifier is trained.

    L_RR is the regularised mutual information between the clusters of two views of an image,
    the second of them transformed by T; the features of the first are warped by the same T
    before the head. cc is the correlation, within small windows, of the edges of T x and the
    uncertainty of the clusters, averaged over the views. Fine-tuning is any other method with
    ``config.init_from``. The authors mirror one random axis with probability 0.9 and, for some
    data, stratify batches by the position of slices; here each axis is mirrored by itself with
    probability ``flip``, and slices are drawn uniformly. They draw scale and exponent uniformly
    and mask nothing; here their logarithms are uniform, and what left the frame does not count.

    Args:
      feature: of the U-Net, of the resolution of the images; encoder and decoder are trained
        up to it.
      clusters: of each sub-head; the authors tried 20, 40 and 60.
      subheads: of the head.
      hidden: width of a hidden layer of the head; 0 for a linear one.
      temperature: of its softmax.
      balance, marginal_weight: see ``losses.regularised_information_loss``.
      boundary_weight: w_cc; the authors tried 0 to 2.
      edge_gamma, window: see ``losses.edge_strength`` and ``losses.boundary_correlation``; the
        authors have a gamma of 0.75 for ACDC and 0.5 for prostate and spleen.
      spacing: size of a voxel along each axis of volumes, see ``losses.edge_strength``; () for
        cubes, or what ``config.data.patches`` says.
      brightness, contrast: of each view, see ``transforms.jitter_intensity``.
      gamma: of the second view; 0.69 is an exponent from 0.5 to 2.
      rotation, shear, scale, translation, flip: of T, see ``transforms.sample_view``.
    """
    if not 0 <= balance <= 1:
        raise ValueError(f"balance is between 0 and 1, not {balance}")
    check_positive(edge_gamma=edge_gamma, temperature=temperature, subheads=subheads)
    check_least(2, clusters=clusters)
    check_least(
        0, boundary_weight=boundary_weight, hidden=hidden, translation=translation,
        brightness=brightness, contrast=contrast, gamma=gamma,
    )  # fmt: skip
    check_positive(**{f"spacing[{i}]": size for i, size in enumerate(spacing)})
    if window < 3 or window % 2 == 0:
        raise ValueError(f"window is odd and at least 3, not {window}")
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    head = ClusterHead(clusters=clusters, subheads=subheads, hidden=hidden, temperature=temperature)

    def init(key, start):
        if feature not in start.features:
            raise UserError(
                f"config.method.feature: the network has no {feature}, but "
                f"{', '.join(start.features)}"
            )
        size, whole = start.features[feature][1:-1], start.unlabelled_shape[1:]
        if size != whole:
            raise UserError(
                f"config.method.feature: {feature} has {times(size)} pixels of the {times(whole)} "
                "of an image, whose boundaries it is to have; take Up_conv2"
            )
        if len(spacing) not in (0, len(whole)):
            raise UserError(
                f"config.method.spacing: {len(whole)} numbers, or none, and not {spacing}"
            )
        return {"head": head.init(key, jnp.zeros(start.features[feature]))["params"]}, {}

    def draw(key, images):
        space = images.shape[1:-1]
        return sample_view(key, images.shape[0], **ranges, translation=translation, shape=space)

    def compare(params, plain, transformed, view, images):
        """Assignments (s, b, h, w, k) of both views, mask, joints (s, k, k), correlations (s,)."""
        mask = view.inside(transformed.shape[1:-1])
        p, q = (head.apply({"params": params["head"]}, x) for x in (view.apply(plain), transformed))
        edges = edge_strength(
            view.apply(images), gamma=edge_gamma, spacing=spacing or None, mask=mask
        )

        def of_subhead(p, q):
            joint = joint_distribution(p, q, radius=0, mask=mask).reshape(clusters, clusters)
            correlations = [
                boundary_correlation(
                    edges, pixel_entropy(probs, mask=mask), window=window, mask=mask
                )
                for probs in (p, q)
            ]
            return (joint + joint.T) / 2, sum(correlations) / 2

        return p, q, mask, *jax.vmap(of_subhead)(p, q)

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        view_key, first_key, second_key, dropout_key = jax.random.split(key, 4)
        images = batch.unlabelled
        view = draw(view_key, images)
        jitter = {"brightness": brightness, "contrast": contrast}
        first = jitter_intensity(first_key, images, **jitter)
        second = jitter_intensity(second_key, images, **jitter, gamma=gamma)
        plain, transformed = forward(params["network"], first, view.apply(second), key=dropout_key)
        *_, joints, correlations = compare(
            params, plain.features[feature], transformed.features[feature], view, images
        )
        information = jnp.mean(
            regularised_information_loss(joints, balance=balance, marginal_weight=marginal_weight)
        )
        correlation = jnp.mean(correlations)
        value = information - boundary_weight * correlation
        logs = {
            "information_loss": information,
            "mutual_information": jnp.mean(mutual_information(joints)),
            "boundary_correlation": correlation,
        }
        return value, Aux(plain.batch_stats, logs)

    def measures(params, images, *, features, key):
        """Means over sub-heads, of two views that differ in T alone."""
        view = draw(key, images)
        plain, transformed = (
            features(params["network"], x)[feature] for x in (images, view.apply(images))
        )
        p, q, mask, joints, correlations = compare(params, plain, transformed, view, images)
        marginal = jnp.sum(joints, axis=-1)
        entropy = -jnp.sum(marginal * jnp.log(jnp.maximum(marginal, 1e-30)), axis=-1)
        same = p.argmax(-1) == q.argmax(-1)
        return {
            "mutual_information": jnp.mean(mutual_information(joints)),
            "cluster_balance": jnp.mean(entropy) / jnp.log(clusters),
            "agreement": jnp.sum(jnp.where(same, mask[None], 0))
            / (subheads * jnp.maximum(jnp.sum(mask), 1)),
            "boundary_correlation": jnp.mean(correlations),
        }

    def cluster_map(params, images, *, features):
        """The most probable cluster of the first sub-head at each pixel."""
        found = features(params["network"], images)[feature]
        return head.apply({"params": params["head"]}, found)[0].argmax(-1)

    return Method(
        loss,
        init,
        unlabelled=True,
        examination=Examination(measures, "mutual_information", cluster_map, clusters),
    )
