"""The batches of each step: which training slices it takes."""

from typing import Any, NamedTuple

import jax

from mijax.methods import Unlabelled


class TrainingSet(NamedTuple):
    """Training slices, or those of one step; None for what the method does not ask for.

    Attributes:
      image: (n, *space, c), labelled slices (h, w) or 3-D images (d, h, w).
      label: (n, *space).
      unlabelled: ``methods.Unlabelled``, m slices.
      held_out: images (v, *space, c) and labels of validation cases, for the hyper-gradient.
      foreground: (n, m, number of axes) places of m voxels of structures in each labelled image,
        which crops are centred on; see ``training_set.foreground_places``.
    """

    image: jax.Array | None
    label: jax.Array | None
    unlabelled: Unlabelled | None
    held_out: tuple[jax.Array, jax.Array] | None = None
    foreground: jax.Array | None = None


class PerRole(NamedTuple):
    """One thing for each role of the slices, None for a role that there is not.

    How many slices there are, how many a step takes, their keys, or their indices.
    """

    labelled: Any
    unlabelled: Any
    held_out: Any


class StepKeys(NamedTuple):
    """Keys of one step, each for one use.

    Attributes:
      labelled, unlabelled, held_out: of which slices are taken.
      augment_labelled, augment_unlabelled: of their augmentation.
      loss: of the method.
    """

    labelled: jax.Array
    augment_labelled: jax.Array
    unlabelled: jax.Array
    augment_unlabelled: jax.Array
    held_out: jax.Array
    loss: jax.Array


def pick(key, step, counts, batches):
    """The slices of a step, drawn with replacement.

    Args:
      key: of the state.
      step: number of the step.
      counts: ``PerRole``, how many slices there are, of ``counts_of``.
      batches: ``PerRole``, how many to take.

    Returns:
      ``PerRole`` of their indices, the same on any backend.
    """
    keys = step_keys(key, step)
    keys = PerRole(keys.labelled, keys.unlabelled, keys.held_out)
    return PerRole(
        *(
            None if count is None else jax.random.randint(key, (batch,), 0, count)
            for key, batch, count in zip(keys, batches, counts, strict=True)
        )
    )


def counts_of(training_set):
    """``PerRole``, how many slices there are."""
    image, _, unlabelled, held_out, _ = training_set
    return PerRole(
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
        rows(training_set.foreground, picks.labelled),
    )


def step_keys(key, step):
    """``StepKeys`` of a step, from the key of the state."""
    batch, loss = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))
    return StepKeys(*jax.random.split(batch, 5), loss)
