"""Intensities of a volume to a common range, channel by channel."""

from collections.abc import Sequence

import numpy as np

from mijax.errors import UserError


def normalise(
    image: np.ndarray,
    *,
    intensity: str | Sequence[float],
    percentiles: Sequence[float] = (1.0, 99.0),
) -> np.ndarray:
    """Rescales a volume's intensities; each channel by itself, a constant one to 0.

    Args:
      image: (..., c), finite.
      intensity: "minmax": the range to [0, 1]. "percentile": two percentiles to 0 and 1,
        clipped. "zscore": mean 0, standard deviation 1. (low, high): that window, in the image's
        own units, to [0, 1], clipped.
      percentiles: which two, for intensity="percentile".

    Returns:
      (..., c) float32.

    Raises:
      UserError: any other ``intensity``, or percentiles that are none.
    """
    scale = _scale(intensity, percentiles)
    channels = [scale(image[..., c].astype(np.float64)) for c in range(image.shape[-1])]
    return np.stack(channels, axis=-1).astype(np.float32)


def check_intensity(intensity: str | Sequence[float], percentiles: Sequence[float]) -> None:
    """Refuses what ``normalise`` could not follow.

    Raises:
      UserError: an unknown ``intensity``, or percentiles that are none.
    """
    _scale(intensity, percentiles)


def _scale(intensity, percentiles):
    if not isinstance(intensity, str):
        low, high = _two_numbers(intensity)
        if not low < high:
            raise UserError(
                f"data.patches.intensity={intensity!r}: a window is two numbers, low < high"
            )
        return lambda values: _to_unit(values, low, high)
    if intensity == "percentile":
        first, last = _two_numbers(percentiles)
        if not 0 <= first < last <= 100:
            raise UserError(
                f"data.patches.percentiles={percentiles!r}: must be two numbers, 0 ≤ first < last "
                "≤ 100"
            )
        return lambda values: _percentile(values, first, last)
    if intensity not in _SCALES:
        names = ", ".join(sorted((*_SCALES, "percentile")))
        raise UserError(
            f"data.patches.intensity={intensity!r}: must be one of {names}, or window with "
            "data.patches.window=(low, high)"
        )
    return _SCALES[intensity]


def _two_numbers(pair) -> tuple[float, float]:
    """As floats; what is no pair of numbers as NaN, which no comparison holds for."""
    try:
        low, high = (float(bound) for bound in pair)
    except (TypeError, ValueError):
        return np.nan, np.nan
    return low, high


def _to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    if not low < high:
        return np.zeros_like(values)
    return np.clip((values - low) / (high - low), 0, 1)


def _minmax(values: np.ndarray) -> np.ndarray:
    return _to_unit(values, values.min(), values.max())


def _percentile(values: np.ndarray, first: float, last: float) -> np.ndarray:
    low, high = np.percentile(values, (first, last))
    # An image that is nearly all background has equal percentiles, yet something to show.
    return _to_unit(values, low, high) if low < high else _minmax(values)


def _zscore(values: np.ndarray) -> np.ndarray:
    if values.min() == values.max():  # the computed deviation of a constant need not be 0
        return np.zeros_like(values)
    return (values - values.mean()) / values.std()


_SCALES = {"minmax": _minmax, "zscore": _zscore}
