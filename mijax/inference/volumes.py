"""From volumes to label maps: the one way, for validation, evaluation and prediction alike.

Knows nothing of JAX: an exported network goes the same way, see ``runner``.
"""

import functools
import itertools
from collections import deque

import numpy as np

from mijax.data.grid import along_depth, native_slice, to_native
from mijax.data.patches import slice_volume
from mijax.inference.batching import ahead, by_stack, predict_blocks, row_count, rows_at
from mijax.inference.windows import windows
from mijax.metrics.components import largest_components


def segment(
    network,
    weights,
    volumes,
    *,
    stored=True,
    probabilities=False,
    confidence=False,
    largest_component=False,
    mirror=False,
):
    """Yields the label map of each volume on its native grid, and its probabilities.

    Of each voxel the most probable class, of equals the first, by the probabilities on the
    native grid. Those are made slice by slice: unless asked for, only two batches of them are in
    memory, since of a hundred classes those of a whole CT take as many gigabytes.

    The next volume is taken and sliced on a thread while the device works; one at a time, as
    a CT is hundreds of megabytes. Labels are not looked at. A slice that exceeds
    ``data.patches.size`` is padded further rather than refused, at the cost of compiling the
    network for its size.

    Args:
      network: ``network.Network``.
      weights: of it.
      volumes: iterable of ``data.Volume``.
      stored: see ``data.patches.slice_volume``; False for new scans.
      probabilities: whether those of all classes are wanted.
      confidence: whether that of the label of each voxel is wanted, in their place.
      largest_component: keep the largest of each class, see ``metrics.largest_components``; in
        the label map alone.
      mirror: predict the mirror images of each slice as well, see ``mirrored``.

    Yields:
      (x, y, z) uint8; and (x, y, z, k) float32, or (x, y, z), or None. The confidence is NaN
      where ``largest_component`` has another label than the most probable one.
    """
    predict = mirrored(network.predict) if mirror else network.predict
    for slices, grid in on_slices(network, predict, weights, volumes, stored=stored):
        keep = np.asarray if probabilities else _highest if confidence else None
        labels, probs = on_native_grid(slices, grid, keep=keep)
        if largest_component:
            chosen, labels = labels, largest_components(labels)
            if keep is _highest:
                probs[labels != chosen] = np.nan
        yield labels, probs


def on_slices(network, predict, weights, volumes, *, stored):
    """Yields what is found of each slice of each volume, and how the slices lie on the volume.

    Of a network of 3-D images: of each native slice, from overlapping windows of the volume.

    Args:
      network: ``network.Network``.
      predict: ``(weights, images (b, *space, c))`` to an array (b, …) or a dict; of 3-D images to
        class probabilities.
      weights: passed on.
      volumes: see ``segment``, and so for ``stored``.

    Yields:
      An iterator over these (1, …), to be used up before the next; and a ``data.Grid``.
    """
    made = deque()  # what is needed to put a volume together again

    def stacks():
        for volume in volumes:
            slices = slice_volume(
                volume._replace(label=None),
                network.slices,
                stored=stored,
                multiple=network.stride,
                patch=network.patch,
            )
            if network.patch is None:
                made.append(slices.grid)
                yield slices.image
                continue
            (image,) = slices.image
            plan = windows(image.shape[:3], network.patch)
            made.append((plan, slices.grid))
            for first in plan.starts[0]:
                yield plan.cut(image, first)

    stream = by_stack(predict_blocks(predict, weights, ahead(stacks()), batch=network.batch))
    for blocks in stream:
        if network.patch is None:
            rows = (
                rows_at(block, slice(i, i + 1)) for block in blocks for i in range(row_count(block))
            )
            yield rows, made.popleft()
        else:
            plan, grid = made.popleft()
            others = itertools.islice(stream, len(plan.starts[0]) - 1)
            planes = plan.blend(itertools.chain([blocks], others))
            yield along_depth(planes, grid), grid.in_plane


def even_slices(volumes, slices, *, count):
    """``count`` slices (count, h, w, c), evenly spaced over all slices of some volumes.

    Of 3-D images (count, d, h, w, c). Of those larger than ``data.patches.size`` the middle.
    """
    cuts = (slice_volume(v._replace(label=None), slices, middle=True) for v in volumes)
    images = np.concatenate([cut.image for cut in cuts])
    return images[np.linspace(0, len(images) - 1, count).round().astype(int)]


def on_native_grid(slices, grid, *, keep):
    """Label map of a volume from the probabilities of its slices, (1, h, w, k) each.

    Args:
      slices: iterable of them.
      grid: ``data.Grid``.
      keep: what of the probabilities of a slice on the native grid, (…, k), is wanted, or None.

    Returns:
      (x, y, z) uint8, and what was kept, float32, or None.
    """
    labels, soft = np.empty(grid.shape, np.uint8), None
    for place, one in enumerate(slices):
        probs, where = to_native(one, grid), native_slice(grid, place)
        labels[where] = most_probable(probs)
        if keep:
            kept = keep(probs)
            if soft is None:
                soft = np.empty((*grid.shape, *kept.shape[3:]), np.float32)
            soft[where] = kept
    return labels, soft


def mirrored(predict):
    """``predict`` of an image and of its mirror images along each axis and several; their mean.

    Args:
      predict: ``(weights, (b, *space, c)) -> (b, *space, k)`` probabilities.

    Returns:
      A function of the same arguments, which takes four times as long, or eight with a depth.
    """

    def mean(weights, images):
        space = range(1, images.ndim - 1)
        mirrors = [axes for n in range(len(space) + 1) for axes in itertools.combinations(space, n)]
        found = [_flipped(predict(weights, _flipped(images, axes)), axes) for axes in mirrors]
        return sum(found) / len(found)

    return mean


def _highest(probs):
    # Several times as fast as NumPy's maximum over a short last axis.
    return functools.reduce(np.maximum, np.moveaxis(probs, -1, 0))


def _flipped(x, axes):
    """``flip``, by which an array stays where it is: on the device, or on the host."""
    return x[tuple(slice(None, None, -1 if axis in axes else None) for axis in range(x.ndim))]


def most_probable(probs):
    """The class of highest probability, of equals the first: (..., k) -> (...) uint8."""
    return probs.argmax(-1).astype(np.uint8)
