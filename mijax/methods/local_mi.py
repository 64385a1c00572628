"""Local mutual information with transformation consistency (Peng et al., MIDL 2020)."""

import jax

from mijax.losses import kl_divergence, local_mutual_information, squared_error
from mijax.methods.method import Aux, Method, Quantity, Row
from mijax.methods.parts import check_least, check_positive, class_entropy, ramp
from mijax.transforms import check_ranges, jitter_intensity, sample_view

ROWS = {
    "mutual_information": Row(
        "Mutual information", 20, {"method.consistency_weight": 0.0}, table1=True
    ),
    "consistency": Row("Consistency reg.", 21, {"method.mi_weight": 0.0}, table1=True),
    "ours_mse": Row("Ours (MSE)", 40, {"method.consistency": "mse"}, table1=True),
    "ours_kl": Row("Ours (KL)", 41, table1=True, ours=True),
}
QUANTITIES = {
    "mutual_information": Quantity("Mutual information", "nats"),
    "label_entropy": Quantity("Entropy of the labels", "nats"),
    "consistency": Quantity("Consistency"),
}

_MORE = 1.125  # than the entropy of the labels, where T takes out borders without structures
_LEAST = 0.01  # nats, that are nothing


def make(
    *,
    weight=0.1,
    mi_weight=1.0,
    consistency_weight=1.0,
    consistency="kl",
    radius=1,
    symmetric=True,
    masked=True,
    marginal_weight=1.0,
    stop_gradient=False,
    temperature=1.0,
    ramp_steps=0,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    noise=0.0,
    shared_statistics=False,
):
    """L(labelled) + weight · (mi_weight · (−I) + consistency_weight · D(p ‖ p̃)), eq. 4–9.

    p = f(x) and p̃ = T⁻¹ f(T x) for one random T an unlabelled image. Table 1's "Mutual
    information" is consistency_weight 0, its "Consistency reg." is mi_weight 0.

    Args:
      weight: λ of eq. 9.
      mi_weight: of the mutual information, within λ.
      consistency_weight: of the consistency, within λ.
      consistency: "kl", KL(p ‖ p̃), or "mse", the squared distance summed over classes.
      radius: of the window of displacements; 1 is 3 × 3.
      symmetric: symmetrise each joint distribution.
      masked: leave out of the mutual information, too, the pixels that left the frame on the
        way; the authors' code does not. They never count in the consistency.
      marginal_weight: of the marginals in the mutual information (IIC's lamb).
      stop_gradient: hold p fixed in the consistency; the paper lets both sides learn.
      temperature: of the softmax that makes p in the consistency; below 1 sharpens it.
      ramp_steps: steps over which λ grows to its value.
      rotation, shear: degrees, of T.
      scale: (low, high), of T.
      flip: probability with which T flips each axis.
      brightness, contrast, gamma, noise: of intensity changes of T x, which leave the labels as
        they are; see ``jitter_intensity``. The paper has none.
      shared_statistics: see ``Method``.
    """
    if consistency not in ("kl", "mse"):
        raise ValueError(f"consistency is 'kl' or 'mse', not {consistency!r}")
    check_positive(temperature=temperature)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    jitter = {"brightness": brightness, "contrast": contrast, "gamma": gamma, "noise": noise}
    weights = {"mi_weight": mi_weight, "consistency_weight": consistency_weight}
    check_least(0, weight=weight, **weights, radius=radius, ramp_steps=ramp_steps, **jitter)
    options = {"shared_statistics": True} if shared_statistics else {}

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        view_key, jitter_key, dropout_key = jax.random.split(key, 3)
        images = batch.unlabelled
        view = sample_view(view_key, images.shape[0], dims=images.ndim - 2, **ranges)
        labelled, plain, transformed = forward(
            params["network"],
            batch.image,
            images,
            jitter_intensity(jitter_key, view.apply(images), **jitter),
            key=dropout_key,
            **options,
        )
        restored = view.restore(jax.nn.softmax(transformed.logits))
        mask = view.mask(images.shape[1:-1])
        information = local_mutual_information(
            jax.nn.softmax(plain.logits),
            restored,
            radius=radius,
            mask=mask if masked else None,
            symmetric=symmetric,
            marginal_weight=marginal_weight,
        )
        target = plain.logits / temperature
        if stop_gradient:
            target = jax.lax.stop_gradient(target)
        if consistency == "kl":
            distance = kl_divergence(target, restored, mask=mask)
        else:
            distance = squared_error(jax.nn.softmax(target), restored, mask=mask)
        supervised = label_loss(labelled.logits, batch.label)
        regulariser = consistency_weight * distance - mi_weight * information
        return supervised + weight * ramp(step, ramp_steps) * regulariser, Aux(
            labelled.batch_stats,
            {
                "supervised": supervised,
                "mutual_information": information,
                "label_entropy": class_entropy(batch.label, plain.logits.shape[-1]),
                "consistency": distance,
            },
        )

    def doubt(means):
        found, most = means["mutual_information"], means["label_entropy"]
        if not mi_weight or marginal_weight != 1 or found < _MORE * most + _LEAST:
            return ""
        return (
            f"mutual_information ({found:.2f}) is more than right predictions have where the "
            f"labels have an entropy of {most:.2f}: the foreground grows; a smaller "
            "config.method.mi_weight or config.method.marginal_weight holds it"
        )

    return Method(loss, unlabelled=True, doubt=doubt)
