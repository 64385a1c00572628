"""From a trained network to label maps and their scores."""

from mijax.inference.bundle import write_bundle
from mijax.inference.evaluate import evaluate
from mijax.inference.export import export
from mijax.inference.predictor import Predictor

__all__ = ["Predictor", "evaluate", "export", "write_bundle"]
