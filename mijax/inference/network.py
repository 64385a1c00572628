"""The network that a configuration describes, and how it is run; its weights are arguments."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from mijax import parallel
from mijax.errors import UserError
from mijax.models import UNet
from mijax.options import tuples

PRECISIONS = {"float32": jnp.float32, "bfloat16": jnp.bfloat16}  # of activations


class Network(NamedTuple):
    """A network and its programs, compiled once for each shape of image.

    ``weights`` are what ``evaluated`` makes of a training state, and what is saved beside it.

    Attributes:
      model: Linen module.
      mesh: of all devices.
      predict: ``(weights, images (b, *space, c)) -> probs (b, *space, k)``, jitted.
      jit: ``jax.jit`` with results on every device.
      slices: ``config.data.patches``.
      batch: images a call.
      stride: each axis of an image is a multiple of these.
      patch: (d, h, w) of the windows that 3-D images are predicted in; None of slices.
    """

    model: Any
    mesh: jax.sharding.Mesh
    predict: Callable
    jit: Callable
    slices: Any
    batch: int
    stride: tuple[int, ...]
    patch: tuple[int, int, int] | None

    def features(self, weights):
        """``(network, images) -> {name: (b, h, w, c)}``, as at test time, by the statistics."""

        def features(network, images):
            variables = {"params": network, "batch_stats": weights["batch_stats"]}
            return self.model.apply(variables, self.divided(images), train=False)[1]

        return features

    def divided(self, images):
        """The images, divided over the devices."""
        return jax.lax.with_sharding_constraint(images, parallel.by_batch(self.mesh))


def patch_of(config):
    """(d, h, w) of the windows that 3-D images are predicted in, those of training; or None."""
    if config.data.patches.dims == 2:
        return None
    return tuple(config.augmentation.crop or config.data.patches.size)


def make_network(config, *, classes, devices=None):
    """The ``Network`` of a configuration.

    Args:
      config: of a run.
      classes: number of them.
      devices: to run on; all by default.

    Raises:
      UserError: for a precision that there is not.
    """
    mesh = parallel.make_mesh(devices)
    options = {name: tuples(value) for name, value in config.model.to_dict().items()}
    plain = config.data.patches.dims == 2 and not options["strides"] and not options["kernels"]
    on_tpu = mesh.devices.flat[0].platform == "tpu"
    model = UNet(
        num_classes=classes,
        **options,
        # A channel that is dropped would be one of a place in a block alone.
        blocks=on_tpu and plain and len(options["widths"]) > 1 and not options["encoder_dropout"],
        dtype=precision(config),
    )
    jit = functools.partial(jax.jit, out_shardings=parallel.replicated(mesh))

    def predict(weights, images):
        images = jax.lax.with_sharding_constraint(images, parallel.by_batch(mesh))
        variables = {
            "params": weights["params"]["network"], "batch_stats": weights["batch_stats"],
        }  # fmt: skip
        return jax.nn.softmax(model.apply(variables, images, train=False)[0])

    return Network(
        model=model,
        mesh=mesh,
        predict=jit(predict),
        jit=jit,
        slices=config.data.patches,
        batch=-(-config.predict_batch // mesh.size) * mesh.size,
        stride=model.stride(config.data.patches.dims),
        patch=patch_of(config),
    )


def evaluated(method, state):
    """The weights of a ``TrainState`` that are evaluated: a tree, to be saved and predicted with.

    Of a method that learns without labels with its heads, which its measures are of.
    """
    network, batch_stats = method.predictor(state.params, state.batch_stats, state.memory)
    heads = {k: v for k, v in state.params.items() if k != "network"} if method.examination else {}
    return {"params": {"network": network, **heads}, "batch_stats": batch_stats}


def precision(config):
    """The type of activations.

    Raises:
      UserError: if it is none of ``PRECISIONS``.
    """
    if config.precision not in PRECISIONS:
        raise UserError(f"config.precision is float32 or bfloat16, not {config.precision!r}")
    return PRECISIONS[config.precision]
