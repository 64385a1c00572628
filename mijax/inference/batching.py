"""Stacks of slices through a network in batches that are full. Knows nothing of JAX."""

import itertools
from collections import deque
from concurrent.futures import ThreadPoolExecutor

import numpy as np


def predict_stacks(predict, weights, stacks, *, batch):
    """Yields the class probabilities of each stack of slices.

    Batches are filled across stacks of the same h and w and only the last one is padded, so
    that the network sees one shape and the device no idle rows.

    Args:
      predict: ``(weights, (batch, h, w, c)) -> (batch, h, w, k)``.
      weights: passed on.
      stacks: iterable of (n, h, w, c) float32, n may differ.
      batch: slices a call.

    Yields:
      (n, h, w, k) float32, in the order of the stacks.
    """
    for blocks in by_stack(predict_blocks(predict, weights, stacks, batch=batch)):
        yield np.concatenate(list(blocks))


def by_stack(blocks):
    """Yields an iterator over the blocks of each stack, to be used up before the next."""
    blocks = iter(blocks)

    def stack(block, ends):
        yield block
        while not ends:
            block, ends = next(blocks)
            yield block

    for first in blocks:
        yield stack(*first)


def predict_blocks(predict, weights, stacks, *, batch):
    """Yields the rows of each stack in one or several blocks, and whether it ends with that.

    As ``predict_stacks``, but ``predict`` may return a dict of arrays (batch, …) as well, and
    blocks are then such dicts.
    """
    for _, alike in itertools.groupby(stacks, key=lambda stack: stack.shape[1:]):
        left = deque()  # rows to come, of each stack that was taken
        for rows in _predict_chunks(predict, weights, _chunks(alike, left, batch), batch):
            while left and row_count(rows) >= left[0]:
                size = left.popleft()
                yield rows_at(rows, slice(size)), True
                rows = rows_at(rows, slice(size, None))
            if row_count(rows):
                left[0] -= row_count(rows)
                yield rows, False


def row_count(rows):
    """Number of rows of an array (rows, …), or of a dict of them."""
    return len(next(iter(rows.values())) if isinstance(rows, dict) else rows)


def rows_at(rows, where):
    """Some rows of an array (rows, …), or of a dict of them, on the host."""
    if isinstance(rows, dict):
        return {name: rows_at(x, where) for name, x in rows.items()}
    return np.asarray(rows)[where]


def _chunks(stacks, sizes, batch):
    """Yields the rows of the stacks by ``batch``, the last fewer, and notes their sizes."""
    waiting, count = None, 0
    for stack in stacks:
        sizes.append(len(stack))
        waiting = stack if waiting is None else np.concatenate([waiting, stack])
        while len(waiting) >= batch:
            yield waiting[:batch]
            waiting, count = waiting[batch:], count + 1
    if len(waiting) or not count:  # not even one row: its shape is asked for all the same
        yield waiting


def _predict_chunks(predict, weights, chunks, batch):
    """Yields what is found of each chunk; the device has the next before one is fetched."""
    coming = deque()
    for chunk in chunks:
        padding = [(0, batch - len(chunk))] + [(0, 0)] * (chunk.ndim - 1)
        coming.append((predict(weights, np.pad(chunk, padding)), slice(len(chunk))))
        if len(coming) > 1:
            yield rows_at(*coming.popleft())
    for found in coming:
        yield rows_at(*found)


def ahead(items):
    """The same items; the next one is made on a thread while the last is in use."""
    items, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item
