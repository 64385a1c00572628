"""The batches of each step: which training slices it takes, or which patches of volumes."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mijax.methods import Unlabelled
from mijax.training.ragged import Ragged, patches


class TrainingSet(NamedTuple):
    """Training slices, or those of one step; None for what the method does not ask for.

    Attributes:
      image: (n, *space, c), labelled slices (h, w) or 3-D images (d, h, w); or ``Ragged``, n whole
        volumes that patches are cut from, and so for all below.
      label: (n, *space).
      unlabelled: ``methods.Unlabelled``, m slices.
      held_out: images (v, *space, c) and labels of validation cases, for the hyper-gradient.
      foreground: (n, m, number of axes) places of m voxels of structures in each labelled image,
        which crops are centred on, see ``training_set.foreground_places``; None in a batch.
    """

    image: jax.Array | Ragged | None
    label: jax.Array | Ragged | None
    unlabelled: Unlabelled | None
    held_out: tuple[jax.Array, jax.Array] | None = None
    foreground: jax.Array | None = None


class PerRole(NamedTuple):
    """One thing for each role of the slices, None for a role that there is not.

    How many slices there are, how many a step takes, or which.
    """

    labelled: Any
    unlabelled: Any
    held_out: Any


class Cropping(NamedTuple):
    """How images are cropped.

    Attributes:
      patch: (d, h, w) that are cut from whole volumes, or None where images are of one size.
      box: (d, h, w) of what is cut first, with all that augmentation can bring into a patch.
      foreground: part of the labelled crops that is centred on a structure.
    """

    patch: tuple[int, int, int] | None = None
    box: tuple[int, int, int] | None = None
    foreground: float = 0.0


UNCROPPED = Cropping()  # but by augmentation, at random places


class Pick(NamedTuple):
    """Which images of a role a step takes.

    Attributes:
      index: (b,).
      centre: (b, axes) voxels that patches of whole volumes are cut about; or that crops are
        centred on, NaN for a random place; or None, where all crops lie anywhere.
    """

    index: jax.Array
    centre: jax.Array | None


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


def pick(key, step, training_set, batches, cropping=UNCROPPED):
    """The slices of a step, drawn with replacement.

    Args:
      key: of the state.
      step: number of the step.
      training_set: ``TrainingSet``, whose images are not looked at.
      batches: ``PerRole``, how many to take.
      cropping: ``Cropping``.

    Returns:
      ``PerRole`` of ``Pick``, the same on any backend.
    """
    keys = step_keys(key, step)
    image, _, unlabelled, held_out, places = training_set
    return PerRole(
        _drawn(keys.labelled, image, batches.labelled, cropping, places),
        _drawn(keys.unlabelled, unlabelled and unlabelled.image, batches.unlabelled, cropping),
        _drawn(keys.held_out, held_out and held_out[0], batches.held_out, cropping),
    )


def _drawn(key, images, batch, cropping, places=None):
    if images is None:
        return None
    index, centre = jax.random.randint(key, (batch,), 0, len(images)), None
    where_key, part_key, place_key = jax.random.split(jax.random.fold_in(key, 0), 3)
    if cropping.patch:
        patch = np.int32(cropping.patch)[None]
        slack = jnp.asarray(images.sizes)[index] - patch
        centre = jax.random.randint(where_key, slack.shape, 0, slack + 1, jnp.int32) + patch // 2
    if places is None:
        return Pick(index, centre)
    which = jax.random.randint(place_key, (batch,), 0, places.shape[1])
    found = jnp.asarray(places)[index, which]
    if cropping.patch:
        found = jnp.clip(found, patch // 2, slack + patch // 2)
    else:
        found, centre = found.astype(jnp.float32), jnp.float32(jnp.nan)
    chosen = jax.random.bernoulli(part_key, jnp.float32(cropping.foreground), (batch, 1))
    return Pick(index, jnp.where(chosen, found, centre))


def counts_of(training_set):
    """``PerRole``, how many slices there are."""
    image, _, unlabelled, held_out, _ = training_set
    return PerRole(
        None if image is None else len(image),
        None if unlabelled is None else len(unlabelled.image),
        None if held_out is None else len(held_out[0]),
    )


def take(training_set, picks, cropping=UNCROPPED):
    """The ``TrainingSet`` of one step, of whole volumes their boxes; of picks of ``pick``."""

    def rows(part, picked, size):
        return jax.tree.map(
            lambda x: (
                patches(x, picked.index, picked.centre, size)
                if isinstance(x, Ragged)
                else x[picked.index]
            ),
            part,
            is_leaf=lambda x: isinstance(x, Ragged),
        )

    return TrainingSet(
        rows(training_set.image, picks.labelled, cropping.box),
        rows(training_set.label, picks.labelled, cropping.box),
        rows(training_set.unlabelled, picks.unlabelled, cropping.box),
        rows(training_set.held_out, picks.held_out, cropping.patch),
    )


def step_keys(key, step):
    """``StepKeys`` of a step, from the key of the state."""
    batch, loss = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))
    return StepKeys(*jax.random.split(batch, 5), loss)
