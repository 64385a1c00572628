"""The training state, and the pure functions that advance it and predict from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from mijax import parallel
from mijax.errors import UserError
from mijax.methods import Batch, Output, Start, Unlabelled
from mijax.models import CLASSIFIER
from mijax.transforms import augment


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds."""

    step: jax.Array
    params: Any
    batch_stats: Any
    memory: Any
    opt_state: Any
    key: jax.Array


class TrainingSet(NamedTuple):
    """Training slices, or those of one step; None for what the method does not ask for.

    Attributes:
      image: (n, h, w, c), labelled.
      label: (n, h, w).
      unlabelled: ``methods.Unlabelled``, m slices.
    """

    image: jax.Array | None
    label: jax.Array | None
    unlabelled: Unlabelled | None


def make_init(model, method, optimizer, image_shape) -> Callable:
    """``init(seed, slices, given) -> TrainState``; jit it, so that no two buffers are shared.

    ``slices`` is the number of unlabelled slices, static. ``given`` is a network and its
    statistics to begin with instead of random ones, all but its classifier, or None.
    """

    def init(seed, slices, given=None):
        key, network_key, method_key = jax.random.split(jax.random.key(seed), 3)
        image = jnp.zeros((1, *image_shape))

        def draw(key):
            (_, features), variables = model.init_with_output(key, image, train=False)
            return variables["params"], variables.get("batch_stats", {}), features

        network, batch_stats, features = draw(network_key)
        if given is not None:
            network, batch_stats = given[0] | {CLASSIFIER: network[CLASSIFIER]}, given[1]
        heads, memory = method.init(
            method_key,
            Start(
                network=network,
                batch_stats=batch_stats,
                features={name: x.shape for name, x in features.items()},
                slices=(slices, *image_shape[:2]),
                another=lambda key: draw(key)[0],
            ),
        )
        params = {"network": network, **heads}
        step = jnp.zeros((), jnp.int32)
        return TrainState(
            step, params, batch_stats, memory, optimizer.init(params), jax.random.key_data(key)
        )

    return init


class Picks(NamedTuple):
    """Which training slices a step takes: indices, or None as in ``TrainingSet``.

    Attributes:
      labelled: (b,).
      unlabelled: (u,).
    """

    labelled: jax.Array | None
    unlabelled: jax.Array | None


def pick(key, step, counts, *, labelled_batch, unlabelled_batch):
    """The slices of a step, drawn with replacement.

    Args:
      key: of the state.
      step: number of the step.
      counts: numbers of labelled and of unlabelled slices there are, or None.
      labelled_batch, unlabelled_batch: b and u.

    Returns:
      ``Picks``, the same on any backend.
    """
    keys = jax.random.split(_step_keys(key, step)[0], 4)

    def choose(key, batch, count):
        return None if count is None else jax.random.randint(key, (batch,), 0, count)

    return Picks(
        choose(keys[0], labelled_batch, counts[0]), choose(keys[2], unlabelled_batch, counts[1])
    )


def counts_of(training_set):
    """Numbers of labelled and of unlabelled slices, or None."""
    image, _, unlabelled = training_set
    return (
        None if image is None else len(image),
        None if unlabelled is None else len(unlabelled.image),
    )


def take(training_set, picks):
    """The ``TrainingSet`` of one step."""

    def rows(part, indices):
        return jax.tree.map(lambda x: x[indices], part)

    return TrainingSet(
        rows(training_set.image, picks.labelled),
        rows(training_set.label, picks.labelled),
        rows(training_set.unlabelled, picks.unlabelled),
    )


