"""A run in one folder, to predict elsewhere: python -m mijax.export --workdir RUN --output BUNDLE

To predict with it takes numpy, scipy, nibabel and onnxruntime, on any machine:

  python BUNDLE/predict.py --input SCANS --output FOLDER

In it are the network as ONNX and as StableHLO, weights inside, all that is done to a scan before
and after it, a model card, checksums, and a Dockerfile. See docs/runs.md.
"""

from absl import flags

from mijax import commands
from mijax.errors import quoted


def main(argv):
    """Exports the run of the command line."""
    import jax

    from mijax.inference import Predictor, write_bundle
    from mijax.parallel import devices

    values = flags.FLAGS
    if not values.workdir or not values.output:
        commands.fail("needs --workdir RUN and --output BUNDLE")
    devices()  # refuses JAX_PLATFORMS where there are none of those
    # One device: the program would otherwise ask for as many as there are here.
    predictor = Predictor(values.workdir, checkpoint=values.checkpoint, devices=jax.devices()[:1])
    write_bundle(predictor, values.output, overwrite=values.overwrite)
    how = f"python {quoted(f'{values.output}/predict.py')}"
    commands.tell(f"{values.output}: {how} predicts with it")


def define_flags():
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("output", None, "folder to write")
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "best by validation DSC, or the last one"
    )
    flags.DEFINE_bool("overwrite", False, "replace the bundle that is there")


if __name__ == "__main__":
    commands.run(main, define_flags)
