"""Scores of a predicted label map against the true one, per volume and class; its components.

Empty masks: where prediction and truth are both empty, the DSC is 1 and the distances are 0;
where one of them is empty, the DSC is 0 and the distances are undefined (NaN).
"""

from mijax.metrics.components import largest_components
from mijax.metrics.overlap import dice
from mijax.metrics.surface import surface_distances

__all__ = ["dice", "largest_components", "surface_distances"]
