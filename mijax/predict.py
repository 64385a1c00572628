"""Label maps of new scans: python -m mijax.predict --workdir RUN --input SCANS --output FOLDER

SCANS is a file (NIfTI, MetaImage or NRRD) or a folder of them; CASE.nii.gz gives
FOLDER/CASE.nii.gz, on the same grid. A run of several channels takes 4-D files, or one file a
channel: CASE_0000.nii.gz, CASE_0001.nii.gz, … in one folder. The run folder is all it needs.

From Python, the same with arrays: ``predict.predict(run, image, affine)``.
"""

import contextlib
import itertools
import sys
from collections import deque
from pathlib import Path

import numpy as np
from absl import flags

from mijax import commands
from mijax.errors import UserError


def main(argv):
    """Predicts the scans of the command line."""
    from mijax.run import open_run

    values = flags.FLAGS
    for name in ("workdir", "input", "output"):
        if not values[name].value:
            commands.fail("needs --workdir RUN, --input FILE or FOLDER, and --output FOLDER")
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
        tell=commands.tell,
    )
    if failed:
        total = len(done) + len(failed)
        commands.fail(f"{len(done)} of {total} done; failed: {', '.join(failed)}", code=1)
    commands.tell(f"{len(done)} of {len(done)} done, in {values.output}")


def predict(
    folder,
    images,
    affines,
    *,
    checkpoint="best",
    probabilities=False,
    largest_component=False,
    mirror=False,
):
    """Label maps of images that are arrays, by the network of a run folder.

        labels = predict("runs/spleen/local_mi-4labelled-seed0", ct, affine)

    Intensities are those of the files that the run was trained on (Hounsfield units, say):
    the preprocessing of the run is applied here. Several images in one call share the time
    to load and to compile, and full batches.

    Args:
      folder: of the run.
      images: (x, y, z), or (x, y, z, c) for c channels; or a list of such arrays, of any shapes.
      affines: (4, 4) from voxel indices to millimetres, RAS+ as in nibabel; or a list of such.
      checkpoint: "best" (by validation DSC) or "last".
      probabilities: return class probabilities instead of labels.
      largest_component: see ``metrics.largest_components``; of labels alone.
      mirror: see ``inference.mirrored``.

    Returns:
      (x, y, z) uint8, values as in the run's info.json; with ``probabilities``
      (x, y, z, k) float32, which sum to 1 over the k classes. A list of such for lists.

    Raises:
      UserError: no such run, one that learned without labels, or an image or affine that it
        cannot take.
    """
    from mijax.data import Volume
    from mijax.inference import predict_volumes, restore
    from mijax.run import open_run

    one = not isinstance(images, list | tuple)
    images, affines = ([images], [affines]) if one else (images, affines)
    if len(images) != len(affines):
        raise UserError(f"{len(images)} images, but {len(affines)} affines")
    run = open_run(folder)
    channels = run.info()["channels"]
    volumes = [
        Volume(f"image {i}", _checked_image(image, channels), None, _checked_affine(affine))
        for i, (image, affine) in enumerate(zip(images, affines, strict=True))
    ]
    experiment, state = restore(run, checkpoint=checkpoint, tell=commands.tell, must_segment=True)
    found = predict_volumes(
        experiment,
        state,
        volumes,
        run.config.data,
        stored=False,
        probabilities=probabilities,
        largest_component=largest_component,
        mirror=mirror,
    )
    results = [probs if probabilities else labels for labels, probs in found]
    return results[0] if one else results


