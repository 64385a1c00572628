"""Segmentation networks (Flax Linen)."""

from mijax.models.heads import ClusterHead, Projection
from mijax.models.unet import CLASSIFIER, UNet

__all__ = ["CLASSIFIER", "ClusterHead", "Projection", "UNet"]