def make_train_step(
    model,
    method,
    optimizer,
    *,
    mesh,
    label_loss,
    labelled_batch,
    unlabelled_batch,
    augmentation,
    length,
    counts=None,
) -> Callable:
    """``train_step(state, training_set) -> (state, logs)``, to be jitted.

    Draws its own slices, augments them, and updates; everything random comes from the key of
    the state and the number of the step, nothing from the host.

    Args:
      model: Linen module, ``model.apply(variables, images, train=…, streams=…) -> (logits,
        features)``.
      method: ``Method``.
      optimizer: Optax transformation.
      mesh: of all devices; each forward pass is divided over it by images.
      label_loss: ``(logits, labels) -> scalar``.
      labelled_batch: labelled slices a step, b.
      unlabelled_batch: unlabelled slices a step, u.
      augmentation: keywords of ``transforms.augment``.
      length: steps a call. 1 is unrolled; more are a ``lax.scan``, for GPU and TPU: XLA's
        CPU backend runs convolutions inside a loop tens of times slower.
      counts: of a training set that is on the host (see ``counts_of``); the function then
        takes what ``take`` makes of it by ``pick``, stacked over the steps.

    Returns:
      The function. Its logs are scalars by name, each (length,).
    """

    def picks_of(state, counts):
        batches = {"labelled_batch": labelled_batch, "unlabelled_batch": unlabelled_batch}
        return pick(state.key, state.step, counts, **batches)

    def augmented(rows, picks, memory, key):
        keys = jax.random.split(key, 4)
        image = label = unlabelled = position = pseudo_label = None
        if rows.image is not None:
            image, label = augment(keys[1], rows.image, rows.label, **augmentation)
        if rows.unlabelled is not None:
            position = rows.unlabelled.position
            pseudo_label = method.pseudo_labels(memory)
            unlabelled, pseudo_label = augment(
                keys[3],
                rows.unlabelled.image,
                None if pseudo_label is None else pseudo_label[picks.unlabelled],
                **augmentation,
            )
        return Batch(image, label, unlabelled, position, pseudo_label)

    def one_step(state, rows, picks):
        batch_key, loss_key = _step_keys(state.key, state.step)
        batch = augmented(rows, picks, state.memory, batch_key)

        def forward(network, images, *, key, streams=None):
            if images.shape[0] % mesh.size:
                raise UserError(
                    f"{images.shape[0]} images a forward pass do not divide over {mesh.size} "
                    "devices; change config.labelled_batch or config.unlabelled_batch"
                )
            images = jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))
            (logits, features), updated = model.apply(
                {"params": network, "batch_stats": state.batch_stats},
                images,
                train=True,
                streams=streams,
                mutable=["batch_stats"],
                rngs={"dropout": key},
            )
            return Output(logits, features, updated.get("batch_stats", {}))

        def loss(params):
            return method.loss(
                params,
                state.memory,
                batch,
                forward=forward,
                label_loss=label_loss,
                step=state.step,
                key=loss_key,
            )

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        memory = method.update(state.memory, params, aux.batch_stats, state.step)
        state = TrainState(state.step + 1, params, aux.batch_stats, memory, opt_state, state.key)
        return state, {"loss": value, **aux.logs}

    def resident(state, training_set):
        picks = picks_of(state, counts_of(training_set))
        return one_step(state, take(training_set, picks), picks)

    def streamed(state, rows):
        return one_step(state, rows, picks_of(state, counts))

    def train_step(state, training_set):
        step = streamed if counts else lambda state, _: resident(state, training_set)
        each = training_set if counts else None
        if length > 1:
            return jax.lax.scan(step, state, each, length=length)
        state, logs = step(state, jax.tree.map(lambda x: x[0], each))
        return state, jax.tree.map(lambda x: x[None], logs)

    return train_step


def make_features(model, *, mesh) -> Callable:
    """``features(network, batch_stats, images) -> {name: (b, h, w, c)}``, as at test time."""

    def features(network, batch_stats, images):
        images = jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))
        variables = {"params": network, "batch_stats": batch_stats}
        return model.apply(variables, images, train=False)[1]

    return features


def make_predict_step(model, *, mesh) -> Callable:
    """``predict_step((network, batch_stats), images) -> probs``, (b, h, w, k), to be jitted."""

    def predict_step(variables, images):
        images = jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))
        network, batch_stats = variables
        logits, _ = model.apply(
            {"params": network, "batch_stats": batch_stats}, images, train=False
        )
        return jax.nn.softmax(logits)

    return predict_step


def _step_keys(key, step):
    """Keys of the batch and of the loss of a step."""
    return jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(key), step))
