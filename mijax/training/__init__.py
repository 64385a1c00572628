"""From a configuration and data to a trained network."""

from mijax.training.loop import train

__all__ = ["train"]