def predict_files(
    run,
    source,
    output,
    *,
    checkpoint,
    probabilities=False,
    overwrite=False,
    largest_component=False,
    mirror=False,
    tell,
):
    """Writes the label maps of a file or of a folder of scans.

    A label map has the grid and the file format family of its scan, and appears in one piece. A
    file that cannot be read is told of and passed over, and so is a scan whose label map is
    there already: what was interrupted goes on with the scans that are missing.

    Args:
      run: ``run.Run``.
      source: an image file, or a folder of them, see ``data.scans.find_scans``.
      output: folder to write to, created where it is missing.
      checkpoint: "best" or "last".
      probabilities: also write CASE_probabilities.nii.gz, (x, y, z, k) float32.
      overwrite: replace the files that are there already instead.
      largest_component: see ``metrics.largest_components``; of the label maps alone.
      mirror: see ``inference.mirrored``.
      tell: called with a line about each scan.

    Returns:
      Names of the cases that are done, now or before, and of those that failed.

    Raises:
      UserError: before anything is done, if there is no scan or no sound checkpoint, the run
        learned without labels, or a file to be written exists and is not a whole one of its scan.
    """
    from mijax.data.imagewriter import write_image
    from mijax.data.outputs import missing_outputs, outputs
    from mijax.data.scans import find_scans, not_scans, read_scan

    source, output = Path(source), Path(output)
    channels = run.info()["channels"]
    scans = find_scans(source, channels=channels)
    if others := not_scans(source, scans, output=output):
        tell(others)
    missing = missing_outputs(
        source, scans, output, probabilities=probabilities, overwrite=overwrite
    )
    done, failed, at_work = [s.name for s in scans if not missing[s.name]], [], deque()
    if done:
        tell(
            f"{len(done)} of {len(scans)} are there already and passed over; --overwrite predicts "
            "them again"
        )
    if len(done) == len(scans):
        return done, failed

    from mijax.inference import predict_volumes, restore  # takes seconds

    experiment, state = restore(run, checkpoint=checkpoint, tell=tell, must_segment=True)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    with _progress(len(done), len(scans), tell) as progress:

        def volumes():
            for scan in scans:
                if not missing[scan.name]:
                    continue
                try:
                    volume = read_scan(scan, channels=channels)
                except UserError as error:
                    failed.append(scan.name)
                    progress(f"failed: {error}", failed=True)
                    continue
                at_work.append(scan)
                yield volume

        stream = predict_volumes(
            experiment,
            state,
            volumes(),
            run.config.data,
            stored=False,
            probabilities=probabilities,
            largest_component=largest_component,
            mirror=mirror,
        )
        for labels, probs in stream:
            scan = at_work.popleft()
            path, soft = outputs(scan, output)
            for file, values in ((soft, probs), (path, labels)):
                if file in missing[scan.name]:
                    write_image(file, values, reference=scan.images[0])
            done.append(scan.name)
            progress(str(path))
    return done, failed


def _checked_image(image, channels):
    image = np.asarray(image)
    image = image[..., None] if image.ndim == 3 else image
    if image.ndim != 4 or image.shape[3] != channels or 0 in image.shape:
        needed = "(x, y, z) or (x, y, z, 1)" if channels == 1 else f"(x, y, z, {channels})"
        raise UserError(f"image of shape {image.shape}; {needed} is needed")
    if image.dtype.kind not in "biuf" or not np.isfinite(image).all():
        raise UserError(f"image of type {image.dtype}: must be finite real numbers")
    return image.astype(np.float32)


def _checked_affine(affine):
    affine = np.asarray(affine, np.float64)
    if affine.shape != (4, 4) or not abs(np.linalg.det(affine[:3, :3])) > 0:
        raise UserError("an affine is a regular (4, 4) matrix")
    return affine


@contextlib.contextmanager
def _progress(done, total, tell):
    """``advance(line, failed=False)`` after each scan: a bar on a terminal, else a line."""
    if not sys.stderr.isatty():
        count = itertools.count(done + 1)
        yield lambda line, failed=False: tell(f"{next(count)}/{total} {line}")
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:  # lines on stderr go above it
        task = bar.add_task("predict", total=total, completed=done)

        def advance(line, failed=False):
            if failed:
                tell(line)
            else:
                bar.update(task, description=Path(line).name)
            bar.advance(task)

        yield advance


def _define_flags():
    # Not at import, which is free to programs with flags of these names.
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("input", None, "scan, or folder of scans")
    flags.DEFINE_string("output", None, "folder of the label maps, created where missing")
    flags.DEFINE_enum("checkpoint", "best", ["best", "last"], "best is by validation DSC")
    flags.DEFINE_bool("probabilities", False, "also write CASE_probabilities.nii.gz")
    flags.DEFINE_bool("overwrite", False, "predict again what is in --output already")
    flags.DEFINE_bool("largest_component", False, "keep the largest 3-D piece of each class")
    flags.DEFINE_bool("mirror", False, "average over mirrored slices; takes four times as long")


if __name__ == "__main__":
    _define_flags()
    commands.run(main)
