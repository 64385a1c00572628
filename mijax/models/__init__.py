"""Segmentation networks (Flax Linen)."""

from mijax.models.heads import ClusterHead, Projection
from mijax.models.levels import check_levels, plan_levels, total_stride
from mijax.models.unet import CLASSIFIER, NORMS, UNet, makes_logits

__all__ = [
    "CLASSIFIER",
    "NORMS",
    "ClusterHead",
    "Projection",
    "UNet",
    "check_levels",
    "makes_logits",
    "plan_levels",
    "total_stride",
]
