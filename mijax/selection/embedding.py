"""What a scan looks like, as numbers: of the image alone, or of a network's features."""

import numpy as np

GRID = (6, 8, 8)  # cells of the coarse volume: across the slices, along h, along w
LEVELS = np.linspace(2, 98, 13)  # percentiles of the intensities


def describe(image, size):
    """A plain descriptor of a volume, as blocks by name.

    Args:
      image: (n, h, w, c), its slices as the network gets them.
      size: (3,) millimetres of the volume, axes in the order of RAS+.

    Returns:
      ``{"coarse": (6, 8, 8, c) means over cells of one size, "levels": (13, c) percentiles of the
      intensities, "size": (3,) logarithm of the millimetres}``, each as one axis.
    """
    coarse = image
    for axis, cells in enumerate(GRID):
        coarse = np.moveaxis(np.tensordot(pooling(image.shape[axis], cells), coarse, (1, axis)), 0,
                             axis)  # fmt: skip
    levels = np.percentile(image, LEVELS, axis=(0, 1, 2))
    return {"coarse": coarse.ravel(), "levels": levels.ravel(), "size": np.log(size)}


def by_thirds(rows):
    """Means (3 · d,) over the first, the middle and the last third of rows (n, d)."""
    return (pooling(len(rows), 3) @ rows).ravel()


def pooling(length, cells):
    """The matrix (cells, length) of means over cells of one size; pixels may lie in two cells."""
    edges = np.linspace(0, length, cells + 1)
    pixels = np.arange(length)
    first, last = np.maximum(edges[:-1, None], pixels), np.minimum(edges[1:, None], pixels + 1)
    return np.clip(last - first, 0, None) * cells / length


def standardised(rows):
    """Embeddings (p, d) of p patients from their blocks, comparable between data sets.

    Of each block the mean is taken away and the rest divided by the root of its total variance, so
    that two patients are √2 apart by it on (quadratic) average, whatever its units and length; and
    all by the root of the number of blocks.

    Args:
      rows: list of ``{block: (d,)}``, of one kind. A block that all have alike counts for nothing.
    """
    parts = []
    for name in rows[0]:
        block = np.array([row[name] for row in rows], np.float64)
        block -= block.mean(0)
        spread = np.sqrt(np.square(block).sum(1).mean())
        parts.append(block / spread if spread > 1e-9 else np.zeros_like(block))
    return np.concatenate(parts, axis=1) / np.sqrt(len(parts))
