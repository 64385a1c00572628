"""A configuration made into the parts of a run."""

import contextlib
import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mijax import methods, parallel
from mijax.data import Volume, correct_bias, list_cases, open_source, slice_flags, to_slices
from mijax.errors import UserError
from mijax.lock import locked
from mijax.losses.labels import LABEL_LOSSES, label_loss
from mijax.models import UNet
from mijax.optimizer import learning_rate, make_optimizer
from mijax.outer import Outer, make_outer
from mijax.sampling import Picks
from mijax.step import make_features, make_init, make_predict_step, make_train_step
from mijax.values import check_numbers, check_sizes

_OWN_KEYS = {  # of config.data; any other is an option of its source
    "source", "dir", "splits", "split_seed", "labelled_cases", "validation_cases", "test_cases",
    "size", "fit", "spacing", "plane", "intensity", "window", "percentiles",
}  # fmt: skip


class Experiment(NamedTuple):
    """Parts of a run that depend on its configuration and on the shape of its data.

    Attributes:
      mesh: of all devices.
      method: ``methods.Method``.
      outer: ``Outer`` of its weights that learn, or None.
      batches: ``Picks`` of the numbers of slices a step.
      schedule: step → learning rate.
      init: ``(seed, slices, given=None) -> TrainState``, jitted, see ``step.make_init``.
      train_step: (number of steps, counts=None) → jitted train step of so many, see
        ``step.make_train_step``.
      predict: ``(variables, images) -> probs``, jitted.
      measure: ``(state, images) -> {name: scalar}``, jitted; None for a method that segments.
      clusters: ``(state, images) -> (b, h, w)``, jitted, or None.
      score: name of the value of the validation that ranks checkpoints.
      predict_batch: images a call of these.
      stride: height and width of an image are multiples of it.
    """

    mesh: Any
    method: methods.Method
    outer: Outer | None
    batches: Picks
    schedule: Callable
    init: Callable
    train_step: Callable
    predict: Callable
    measure: Callable | None
    clusters: Callable | None
    score: str
    predict_batch: int
    stride: int

    def like(self, slices):
        """Shapes and shardings of a ``TrainState`` with so many unlabelled slices."""
        sharding = parallel.replicated(self.mesh)
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            self.init.eval_shape(0, slices),
        )


