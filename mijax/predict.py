"""Label maps of new scans: python -m mijax.predict --workdir RUN --input SCANS --output FOLDER

SCANS is a file (NIfTI, MetaImage or NRRD) or a folder of them; CASE.nii.gz gives
FOLDER/CASE.nii.gz, on the same grid. Of a folder of DICOM files the largest series of each study is
taken, or those of --series, to FOLDER/UID.nii.gz, with --dicom_seg also to FOLDER/UID_seg.dcm. A
run of several channels takes 4-D files, or one file a channel: CASE_0000.nii.gz, CASE_0001.nii.gz,
… in one folder. It needs the run folder, not the training data.

Of a run with a trust.json, FOLDER/trust.csv has an estimate of the DSC of each scan and class, the
worst first; --notrust leaves it out, and takes a fifth of the time.

From Python, the same with arrays: ``mijax.inference.Predictor(RUN)(image, affine)``.
"""

from pathlib import Path

from absl import flags

from mijax import commands


def main(argv):
    """Predicts the scans of the command line."""
    from mijax.data.formats.label_names import LABEL_NAMES, write_label_names
    from mijax.inference.scans import predict_files
    from mijax.runs.folder import open_run

    values = flags.FLAGS
    for name in ("workdir", "input", "output"):
        if not values[name].value:
            commands.fail("needs --workdir RUN, --input FILE or FOLDER, and --output FOLDER")
    if values.codes and not values.dicom_seg:
        commands.fail("--codes is for --dicom_seg")
    run = open_run(values.workdir)
    commands.prepare_jax(run.config)
    done, failed = predict_files(
        run,
        values.input,
        values.output,
        checkpoint=values.checkpoint,
        probabilities=values.probabilities,
        overwrite=values.overwrite,
        largest_component=values.largest_component,
        mirror=values.mirror,
        trust=values.trust,
        below=values.look_below,
        disagreement=values.disagreement,
        series=values.series,
        dicom_seg=values.dicom_seg,
        codes=values.codes,
    )
    names = Path(values.output, LABEL_NAMES)  # those that are there may be of another run
    if done and (values.label_names or names.exists()):
        write_label_names(names.parent, run.info()["classes"])
    if failed:
        total = len(done) + len(failed)
        commands.fail(f"{len(done)} of {total} done; failed: {', '.join(failed)}", code=1)
    commands.tell(f"{len(done)} of {len(done)} done, in {values.output}")


def define_flags():
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("input", None, "scan, or folder of scans")
    flags.DEFINE_string("output", None, "folder of the label maps, created where missing")
    flags.DEFINE_enum(
        "checkpoint", "best", ["best", "last"], "best by validation DSC, or the last one"
    )
    flags.DEFINE_bool("probabilities", False, "also write CASE_probabilities.nii.gz")
    flags.DEFINE_bool("overwrite", False, "predict again what is in --output already")
    flags.DEFINE_bool("largest_component", False, "keep the largest 3-D piece of each class")
    flags.DEFINE_bool("mirror", False, "average over mirror images; four times as long, or eight")
    flags.DEFINE_bool(
        "trust", True, "also write trust.csv, an estimate of each DSC; takes five times as long"
    )
    flags.DEFINE_float(
        "look_below", 0.5, "mark scans whose estimated DSC may be below this", 0.0, 1.0
    )
    flags.DEFINE_bool(
        "disagreement", False, "also write CASE_disagreement.nii.gz, where to doubt the labels"
    )
    flags.DEFINE_list("series", [], "DICOM series to predict, by SeriesInstanceUID")
    flags.DEFINE_bool("dicom_seg", False, "of DICOM series: also write CASE_seg.dcm")
    flags.DEFINE_string("codes", None, "JSON file of the codes of the classes for --dicom_seg")
    flags.DEFINE_bool(
        "label_names", False, "also write label_names.txt for ITK-SNAP and .ctbl for 3D Slicer"
    )


if __name__ == "__main__":
    commands.run(main, define_flags)
