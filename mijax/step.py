"""The training state, and the pure functions that advance it and predict from it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mijax import parallel
from mijax.errors import UserError
from mijax.methods import Batch, Output, Start
from mijax.models import CLASSIFIER
from mijax.sampling import counts_of, pick, step_keys, take
from mijax.transforms import augment


class TrainState(NamedTuple):
    """All that a run carries from step to step, and all that a checkpoint holds.

    ``outer`` is an ``outer.OuterState``, or None.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    memory: Any
    opt_state: Any
    key: jax.Array
    outer: Any = None


def make_init(model, method, optimizer, image_shape, *, outer=None) -> Callable:
    """``init(seed, slices, given) -> TrainState``; jit it, so that no two buffers are shared.

    ``slices`` is the number of unlabelled slices, static. ``given`` is a network and its
    statistics to begin with instead of random ones, all but its classifier, or None.
    """

    def init(seed, slices, given=None):
        key, network_key, method_key = jax.random.split(jax.random.key(seed), 3)
        image = jnp.zeros((1, *image_shape))

        def draw(key):
            (_, features), variables = model.init_with_output(key, image, train=False)
            network, batch_stats = variables["params"], variables.get("batch_stats", {})
            if given is not None:
                network, batch_stats = given[0] | {CLASSIFIER: network[CLASSIFIER]}, given[1]
            return network, batch_stats, features

        network, batch_stats, features = draw(network_key)
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
            step,
            params,
            batch_stats,
            memory,
            optimizer.init(params),
            jax.random.key_data(key),
            outer and outer.init(),
        )

    return init


def make_train_step(
    model,
    method,
    optimizer,
    *,
    mesh,
    label_loss,
    batches,
    augmentation,
    length,
    counts=None,
    outer=None,
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
      batches: ``Picks`` of the numbers of slices a step.
      augmentation: keywords of ``transforms.augment``.
      length: steps a call. 1 is unrolled; more are a ``lax.scan``, for GPU and TPU: XLA's
        CPU backend runs convolutions inside a loop tens of times slower.
      counts: of a training set that is on the host (see ``counts_of``); the function then
        takes what ``take`` makes of it by ``pick``, stacked over the steps.
      outer: ``Outer``, of weights that learn from the slices held out; None for none.

    Returns:
      The function. Its logs are scalars by name, each (length,).
    """

    def picks_of(state, counts):
        return pick(state.key, state.step, counts, batches)

    def augmented(rows, picks, memory, keys):
        image = label = unlabelled = position = pseudo_label = None
        if rows.image is not None:
            image, label = augment(keys.augment_labelled, rows.image, rows.label, **augmentation)
        if rows.unlabelled is not None:
            position = rows.unlabelled.position
            if method.rounds:
                pseudo_label = method.rounds.pseudo_labels(memory)[picks.unlabelled]
            unlabelled, pseudo_label = augment(
                keys.augment_unlabelled, rows.unlabelled.image, pseudo_label, **augmentation
            )
        return Batch(image, label, unlabelled, position, pseudo_label)

    def one_step(state, rows, picks):
        keys = step_keys(state.key, state.step)
        batch = augmented(rows, picks, state.memory, keys)

        def divided(images):
            if images.shape[0] % mesh.size:
                raise UserError(
                    f"{images.shape[0]} images a forward pass do not divide over {mesh.size} "
                    "devices; change config.labelled_batch, config.unlabelled_batch or "
                    "config.outer.batch"
                )
            return jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))

        forward = make_forward(model, state.batch_stats, divided=divided)

        def loss(params, weights):
            return (outer.method(weights) if outer else method).loss(
                params,
                state.memory,
                batch,
                forward=forward,
                label_loss=label_loss,
                step=state.step,
                key=keys.loss,
            )

        def gradients(weights):
            value, grads = jax.value_and_grad(loss, has_aux=True)(state.params, weights)
            return grads, value

        def updated(grads):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            return optax.apply_updates(state.params, updates), opt_state

        weights, outer_state = {}, None
        if outer:
            weights = outer.weights(state.outer)
            grads, to_weights, (value, aux) = jax.vjp(gradients, weights, has_aux=True)
            images, labels = rows.held_out

            def held_out_loss(grads):
                network = updated(grads)[0]["network"]
                variables = {"params": network, "batch_stats": aux.batch_stats}
                logits, _ = model.apply(variables, divided(images), train=False)
                return label_loss(logits, labels)

            slopes = jax.grad(held_out_loss)(grads)
            # Adam's square root has no derivative for a parameter that never had a gradient.
            slopes = jax.tree.map(lambda x: jnp.where(jnp.isfinite(x), x, 0.0), slopes)
            outer_state = outer.update(state.outer, to_weights(slopes)[0])
        else:
            grads, (value, aux) = gradients(weights)
        params, opt_state = updated(grads)
        memory = method.update(state.memory, params, aux.batch_stats, state.step)
        state = TrainState(
            state.step + 1, params, aux.batch_stats, memory, opt_state, state.key, outer_state
        )
        return state, {"loss": value, **aux.logs, **weights}

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


def make_forward(model, batch_stats, *, divided=lambda images: images) -> Callable:
    """``forward(network, *images, key, …) -> [Output]``, see ``Method.loss``, in one pass.

    Args:
      model: see ``make_train_step``.
      batch_stats: its running statistics.
      divided: what is done to the images of all streams together, before the pass.
    """

    def forward(network, *images, key, shared_statistics=False, perturb=None):
        counts = tuple(x.shape[0] for x in images)

        def split(x):
            return jnp.split(x, np.cumsum(counts[:-1]))

        def perturb_all(name, feature):
            return jnp.concatenate([perturb(i, name, x) for i, x in enumerate(split(feature))])

        (logits, features), updated = model.apply(
            {"params": network, "batch_stats": batch_stats},
            divided(jnp.concatenate(images)),
            train=True,
            streams=None if shared_statistics else counts,
            **({} if perturb is None else {"perturb": perturb_all}),
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        statistics = updated.get("batch_stats", {})
        features = {name: split(x) for name, x in features.items()}
        return [
            Output(x, {name: parts[i] for name, parts in features.items()}, statistics)
            for i, x in enumerate(split(logits))
        ]

    return forward


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
