"""The network of a run in one file: python -m mijax.export --workdir RUN --output FILE

FILE is StableHLO as jax.export writes it, weights inside, for CPU, CUDA and TPU. It turns
images (b, h, w, c) float32, preprocessed as in training, into class probabilities (b, h, w, k)
float32; b is any, h and w are any multiples of the network's stride. JAX alone runs it:

  exported = jax.export.deserialize(bytearray(pathlib.Path(FILE).read_bytes()))
  probs = jax.jit(exported.call)(images)
"""

import os
from pathlib import Path

from absl import flags

from mijax import commands
from mijax.errors import UserError

PLATFORMS = ("cpu", "cuda", "tpu")


def main(argv):
    """Exports the run of the command line."""
    from mijax.parallel import devices
    from mijax.run import open_run

    values = flags.FLAGS
    if not values.workdir or not values.output:
        commands.fail("needs --workdir RUN and --output FILE")
    output = Path(values.output)
    if output.exists() and not values.overwrite:
        raise UserError(f"{output} exists already; --overwrite replaces it")
    run = open_run(values.workdir)
    devices()  # refuses JAX_PLATFORMS where there are none of those
    exported = export(run, checkpoint=values.checkpoint, tell=commands.tell)
    part = output.with_name(f".part-{output.name}")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(exported.serialize())
        os.replace(part, output)
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    (images,), (probs,) = exported.in_avals, exported.out_avals
    commands.tell(f"{output}: images {images.str_short()} to probabilities {probs.str_short()}")


def export(run, *, checkpoint, tell):
    """The network of a run, softmax included, with its weights.

    Args:
      run: ``run.Run``.
      checkpoint: "best" (by validation DSC) or "last".
      tell: called with a line about each damaged checkpoint.

    Returns:
      ``jax.export.Exported``: (b, h, w, c) float32 -> (b, h, w, k) float32.

    Raises:
      UserError: if the run has no sound checkpoint, or learned without labels.
    """
    import jax
    import jax.numpy as jnp
    from jax.export import export, symbolic_shape

    from mijax.inference import restore

    # One device: the program would otherwise ask for as many as there are here.
    experiment, state = restore(
        run, checkpoint=checkpoint, tell=tell, devices=jax.devices()[:1], must_segment=True
    )
    variables = experiment.method.predictor(state.params, state.batch_stats, state.memory)
    stride, channels = experiment.stride, run.info()["channels"]
    shape = symbolic_shape(f"b, {stride}*h, {stride}*w, {channels}")
    network = jax.jit(lambda images: experiment.predict(variables, images))
    return export(network, platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.float32))


def _define_flags():
    # Not at import, which is free to programs with flags of these names.
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("output", None, "file to write, created with its folder")
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "best is by validation DSC")
    flags.DEFINE_bool("overwrite", False, "replace the file where it exists")


if __name__ == "__main__":
    _define_flags()
    commands.run(main)
