"""A configuration made into what trains: the parts of a run."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax

from mijax import methods, parallel
from mijax.data.patches import voxel_size
from mijax.errors import UserError
from mijax.inference.network import Network, make_network
from mijax.inference.scoring import Scoring, make_scoring
from mijax.runs.method import make_method
from mijax.training.batches import Cropping, PerRole
from mijax.training.gaps import make_label_loss
from mijax.training.hypergradient import make_hypergradient
from mijax.training.optimizer import learning_rate, make_optimizer
from mijax.training.state import make_init
from mijax.training.step import make_train_step
from mijax.transforms import reach


class Experiment(NamedTuple):
    """Parts of a run that depend on its configuration and on the shape of its data.

    Attributes:
      classes: names, background first.
      channels: of an image.
      method: ``methods.Method``.
      network: ``inference.network.Network``.
      scoring: ``inference.scoring.Scoring``.
      batches: ``PerRole``, how many slices a step takes.
      cropping: ``Cropping``.
      schedule: step → learning rate.
      init: ``(seed, slices, given=None) -> TrainState``, jitted, see ``state.make_init``.
      train_step: (number of steps, streamed=False, *, gaps=False, undrawn=()) → jitted train step
        of so many, see ``step.make_train_step`` and ``gaps.make_label_loss``.
    """

    classes: tuple[str, ...]
    channels: int
    method: methods.Method
    network: Network
    scoring: Scoring
    batches: PerRole
    cropping: Cropping
    schedule: Callable
    init: Callable
    train_step: Callable

    @property
    def mesh(self):
        """Of all devices."""
        return self.network.mesh

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
      UserError: for a method, a precision or weights that there are not.
    """
    network = make_network(config, classes=len(classes), devices=devices)
    method = make_method(config)
    hypergradient = hypergradient_of(config, method)
    batches = PerRole(
        config.labelled_batch, config.unlabelled_batch, hypergradient and hypergradient.batch
    )
    schedule = learning_rate(
        config.schedule,
        peak=config.learning_rate,
        warmup_steps=config.warmup_steps,
        steps=config.steps,
    )
    optimizer = make_optimizer(
        config.optimizer, schedule, weight_decay=config.weight_decay, momentum=config.momentum
    )

    augmentation, cropping = augmentation_of(config)

    def train_step(length, streamed=False, *, gaps=False, undrawn=()):
        step = make_train_step(
            network.model,
            method,
            optimizer,
            mesh=network.mesh,
            label_loss=make_label_loss(
                config.label_loss, classes=len(classes), gaps=gaps, undrawn=undrawn
            ),
            batches=batches,
            augmentation=augmentation,
            cropping=cropping,
            length=length,
            streamed=streamed,
            hypergradient=hypergradient,
        )
        return network.jit(step, donate_argnums=0)

    shape = (*config.data.patches.size, channels)
    init = make_init(network.model, method, optimizer, shape, hypergradient=hypergradient)
    return Experiment(
        classes=tuple(classes),
        channels=channels,
        method=method,
        network=network,
        scoring=make_scoring(network, method.examination),
        batches=batches,
        cropping=cropping,
        schedule=schedule,
        init=network.jit(init, static_argnums=1, compiler_options=_for_once(network.mesh)),
        train_step=train_step,
    )


def augmentation_of(config):
    """Keywords of ``transforms.augment``, and the ``Cropping``, as a configuration says."""
    options = config.augmentation.to_dict()
    tilt, foreground = options.pop("tilt"), options.pop("foreground")
    patches = config.data.patches
    if tilt:
        options["rotation"] = (options["rotation"], tilt, tilt)
        if voxel := voxel_size(patches):  # so that what turns keeps its shape
            options["spacing"] = voxel
    if patches.fit != "whole":
        return options, Cropping(foreground=foreground if options["crop"] else 0.0)
    patch = tuple(patches.size)
    names = ("rotation", "shear", "scale", "quarter_turns", "spacing")
    ranges = {name: options[name] for name in names if name in options}
    return options | {"crop": patch}, Cropping(patch, reach(patch, **ranges), foreground)


def hypergradient_of(config, method):
    """``Hypergradient`` of ``config.hypergradient``, or None where no weight is named there.

    Raises:
      UserError: for a weight that there is not, or a method without a loss of labels.
    """
    options = config.hypergradient
    if not options.weights:
        return None
    if method.examination:
        raise UserError(
            f"config.hypergradient: {config.method.name} has no loss of labels to learn from"
        )
    try:
        return make_hypergradient(
            functools.partial(make_method, config), config.method.to_dict(), **options.to_dict()
        )
    except ValueError as error:
        raise UserError(f"config.hypergradient: {error}") from error


def _for_once(mesh):
    """Options of the compiler for a program that is run once.

    LLVM's optimisations of the hundred draws of an initial network take 30 s of a core on a CPU,
    and without them it is done in 6; its values are the same but for the last bit.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    return {"xla_backend_optimization_level": 0} if on_cpu else None
