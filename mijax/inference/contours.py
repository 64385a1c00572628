"""A picture of a volume with the outlines of its label maps, for the log of a run."""

import numpy as np
from scipy import ndimage

from mijax.data import cut, pixel_size
from mijax.data.formats.label_names import colour_of
from mijax.inference.scores import without_gaps

_SIDE = 256  # pixels of the longer one
_DASH = 3


def contours(volume, labels, *, plane):
    """The slice with the largest annotated area, and what was found in it.

    As radiologists look at it, anterior or superior up and the right side of the patient left.
    Solid, in a colour a class: the label map; dashed, white and black: the annotation.

    Args:
      volume: ``data.Volume``, with a label; its first channel is shown.
      labels: (x, y, z) predicted label map.
      plane: "axial", "coronal" or "sagittal".

    Returns:
      (h, w, 3) uint8.
    """
    parts = (volume.image[..., 0], without_gaps(volume).label, labels)
    stacks = [cut(part, volume.affine, plane=plane) for part in parts]
    place = (stacks[1] > 0).sum((1, 2)).argmax()
    size = np.multiply(stacks[0].shape[1:], pixel_size(volume.affine, plane=plane))
    size = np.maximum(1, (_SIDE * size / size.max()).round().astype(int))
    image, truth, found = (_nearest(stack[place], size) for stack in stacks)
    low, high = np.percentile(image, [0.5, 99.5])
    grey = np.clip((image - low) / ((high - low) or 1), 0, 1)
    picture = np.repeat(np.uint8(255 * grey)[..., None], 3, -1)
    rows, columns = np.indices(grey.shape)
    dashes = np.where((rows + columns) // _DASH % 2, 255, 0)[..., None]
    for value in _classes(truth):
        edge = _outline(truth == value)
        picture[edge] = dashes[edge]
    for value in _classes(found):
        picture[_outline(found == value)] = colour_of(value)
    return picture


def _classes(labels):
    return [value for value in np.unique(labels) if value]


def _nearest(values, size):
    """(h, w) at the pixels of another size, turned for the eye."""
    rows, columns = ((np.arange(n) + 0.5) * m // n for n, m in zip(size, values.shape, strict=True))
    return values[np.ix_(rows.astype(int), columns.astype(int))].T[::-1, ::-1]


def _outline(mask):
    """Its outermost pixels; those at the edge of the picture are."""
    return mask & ~ndimage.binary_erosion(mask)
