"""Volumes from files to slices: sources, splits by patient, preprocessing and its inverse.

Knows nothing of JAX. TFDS is imported only when a source is opened.
"""

from mijax.data.bias import correct_bias
from mijax.data.slices import Grid, Slices, cut, native_slice, pixel_size, to_native, to_slices
from mijax.data.source import Source, open_source
from mijax.data.splits import Splits, check_splits, draw_splits, read_splits, write_splits
from mijax.data.volume import Case, Volume

__all__ = [
    "Case",
    "Grid",
    "Slices",
    "Source",
    "Splits",
    "Volume",
    "check_splits",
    "correct_bias",
    "cut",
    "draw_splits",
    "native_slice",
    "open_source",
    "pixel_size",
    "read_splits",
    "to_native",
    "to_slices",
    "write_splits",
]
