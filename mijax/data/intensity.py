"""Intensities of a volume to a common range, channel by channel."""

from collections.abc import Sequence

import numpy as np

from mijax.errors import UserError


def normalise(image: np.ndarray, *, intensity: str | Sequence[float]) -> np.ndarray:
    """Rescales a volume's intensities; each channel by itself, a constant one to 0.

    Args:
      image: (..., c), finite.
      intensity: "minmax": the range to [0, 1]. "percentile": percentiles 1 and 99 to 0 and 1,
        clipped. "zscore": mean 0, standard deviation 1. (low, high): that window, in the image's
        own units, to [0, 1], clipped.

    Returns:
      (..., c) float32.

    Raises:
      UserError: any other ``intensity``.
    """
    scale = _scale(intensity)
    channels = [scale(image[..., c].astype(np.float64)) for c in range(image.shape[-1])]
    return np.stack(channels, axis=-1).astype(np.float32)


def _scale(intensity):
    if isinstance(intensity, str):
        if intensity not in _SCALES:
            raise UserError(
                f"data.intensity={intensity!r}: must be one of {', '.join(_SCALES)}, or (low, high)"
            )
        return _SCALES[intensity]
    try:
        low, high = (float(bound) for bound in intensity)
    except (TypeError, ValueError):
        low, high = 0.0, 0.0
    if not low < high:
        raise UserError(f"data.intensity={intensity!r}: a window is two numbers, low < high")
    return lambda values: _to_unit(values, low, high)


def _to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if not low < high:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)


def _minmax(values: np.ndarray) -> np.ndarray:
    return _to_unit(values, values.min(), values.max())


def _percentile(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, (1, 99))
    # An image that is nearly all background has equal percentiles, yet something to show.
    return _to_unit(values, low, high) if low < high else _minmax(values)


def _zscore(values: np.ndarray) -> np.ndarray:
    if values.min() == values.max():  # the computed deviation of a constant need not be 0
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


_SCALES = {"minmax": _minmax, "percentile": _percentile, "zscore": _zscore}
