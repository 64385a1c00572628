"""Contrastive pre-training of the encoder by the position of slices (Chaitanya et al., 2020).

Contrastive learning of global and local features for medical image segmentation with limited
annotations, NeurIPS 2020: its global loss, in the form of Khosla et al. (SupCon).
"""

import jax
import jax.numpy as jnp

from mijax.losses import supervised_contrastive_loss
from mijax.losses.contrastive import unit
from mijax.methods.method import Aux, Examination, Method, Quantity, Row
from mijax.methods.parts import check_least, check_positive
from mijax.models import Projection
from mijax.transforms import check_ranges, jitter_intensity, sample_view

ROWS = {"position_contrast": Row("Position contrast", 53)}
QUANTITIES = {
    "contrast": Quantity("Contrastive loss", "nats"),
    "retrieval": Quantity(
        "Retrieval",
        meaning="share of the images whose nearest second view is that of the same image.",
    ),
    "alignment": Quantity(
        "Alignment", meaning="mean cosine of the embeddings of two views of an image."
    ),
}


def make(
    *,
    partitions=4,
    temperature=0.07,
    width=256,
    brightness=0.2,
    contrast=0.2,
    gamma=0.4,
    rotation=30.0,
    shear=0.0,
    scale=(0.8, 1.25),
    flip=0.0,
):
    """Supervised contrastive loss of two views of each image; no labels are looked at.

    Positives are the views of all images from the same part of their volumes: a volume is cut
    into ``partitions`` of equal thickness. Embeddings are of the bottleneck, averaged over the
    image, through an MLP. Fine-tuning is any other method with ``config.init_from``; the
    decoder then begins as it was drawn.

    Args:
      partitions: of a volume. 4 for ACDC, as the authors.
      temperature: τ.
      width: of the embeddings.
      brightness, contrast, gamma: of each view, see ``transforms.jitter_intensity``.
      rotation, shear, scale, flip: of each view, see ``transforms.sample_affine``.
    """
    check_least(2, partitions=partitions)
    check_positive(temperature=temperature, width=width)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    check_ranges(**ranges)
    jitter = {"brightness": brightness, "contrast": contrast, "gamma": gamma}
    check_least(0, **jitter)
    head = Projection(width=width, pooled=True)

    def init(key, start):
        feature = jnp.zeros(start.features["bottleneck"])
        return {"head": head.init(key, feature)["params"]}, {}

    def draw(key, images):
        view_key, jitter_key = jax.random.split(key)
        view = sample_view(view_key, images.shape[0], **ranges)
        return jitter_intensity(jitter_key, view.apply(images), **jitter)

    def embed(params, feature):
        return head.apply({"params": params["head"]}, feature)[:, 0, 0]

    def loss(params, memory, batch, *, forward, label_loss, step, key):
        first_key, second_key, dropout_key = jax.random.split(key, 3)
        views = [draw(k, batch.unlabelled) for k in (first_key, second_key)]
        outputs = forward(params["network"], *views, key=dropout_key)
        part = jnp.minimum((batch.position * partitions).astype(int), partitions - 1)
        value = supervised_contrastive_loss(
            jnp.concatenate([embed(params, x.features["bottleneck"]) for x in outputs]),
            jnp.tile(part, 2),
            temperature=temperature,
        )
        return value, Aux(outputs[0].batch_stats, {"contrast": value})

    def measures(params, images, *, features, key):
        """How often the nearest of the second views is that of the same image, and how near."""
        first, second = (
            embed(params, features(params["network"], draw(k, images))["bottleneck"])
            for k in jax.random.split(key)
        )
        cosines = jnp.matmul(unit(first), unit(second).T, precision=jax.lax.Precision.HIGHEST)
        nearest = images[cosines.argmax(-1)]
        return {
            # A batch may have an image twice.
            "retrieval": jnp.mean(jnp.all(nearest == images, axis=range(1, images.ndim))),
            "alignment": jnp.mean(jnp.diagonal(cosines)),
        }

    return Method(
        loss,
        init,
        unlabelled=True,
        least_unlabelled=2,
        examination=Examination(measures, "retrieval"),
    )
