"""Local mutual information and consistency (MIDL 2020) with UniMatch's strong views on top."""

from mijax.methods import local_mi, unimatch
from mijax.methods.method import Row

ROWS = {
    "strong_without_mi": Row("UniMatch + consistency", 56, {"method.mi_weight": 0.0}),
    "strong_mi": Row("UniMatch + Ours (KL)", 57),
}
QUANTITIES = local_mi.QUANTITIES | unimatch.QUANTITIES


def make(
    *,
    mi_weight=0.1,
    consistency_weight=0.1,
    consistency="kl",
    radius=1,
    marginal_weight=1.0,
    rotation=30.0,
    shear=5.0,
    scale=(0.8, 1.25),
    flip=0.5,
    strong_weight=1.0,
    feature_weight=1.0,
    threshold=0.95,
    pseudo_loss="dice",
    feature_dropout=0.5,
    decay=0.0,
    ramp_steps=0,
    box_probability=0.5,
    box_area=(0.02, 0.4),
    box_aspect=(0.3, 1 / 0.3),
    brightness=0.2,
    contrast=0.5,
    gamma=0.0,
    noise=0.0,
    blur=2.0,
):
    """L(labelled) − mi_weight · I + consistency_weight · D(p ‖ p̃) + UniMatch's terms.

    The two teach different things: pseudo-labels what the network is sure of already, as classes;
    mutual information between p = f(u) and p̃ = T⁻¹ f(T u), whose sides both learn, what it is not
    sure of, as a distribution. ``mi_weight`` 0 is the same without mutual information; with
    ``consistency_weight`` 0 as well it is ``unimatch``.

    Args:
      mi_weight, consistency_weight: each with ``local_mi``'s own weight of 0.1 in it.
      consistency, radius, marginal_weight: see ``local_mi``.
      rotation, shear, scale, flip: of T, see ``sample_affine``.
      strong_weight, feature_weight: see ``unimatch``, with its weight of 2 in them.
      threshold, pseudo_loss, feature_dropout, decay: see ``unimatch``.
      ramp_steps: steps over which all weights grow to their values.
      box_probability, box_area, box_aspect: of the boxes, see ``sample_boxes``.
      brightness, contrast, gamma, noise, blur: of the strong views, see ``jitter_intensity``.
    """
    return unimatch.with_strong_views(
        local_mi.make(
            weight=1.0,
            mi_weight=mi_weight,
            consistency_weight=consistency_weight,
            consistency=consistency,
            radius=radius,
            marginal_weight=marginal_weight,
            ramp_steps=ramp_steps,
            rotation=rotation,
            shear=shear,
            scale=scale,
            flip=flip,
        ),
        weight=1.0,
        strong_weight=strong_weight,
        feature_weight=feature_weight,
        threshold=threshold,
        pseudo_loss=pseudo_loss,
        feature_dropout=feature_dropout,
        decay=decay,
        ramp_steps=ramp_steps,
        box_probability=box_probability,
        box_area=box_area,
        box_aspect=box_aspect,
        brightness=brightness,
        contrast=contrast,
        gamma=gamma,
        noise=noise,
        blur=blur,
    )
