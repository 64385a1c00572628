"""Global and local mutual information between cluster assignments (Peng et al., MELBA 2021)."""

import functools

import jax
import jax.numpy as jnp

from mijax.errors import UserError
from mijax.losses import kl_to_logits, local_mutual_information, squared_error
from mijax.losses.pointwise import masked, wide
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.parts import check_least, check_positive, ramp
from mijax.models import ClusterHead
from mijax.transforms import check_ranges, jitter_intensity, sample_view

ROWS = {"global_local_mi": Row("Global + local MI", 50)}
QUANTITIES = {
    "mutual_information": Quantity("Mutual information", "nats"),
    "consistency": Quantity("Consistency"),
}


def make(
    *,
    mi_weight=0.1,
    consistency_weight=10.0,
    consistency="mse",
    features=("bottleneck", "Up_conv3", "Up_conv2"),
    importance=(1.0, 0.5, 0.5),
    radius=(0, 1, 3),
    clusters=20,
    subheads=5,
    hidden=0,
    normalise=False,
    temperature=1.0,
    marginal_weight=1.0,
    ramp_steps=0,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=0.8,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    noise=0.0,
):
    """L(labelled) + w_c · D(softmax f(T x), T softmax f(x)) + w_mi · Σ importance · (−I).

    I is the mutual information between the clusters of x and of T x, which heads of their own
    assign from features of the network: of whole images where the feature is from the encoder
    (``bottleneck``, ``Conv…``: global), of pixels and their neighbours where it is from the
    decoder (``Up_conv…``: local), averaged over sub-heads. The features of x are warped by T before
    the head. The prediction for x is held fixed in the consistency. The authors take one forward
    pass, so that all images share their statistics, and hidden layers of 128 in the global heads
    and 64 in the local ones; here each stream has its own, and ``hidden`` is that of all heads.

    Args:
      mi_weight: w_mi; 0 is consistency alone.
      consistency_weight: w_c; 0 is mutual information alone.
      consistency: "mse", the squared distance averaged over classes as the authors do, or
        "kl", KL(T p ‖ f(T x)).
      features: names of features of the U-Net.
      importance: of each feature; normalised to sum to 1.
      radius: of the window of displacements of each feature; not used for a global one.
      clusters: of each sub-head.
      subheads: of each head.
      hidden: width of a hidden layer of the heads; 0 for linear ones.
      normalise: whether a feature is scaled to unit length before its head.
      temperature: of the heads' softmax.
      marginal_weight: of the marginals in the mutual information (IIC's lamb).
      ramp_steps: steps over which both weights grow to their values.
      rotation, shear: degrees, of T.
      scale: (low, high), of T.
      flip: probability with which T flips each axis. Flips alone are exact; what another T
        takes out of the frame is masked.
      brightness, contrast, gamma, noise: of intensity changes of T x, which leave the labels as
        they are; see ``jitter_intensity``. The authors have none.
    """
    if consistency not in ("mse", "kl"):
        raise ValueError(f"consistency is 'mse' or 'kl', not {consistency!r}")
    if not len(features) == len(importance) == len(radius) > 0:
        raise ValueError("features, importance and radius have one entry a feature")
    if min(importance) < 0 or not sum(importance) > 0:
        raise ValueError(f"importance is at least 0 and not all 0, not {tuple(importance)}")
    if len(set(features)) < len(features):
        raise ValueError(f"features are there once each, not {tuple(features)}")
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    jitter = {"brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise}
    weights = {"mi_weight": mi_weight, "consistency_weight": consistency_weight}
    check_least(0, **weights, radius=min(radius), hidden=hidden, ramp_steps=ramp_steps, **jitter)
    check_least(2, clusters=clusters)
    check_positive(temperature=temperature, subheads=subheads)
    heads = {
        name: ClusterHead(
            clusters=clusters,
            subheads=subheads,
            pooled=not name.startswith("Up_"),
            hidden=hidden,
            temperature=temperature,
            normalise=normalise,
        )
        for name in features
    }

    def init(key, start):
        missing = [name for name in features if name not in start.features]
        if missing:
            raise UserError(
                f"config.method.features: the network has no {missing[0]}, but "
                f"{', '.join(start.features)}"
            )
        keys = jax.random.split(key, len(features))
        params = {
            f"head_{name}": head.init(k, jnp.zeros(start.features[name]))["params"]
            for k, (name, head) in zip(keys, heads.items(), strict=True)
        }
        return params, {}

    def information(params, name, plain, transformed, view, reach):
        """Mean over sub-heads of the mutual information on one feature."""
        plain, mask = view.apply(plain), view.inside(plain.shape[1:-1])
        if heads[name].pooled:
            # What left the frame counts in neither mean over the image, nor how much of it did:
            # else T alone would be something that both know.
            part = jnp.mean(mask, axis=tuple(range(1, mask.ndim)))
            share = jnp.maximum(part, 1 / mask[0].size).reshape(-1, *[1] * mask.ndim)
            plain, transformed = (wide(masked(x, mask)) / share for x in (plain, transformed))
            mask, reach = None, 0
        p, q = (
            heads[name].apply({"params": params[f"head_{name}"]}, x) for x in (plain, transformed)
        )
        of_subhead = functools.partial(
            local_mutual_information, radius=reach, mask=mask, marginal_weight=marginal_weight
        )
        return jnp.mean(jax.vmap(of_subhead)(p, q))

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        view_key, jitter_key, dropout_key = jax.random.split(key, 3)
        images = batch.unlabelled
        view = sample_view(view_key, images.shape[0], shape=images.shape[1:-1], **ranges)
        labelled, plain, transformed = forward(
            params["network"],
            batch.image,
            images,
            jitter_intensity(jitter_key, view.apply(images), **jitter),
            key=dropout_key,
        )
        found = {
            name: information(
                params, name, plain.features[name], transformed.features[name], view, reach
            )
            for name, reach in zip(features, radius, strict=True)
        }
        total = sum(importance)
        mutual = sum(w / total * found[n] for n, w in zip(features, importance, strict=True))
        target = view.apply(jax.lax.stop_gradient(jax.nn.softmax(plain.logits)))
        mask = view.inside(images.shape[1:-1])
        if consistency == "mse":
            probs = jax.nn.softmax(transformed.logits)
            distance = squared_error(target, probs, mask=mask) / probs.shape[-1]
        else:
            distance = kl_to_logits(target, transformed.logits, mask=mask)
        supervised = label_loss(labelled.logits, batch.label)
        regulariser = consistency_weight * distance - mi_weight * mutual
        logs = {"supervised": supervised, "consistency": distance, "mutual_information": mutual}
        logs |= {f"information_{name}": value for name, value in found.items()}
        value = supervised + ramp(step, ramp_steps) * regulariser
        return value, Aux(labelled.batch_stats, logs)

    # Of one image the information is the larger, the less its clusters are those of T x.
    least = 2 if any(head.pooled for head in heads.values()) else 1
    return Method(loss, init, unlabelled=True, least_unlabelled=least)
