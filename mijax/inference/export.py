"""The network of a run as a program of its own, weights inside."""

import jax
import jax.numpy as jnp
from jax.export import export as export_program
from jax.export import symbolic_shape

PLATFORMS = ("cpu", "cuda", "tpu")


def export(predictor):
    """The network of a ``Predictor`` that is on one device, softmax included.

    Returns:
      ``jax.export.Exported``: (b, h, w, c) float32 -> (b, h, w, k) float32.

    Raises:
      UserError: if its run learned without labels.
    """
    predictor.check_segments()
    network, stride = predictor.network, predictor.network.stride
    shape = symbolic_shape(f"b, {stride}*h, {stride}*w, {predictor.channels}")
    program = jax.jit(lambda images: network.predict(predictor.weights, images))
    return export_program(program, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))
