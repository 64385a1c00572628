"""Sliding windows over a 3-D image: patches in, and the planes of what was found in them out."""

import itertools
from typing import NamedTuple

import numpy as np

OVERLAP = 0.5  # of neighbouring windows, along an axis
_SIGMA = 1 / 8  # of the Gaussian, in patches


class Windows(NamedTuple):
    """Where the windows of an image lie: the same distance apart along each axis.

    Attributes:
      patch: (d, h, w) of a window; no axis of the image is shorter.
      shape: (d, h, w) of the image.
      starts: first voxels of the windows along each axis.
    """

    patch: tuple[int, int, int]
    shape: tuple[int, int, int]
    starts: tuple[tuple[int, ...], ...]

    def cut(self, image, first):
        """The windows (n, *patch, c) of an image (d, h, w, c) whose first plane is ``first``."""
        return np.stack([image[self._where(first, *corner)] for corner in self._corners()])

    def blend(self, slabs):
        """Yields what was found of each plane of the image, a Gaussian mean over its windows.

        Weights fall from the middle of a window, where the network sees most around a voxel, to
        its border (Isensee et al., nnU-Net, Nature Methods 2021).

        Args:
          slabs: for each of ``starts[0]`` an iterator of blocks (n, *patch, k) of what was found
            in the windows of ``cut``, in their order.

        Yields:
          (h, w, k) float32. A slab of the image is in memory.
        """
        depth, weight = self.patch[0], gaussian(self.patch)[..., None]
        total = norm = None
        ends = (*self.starts[0][1:], self.shape[0])
        for first, end, blocks in zip(self.starts[0], ends, slabs, strict=True):
            corners = self._corners()
            for block in blocks:
                if total is None:
                    total = np.zeros((depth, *self.shape[1:], block.shape[-1]), np.float32)
                    norm = np.zeros((depth, *self.shape[1:], 1), np.float32)
                for found, corner in zip(block, corners, strict=False):
                    where = self._where(0, *corner)
                    total[where] += weight * found
                    norm[where] += weight
            done = end - first
            yield from total[:done] / norm[:done]
            total, norm = (_advanced(x, done) for x in (total, norm))

    def _corners(self):
        return itertools.product(*self.starts[1:])

    def _where(self, *corner):
        return tuple(slice(a, a + n) for a, n in zip(corner, self.patch, strict=True))


def windows(shape, patch, *, overlap=OVERLAP):
    """The ``Windows`` of an image, as few as overlap by that part along each axis.

    Args:
      shape: (d, h, w) of the image.
      patch: (d, h, w) of a window, no larger than the image along any axis.
      overlap: at least 0, below 1.
    """
    starts = []
    for size, width in zip(shape, patch, strict=True):
        stride = max(1, int(width * (1 - overlap)))
        count = -(-(size - width) // stride) + 1
        starts.append(tuple(np.linspace(0, size - width, count).round().astype(int).tolist()))
    return Windows(tuple(patch), tuple(shape), tuple(starts))


def gaussian(patch):
    """Weights of the voxels of a window, (*patch) float32; above 0 everywhere, 1 at the most."""
    axes = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n * _SIGMA)) ** 2) for n in patch]
    weight = np.prod(np.meshgrid(*axes, indexing="ij"), axis=0)
    return np.float32(weight / weight.max())


def _advanced(x, count):
    moved = np.zeros_like(x)
    moved[: len(x) - count] = x[count:]
    return moved
