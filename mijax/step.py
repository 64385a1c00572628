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
    """Training slices on the device; None for what the method does not ask for.

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

    Returns:
      The function. Its logs are scalars by name, each (length,).
    """

    def draw(training_set, memory, key):
        keys = jax.random.split(key, 4)
        image = label = unlabelled = position = pseudo_label = None
        if training_set.image is not None:
            chosen = _choose(keys[0], training_set.image, labelled_batch)
            image, label = augment(
                keys[1], training_set.image[chosen], training_set.label[chosen], **augmentation
            )
        if training_set.unlabelled is not None:
            chosen = _choose(keys[2], training_set.unlabelled.image, unlabelled_batch)
            position = training_set.unlabelled.position[chosen]
            pseudo_label = method.pseudo_labels(memory)
            unlabelled, pseudo_label = augment(
                keys[3],
                training_set.unlabelled.image[chosen],
                None if pseudo_label is None else pseudo_label[chosen],
                **augmentation,
            )
        return Batch(image, label, unlabelled, position, pseudo_label)

    def one_step(state, training_set):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        batch_key, loss_key = jax.random.split(key)
        batch = draw(training_set, state.memory, batch_key)

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

    def train_step(state, training_set):
        if length == 1:
            state, logs = one_step(state, training_set)
            return state, jax.tree.map(lambda x: x[None], logs)
        return jax.lax.scan(lambda s, _: one_step(s, training_set), state, length=length)

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


def _choose(key, images, count):
    return jax.random.randint(key, (count,), 0, images.shape[0])
