"""The network of a run in one file: python -m mijax.export --workdir RUN --output FILE

FILE is StableHLO as jax.export writes it, weights inside, for CPU, CUDA and TPU. It turns
images (b, h, w, c) float32, preprocessed as in training, into class probabilities (b, h, w, k)
float32; b is any, h and w are any multiples of the network's stride. To run it takes JAX and
flatbuffers, and not mijax:

  exported = jax.export.deserialize(bytearray(pathlib.Path(FILE).read_bytes()))
  probs = jax.jit(exported.call)(images)
"""

from pathlib import Path

from absl import flags

from mijax import commands
from mijax.errors import UserError


def main(argv):
    """Exports the run of the command line."""
    import jax

    from mijax.files import write_atomically
    from mijax.inference import Predictor, export
    from mijax.parallel import devices

    values = flags.FLAGS
    if not values.workdir or not values.output:
        commands.fail("needs --workdir RUN and --output FILE")
    output = Path(values.output)
    if output.exists() and not values.overwrite:
        raise UserError(f"{output} exists already; --overwrite replaces it")
    devices()  # refuses JAX_PLATFORMS where there are none of those
    # One device: the program would otherwise ask for as many as there are here.
    predictor = Predictor(values.workdir, checkpoint=values.checkpoint, devices=jax.devices()[:1])
    exported = export(predictor)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(output, exported.serialize())
    except OSError as error:
        raise UserError(f"cannot write {output}: {error.strerror or error}") from error
    (images,), (probs,) = exported.in_avals, exported.out_avals
    commands.tell(f"{output}: images {images.str_short()} to probabilities {probs.str_short()}")


def define_flags():
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("output", None, "file to write, created with its folder")
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "best by validation DSC, or the last one"
    )
    flags.DEFINE_bool("overwrite", False, "replace the file where it exists")


if __name__ == "__main__":
    commands.run(main, define_flags)
