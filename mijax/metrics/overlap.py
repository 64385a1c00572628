"""Overlap of label maps."""

import numpy as np


def dice(prediction, label, *, classes):
    """Dice similarity coefficient of each foreground class, 2|S ∩ G| / (|S| + |G|).

    Pooled over all voxels of a volume ("3D DSC", eq. 10 of Peng et al., MIDL 2020).

    Args:
      prediction: integer label map of any shape.
      label: integer label map of the same shape.
      classes: k, background included.

    Returns:
      (k − 1,) float64 in [0, 1]; 1 where both are empty, 0 where one is.

    Raises:
      ValueError: for two shapes, or maps of anything but integers from 0 on.

    >>> dice(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), classes=3)  # 2 · 1 / (2 + 1)
    array([0.66666667, 1.        ])
    """
    if prediction.shape != label.shape:
        raise ValueError(f"prediction {prediction.shape} and label {label.shape} differ in shape")
    for name, x in (("prediction", prediction), ("label", label)):
        if x.dtype.kind not in "biu" or (x.size and x.min() < 0):
            raise ValueError(f"{name} is integers from 0 on, not {x.dtype} from {x.min()}")
    prediction, label = prediction.ravel(), label.ravel()
    predicted, true, shared = (
        np.bincount(x, minlength=classes)[1:classes]
        for x in (prediction, label, prediction[prediction == label])
    )
    total = predicted + true
    return np.where(total > 0, 2 * shared / np.maximum(total, 1), 1.0)
