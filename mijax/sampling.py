"""Which training slices each step takes."""

from typing import NamedTuple

import jax

from mijax.methods import Unlabelled


class TrainingSet(NamedTuple):
    """Training slices, or those of one step; None for what the method does not ask for.

    Attributes:
      image: (n, h, w, c), labelled.
      label: (n, h, w).
      unlabelled: ``methods.Unlabelled``, m slices.
      held_out: image (v, h, w, c) and label (v, h, w) of validation cases, for ``outer``.
    """

    image: jax.Array | None
    label: jax.Array | None
    unlabelled: Unlabelled | None
    held_out: tuple[jax.Array, jax.Array] | None = None


class Picks(NamedTuple):
    """Indices of the training slices that a step takes, or None as in ``TrainingSet``.

    Attributes:
      labelled: (b,).
      unlabelled: (u,).
      held_out: (v,).
    """

    labelled: jax.Array | None
    unlabelled: jax.Array | None
    held_out: jax.Array | None


def pick(key, step, counts, batches):
    """The slices of a step, drawn with replacement.

    Args:
      key: of the state.
      step: number of the step.
      counts: ``Picks`` of the numbers of slices there are, of ``counts_of``.
      batches: ``Picks`` of the numbers to take.

    Returns:
      ``Picks``, the same on any backend.
    """
    batch_key = step_keys(key, step)[0]
    keys = jax.random.split(batch_key, 4)
    # Not fold_in by 0 to 3, which are the keys of the split once more.
    keys = Picks(keys[0], keys[2], jax.random.fold_in(batch_key, 4))
    return Picks(
        *(
            None if count is None else jax.random.randint(key, (batch,), 0, count)
            for key, batch, count in zip(keys, batches, counts, strict=True)
        )
    )


def counts_of(training_set):
    """``Picks`` of the numbers of slices, or None."""
    image, _, unlabelled, held_out = training_set
    return Picks(
        None if image is None else len(image),
        None if unlabelled is None else len(unlabelled.image),
        None if held_out is None else len(held_out[0]),
    )


def take(training_set, picks):
    """The ``TrainingSet`` of one step."""

    def rows(part, indices):
        return jax.tree.map(lambda x: x[indices], part)

    return TrainingSet(
        rows(training_set.image, picks.labelled),
        rows(training_set.label, picks.labelled),
        rows(training_set.unlabelled, picks.unlabelled),
        rows(training_set.held_out, picks.held_out),
    )


def step_keys(key, step):
    """Keys of the batch and of the loss of a step."""
    return jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))
