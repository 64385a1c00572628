"""The pure function that advances the training state."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from mijax import parallel
from mijax.errors import UserError
from mijax.methods import Batch, Output
from mijax.training.batches import UNCROPPED, pick, step_keys, take
from mijax.training.hypergradient import Gradients
from mijax.transforms import augment


def make_train_step(
    model,
    method,
    optimizer,
    *,
    mesh,
    label_loss,
    batches,
    augmentation,
    cropping=UNCROPPED,
    length,
    streamed=False,
    hypergradient=None,
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
      batches: ``PerRole``, how many slices a step takes.
      augmentation: keywords of ``transforms.augment``.
      cropping: ``batches.Cropping``.
      length: steps a call. 1 is unrolled; more are a ``lax.scan``, for GPU and TPU: XLA's
        CPU backend runs convolutions inside a loop tens of times slower.
      streamed: whether the training set is on the host; the function then takes what
        ``feed.stream`` yields in its place.
      hypergradient: ``Hypergradient``, of weights that learn from the slices held out; None for
        none.

    Returns:
      The function. Its logs are scalars by name, each (length,).
    """
    update = make_update(
        model, method, optimizer, mesh=mesh, label_loss=label_loss, hypergradient=hypergradient
    )

    def one_step(state, taken):
        rows, picks = taken
        keys = step_keys(state.key, state.step)
        pseudo_labels = method.rounds and method.rounds.pseudo_labels(state.memory)
        batch = augmented(rows, picks, pseudo_labels, keys, augmentation, cropping)
        return update(state, batch, rows.held_out, keys.loss)

    def resident(state, training_set):
        picks = pick(state.key, state.step, training_set, batches, cropping)
        return one_step(state, (take(training_set, picks, cropping), picks))

    def train_step(state, training_set):
        step = one_step if streamed else lambda state, _: resident(state, training_set)
        each = training_set if streamed else None
        if length > 1:
            return jax.lax.scan(step, state, each, length=length)
        state, logs = step(state, jax.tree.map(lambda x: x[0], each))
        return state, jax.tree.map(lambda x: x[None], logs)

    return train_step