def build(config, *, classes, channels, devices=None):
    """The parts of a run for ``classes`` (names, background first) and image channels.

    Raises:
      UserError: for values that do not go together.
    """
    check_numbers(config)
    mesh = parallel.make_mesh(devices)
    method = _method(config)
    outer = _outer(config, method)
    batches = Picks(config.labelled_batch, config.unlabelled_batch, outer and outer.batch)
    kind = config.get("label_loss", "cross_entropy")
    if kind not in LABEL_LOSSES:
        raise UserError(f"config.label_loss is one of {', '.join(LABEL_LOSSES)}, not {kind!r}")
    try:
        dtype = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}[config.precision]
    except KeyError:
        raise UserError(
            f"config.precision is float32 or bfloat16, not {config.precision!r}"
        ) from None
    model = UNet(
        num_classes=len(classes),
        widths=tuple(config.model.widths),
        dropout=config.model.dropout,
        encoder_dropout=tuple(config.model.get("encoder_dropout", ())),
        blocks=mesh.devices.flat[0].platform == "tpu" and len(config.model.widths) > 1,
        dtype=dtype,
    )
    schedule = learning_rate(
        config.get("schedule", "cosine"),
        peak=config.learning_rate,
        warmup_steps=config.warmup_steps,
        steps=config.steps,
    )
    optimizer = make_optimizer(
        config.get("optimizer", "adam"),
        schedule,
        weight_decay=config.weight_decay,
        momentum=config.get("momentum", 0.9),
    )
    augmentation = check_sizes(config, model.stride)
    replicated = parallel.replicated(mesh)
    jit = functools.partial(jax.jit, out_shardings=replicated)

    def train_step(length, counts=None):
        step = make_train_step(
            model,
            method,
            optimizer,
            mesh=mesh,
            label_loss=functools.partial(label_loss, kind=kind),
            batches=batches,
            augmentation=augmentation,
            length=length,
            counts=counts,
            outer=outer,
        )
        return jit(step, donate_argnums=0)

    init = make_init(model, method, optimizer, (*config.data.size, channels), outer=outer)
    predict = make_predict_step(model, mesh=mesh)
    return Experiment(
        mesh=mesh,
        method=method,
        outer=outer,
        batches=batches,
        schedule=schedule,
        init=jit(init, static_argnums=1, compiler_options=_for_once(mesh)),
        train_step=train_step,
        predict=jit(predict),
        **_examination(method.examination, make_features(model, mesh=mesh), jit),
        predict_batch=-(-config.predict_batch // mesh.size) * mesh.size,
        stride=model.stride,
    )


def _for_once(mesh):
    """Options of the compiler for a program that is run once.

    LLVM's optimisations of the hundred draws of an initial network take 30 s of a core on a CPU,
    and without them it is done in 6; its values are the same but for the last bit.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if on_cpu else None


def check(config, *, devices=None):
    """Refuses values that do not go together; before the data are read, which may take minutes.

    Returns:
      ``Experiment``, of classes and channels that are not yet known.

    Raises:
      UserError: as ``build`` and ``data.to_slices``.
    """
    if not config.data.size:
        open_data(config, check=functools.partial(_without_size, config.data))
    experiment = build(config, classes=("background", "object"), channels=1, devices=devices)
    voxel = Volume("", np.zeros((1, 1, 1, 1), np.float32), None, np.diag([1e-9] * 3 + [1]))
    slice_volume(voxel, config.data)
    return experiment


def _without_size(data, cases, geometry):
    """Refuses ``config.data`` without a size, with one that the headers propose."""
    found = {}
    for case in cases:
        with contextlib.suppress(UserError):  # a bad header, told when there is a size
            found[case.name] = geometry(case.name)
    advice = f"python -m mijax.inspect {data.dir} tells more"
    if found:
        flags = slice_flags(found, plane=data.plane, spacing=data.spacing)
        advice = f"{flags} holds every slice of {len(found)} cases whole; {advice}"
    raise UserError(f"no config.data.size is given; {advice}")


def _method(config, weights=None):
    """The method of a configuration; with ``weights`` in the place of its own, if given."""
    hyperparameters = config.method.to_dict() | (weights or {})
    method = methods.build(hyperparameters.pop("name"), **hyperparameters)
    if not config.get("teacher", {}).get("decay"):
        return method
    try:
        return methods.with_teacher(method, **config.teacher.to_dict())
    except ValueError as error:
        raise UserError(f"config.teacher: {error}") from error


def _outer(config, method):
    """``Outer`` of ``config.outer``, or None where no weight is named there."""
    outer = config.get("outer", {})
    if not outer.get("weights"):
        return None
    if method.examination:
        raise UserError(f"config.outer: {config.method.name} has no loss of labels to learn from")
    try:
        return make_outer(
            functools.partial(_method, config),
            config.method.to_dict(),
            **outer.to_dict(),
        )
    except ValueError as error:
        raise UserError(f"config.outer: {error}") from error


def _examination(examination, features, jit):
    """``measure``, ``clusters`` and ``score`` of an ``Experiment``."""
    if examination is None:
        return {"measure": None, "clusters": None, "score": "dsc"}

    def of(state):
        return lambda network, images: features(network, state.batch_stats, images)

    def measure(state, images):
        key = jax.random.key(0)
        return examination.measures(state.params, images, features=of(state), key=key)

    def clusters(state, images):
        return examination.clusters(state.params, images, features=of(state))

    return {
        "score": examination.score,
        "measure": jit(measure),
        "clusters": examination.clusters and jit(clusters),
    }


def open_data(config, *, check=None, tell=lambda line: None):
    """The ``Source`` of a run, prepared in the cache where it was not yet; see ``open_source``.

    Oddities of the folder are told of by whoever trains on it, and not again by default.
    """
    data, cache = config.data, Path(config.cache).expanduser() / "data"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):  # a cache that can only be read needs no lock
            stack.enter_context(locked(cache / ".lock", tell=tell, wait=True))
        return open_source(
            data.source, directory=data.dir, cache=str(cache), check=check, **_options(data)
        )


def cases_of(config):
    """The cases of the data of a run, without opening a file; see ``data.list_cases``."""
    data, cache = config.data, Path(config.cache).expanduser() / "data"
    return list_cases(data.source, directory=data.dir, cache=str(cache), **_options(data))


def same_volumes(data, other):
    """Whether two ``config.data`` are of one folder, or drawn alike, however they use it."""

    def volumes(d):
        if d.dir:
            return os.path.realpath(os.path.expanduser(d.dir))
        # As JSON, which a run was read from, and which knows no tuples.
        drawn = {k: d[k] for k in ("seed", "patients", "shape") if k in d}
        return json.dumps([d.source, drawn], sort_keys=True)

    return volumes(data) == volumes(other)


def _options(data):
    return {k: v for k, v in data.items() if k not in _OWN_KEYS}


def slice_volume(volume, data, *, stored=True, multiple=None):
    """``data.to_slices`` of a volume as ``config.data`` says.

    Args:
      volume: ``Volume``.
      data: ``config.data``.
      stored: whether it comes from ``open_data``, which stores images without their bias field;
        that of a new scan is corrected here, which takes seconds.
      multiple: as there.
    """
    if data.bias_correction and not stored:
        volume = correct_bias(volume)
    intensity = data.window if data.intensity == "window" else data.intensity
    return to_slices(
        volume,
        size=data.size,
        fit=data.fit,
        spacing=data.spacing,
        plane=data.plane,
        intensity=intensity,
        percentiles=data.percentiles,
        multiple=multiple,
    )
