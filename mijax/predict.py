"""Class probabilities of slices, in full batches."""

from collections import deque

import numpy as np


def predict_stacks(predict, variables, stacks, *, batch):
    """Yields the class probabilities of each stack of slices.

    Batches are filled across stacks and only the last one is padded, so that the network
    sees one shape and the device no idle rows.

    Args:
      predict: ``(variables, (batch, h, w, c)) -> (batch, h, w, k)``.
      variables: passed on.
      stacks: iterable of (n, h, w, c) float32, n may differ.
      batch: slices a call.

    Yields:
      (n, h, w, k) float32, in the order of the stacks.
    """
    sizes, images, probs = deque(), [], []

    def run(rows):
        waiting = np.concatenate(images)
        chunk, images[:] = waiting[:rows], [waiting[rows:]]
        padding = [(0, batch - len(chunk))] + [(0, 0)] * (chunk.ndim - 1)
        probs.append(np.asarray(predict(variables, np.pad(chunk, padding)))[: len(chunk)])

    def finished():
        while sizes and probs and sum(map(len, probs)) >= sizes[0]:
            done = np.concatenate(probs)
            probs[:] = [done[sizes[0] :]]
            yield done[: sizes.popleft()]

    for stack in stacks:
        sizes.append(len(stack))
        images.append(stack)
        while sum(map(len, images)) >= batch:
            run(batch)
        yield from finished()
    while sum(map(len, images)) or (sizes and not probs):  # or nothing but empty stacks
        run(batch)
    yield from finished()
