"""Semi-supervised segmentation of medical images by mutual information, in JAX."""

__version__ = "0.1.0"
