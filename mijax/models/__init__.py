"""Segmentation networks (Flax Linen)."""

from mijax.models.unet import UNet

__all__ = ["UNet"]