def augmented(rows, picks, pseudo_labels, keys, augmentation, cropping):
    """The ``Batch`` of a step.

    Args:
      rows: ``TrainingSet`` of the step.
      picks: ``PerRole`` of its ``Pick``.
      pseudo_labels: (m, h, w) of all unlabelled slices, or None.
      keys: ``StepKeys``.
      augmentation, cropping: see ``make_train_step``.
    """
    image = label = unlabelled = position = pseudo_label = None

    def centres(picked):
        if not cropping.patch:
            return picked.centre
        return np.broadcast_to(np.float32(cropping.box) // 2, picked.centre.shape)

    if rows.image is not None:
        around = centres(picks.labelled)
        image, label = augment(
            keys.augment_labelled, rows.image, rows.label, centres=around, **augmentation
        )
    if rows.unlabelled is not None:
        position = rows.unlabelled.position
        unlabelled, pseudo_label = augment(
            keys.augment_unlabelled,
            rows.unlabelled.image,
            None if pseudo_labels is None else pseudo_labels[picks.unlabelled.index],
            centres=centres(picks.unlabelled),
            **augmentation,
        )
    return Batch(image, label, unlabelled, position, pseudo_label)


def make_update(model, method, optimizer, *, mesh, label_loss, hypergradient) -> Callable:
    """``update(state, batch, held_out, key) -> (state, logs)``: one step of the optimiser.

    Arguments are those of ``make_train_step``. ``held_out`` are images and labels that the
    hyper-gradient learns from, and None without one.
    """

    def gradients(method, state, batch, key):
        forward = make_forward(model, state.batch_stats, mesh=mesh)

        def loss(params):
            return method.loss(
                params,
                state.memory,
                batch,
                forward=forward,
                label_loss=label_loss,
                step=state.step,
                key=key,
            )

        (value, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return Gradients(grads, value, aux)

    def updated(state, grads):
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return optax.apply_updates(state.params, updates), opt_state

    def held_out_loss(params, batch_stats, held_out):
        images, labels = held_out
        variables = {"params": params["network"], "batch_stats": batch_stats}
        return label_loss(model.apply(variables, divided(images, mesh), train=False)[0], labels)

    def update(state, batch, held_out, key):
        if hypergradient:
            found = hypergradient.gradients(
                state,
                held_out,
                gradients=lambda method: gradients(method, state, batch, key),
                updated=lambda grads: updated(state, grads)[0],
                held_out_loss=held_out_loss,
            )
        else:
            found = gradients(method, state, batch, key)
        params, opt_state = updated(state, found.grads)
        batch_stats = found.aux.batch_stats
        state = state._replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            memory=method.update(state.memory, params, batch_stats, state.step),
            opt_state=opt_state,
            hyper=found.hyper,
        )
        return state, {"loss": found.value, **found.aux.logs}

    return update


def make_forward(model, batch_stats, *, mesh=None) -> Callable:
    """``forward(network, *images, key, …) -> [Output]``, see ``Method.loss``, in one pass.

    Args:
      model: see ``make_train_step``.
      batch_stats: its running statistics.
      mesh: of all devices, over which the images of all streams together are divided; or None.
    """

    # With dropout in the order of one device, so that all numbers of devices drop the same.
    parts = 1 if mesh is None or getattr(model, "drops", False) else mesh.size

    def forward(network, *images, key, shared_statistics=False, perturb=None):
        joined = Joined([len(x) for x in images], parts)

        def perturb_all(name, feature):
            features = joined.split(feature)
            return joined.join([perturb(i, name, x) for i, x in enumerate(features)])

        together = joined.join(images)
        (logits, features), updated = model.apply(
            {"params": network, "batch_stats": batch_stats},
            together if mesh is None else divided(together, mesh),
            train=True,
            streams=None if shared_statistics else joined.streams,
            **({} if perturb is None else {"perturb": perturb_all}),
            mutable=["batch_stats"],
            rngs={"dropout": key},
        )
        statistics = updated.get("batch_stats", {})
        features = {name: joined.split(x) for name, x in features.items()}
        return [
            Output(x, {name: parts[i] for name, parts in features.items()}, statistics)
            for i, x in enumerate(joined.split(logits))
        ]

    return forward


class Joined:
    """Streams of images as one batch, and back.

    Where each stream divides over the devices, every device has its part of each, so that to
    join and to split them moves no image from one device to another.

    Attributes:
      streams: of which stream each image of the batch is.
    """

    def __init__(self, counts, devices):
        """Of the numbers of images of each stream."""
        self._devices = devices if all(count % devices == 0 for count in counts) else 1
        self._counts = [count // self._devices for count in counts]
        order = [i for i, count in enumerate(self._counts) for _ in range(count)]
        self.streams = tuple(order * self._devices)

    def join(self, streams):
        """(b_i, …) each -> (Σ b_i, …)."""
        n = self._devices
        parts = [x.reshape(n, c, *x.shape[1:]) for x, c in zip(streams, self._counts, strict=True)]
        return _flat(jnp.concatenate(parts, axis=1))

    def split(self, batch):
        """(Σ b_i, …) -> (b_i, …) each."""
        parts = batch.reshape(self._devices, -1, *batch.shape[1:])
        return [_flat(x) for x in jnp.split(parts, np.cumsum(self._counts[:-1]), axis=1)]


def _flat(x):
    return x.reshape(-1, *x.shape[2:])


def divided(images, mesh):
    """The images of a forward pass, divided over the devices.

    Raises:
      UserError: if that leaves a rest.
    """
    if images.shape[0] % mesh.size:
        raise UserError(
            f"{images.shape[0]} images a forward pass do not divide over {mesh.size} devices; "
            "change config.labelled_batch, config.unlabelled_batch or config.hypergradient.batch"
        )
    return jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))
