"""The network of a run as a program of its own, weights inside."""

import jax
import jax.numpy as jnp
from jax.export import export as export_program
from jax.export import symbolic_shape

PLATFORMS = ("cpu", "cuda", "tpu")


def export(predictor):
    """The network of a ``Predictor`` that is on one device, softmax included, in float32.

    Returns:
      ``jax.export.Exported``: (b, *space, c) float32 -> (b, *space, k) float32, for any sizes that
      are multiples of the network's stride.

    Raises:
      UserError: if its run learned without labels.
    """
    predictor.check_segments()
    network = predictor.network
    axes = zip(network.stride, "dhw"[-len(network.stride) :], strict=True)
    space = ", ".join(f"{n}*{axis}" for n, axis in axes)
    shape = symbolic_shape(f"b, {space}, {predictor.channels}")
    model, weights = network.model.clone(dtype=jnp.float32), predictor.weights
    variables = {"params": weights["params"]["network"], "batch_stats": weights["batch_stats"]}
    program = jax.jit(lambda images: jax.nn.softmax(model.apply(variables, images, train=False)[0]))
    return export_program(program, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
