"""Volumes from files to slices: sources, splits by patient, preprocessing and its inverse.

Knows nothing of JAX. TFDS is imported only when a source is opened.
"""

from mijax.data.annotation import (
    Annotation,
    Drawn,
    check_annotation,
    read_annotation,
    write_annotation,
)
from mijax.data.bias import correct_bias
from mijax.data.grid import Grid, along_depth, native_slice, to_native
from mijax.data.index import Source, index, list_cases, open_source, prepare
from mijax.data.slices import (
    Slices,
    check_slice_options,
    cut,
    pixel_size,
    slice_shape,
    to_slices,
)
from mijax.data.sources.arrays import write_arrays
from mijax.data.splits import (
    Splits,
    all_labelled,
    check_splits,
    complete_patients,
    count_patients,
    draw_splits,
    read_splits,
    write_splits,
)
from mijax.data.volume import UNLABELLED, Case, Volume

__all__ = [
    "UNLABELLED",
    "Annotation",
    "Case",
    "Drawn",
    "Grid",
    "Slices",
    "Source",
    "Splits",
    "Volume",
    "all_labelled",
    "along_depth",
    "check_annotation",
    "check_slice_options",
    "check_splits",
    "complete_patients",
    "correct_bias",
    "count_patients",
    "cut",
    "draw_splits",
    "index",
    "list_cases",
    "native_slice",
    "open_source",
    "pixel_size",
    "prepare",
    "read_annotation",
    "read_splits",
    "slice_shape",
    "to_native",
    "to_slices",
    "write_annotation",
    "write_arrays",
    "write_splits",
]
