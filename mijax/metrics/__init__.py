"""Scores of a predicted label map against the true one, per volume and class; its components.

Empty masks: where prediction and truth are both empty, DSC and NSD are 1 and the distances are 0;
where one of them is empty, DSC and NSD are 0 and the distances are undefined (NaN). Volumes, and
their difference, are always defined.
"""

from mijax.metrics.components import largest_components
from mijax.metrics.overlap import dice
from mijax.metrics.surface import surface_dice, surface_distances
from mijax.metrics.volume import class_volumes

__all__ = ["class_volumes", "dice", "largest_components", "surface_dice", "surface_distances"]
