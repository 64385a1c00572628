"""Label maps of scans that are files."""

import contextlib
import itertools
import logging
import sys
from collections import deque
from pathlib import Path

from mijax.data.formats.imagewriter import write_image
from mijax.data.outputs import missing_outputs, outputs
from mijax.data.scans import find_scans, not_scans, read_scan
from mijax.errors import UserError
from mijax.inference.predictor import Predictor
from mijax.progress import terminal_bar

_log = logging.getLogger("mijax")


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
):
    """Writes the label maps of a file or of a folder of scans.

    A label map has the grid and the file format family of its scan, and appears in one piece. A
    file that cannot be read is logged and passed over, and so is a scan whose label map is
    there already: what was interrupted goes on with the scans that are missing.

    Args:
      run: ``runs.folder.Run``.
      source: an image file, or a folder of them, see ``data.scans.find_scans``.
      output: folder to write to, created where it is missing.
      checkpoint: "best" or "last".
      probabilities: also write CASE_probabilities.nii.gz, (x, y, z, k) float32.
      overwrite: replace the files that are there already instead.
      largest_component: see ``metrics.largest_components``; of the label maps alone.
      mirror: see ``volumes.mirrored``.

    Returns:
      Names of the cases that are done, now or before, and of those that failed.

    Raises:
      UserError: before anything is done, if there is no scan or no sound checkpoint, the run
        learned without labels, or a file to be written exists and is not a whole one of its scan.
    """
    source, output = Path(source), Path(output)
    channels = run.info()["channels"]
    scans = find_scans(source, channels=channels)
    if others := not_scans(source, scans, output=output):
        _log.warning(others)
    missing = missing_outputs(
        source, scans, output, probabilities=probabilities, overwrite=overwrite
    )
    done, failed, at_work = [s.name for s in scans if not missing[s.name]], [], deque()
    if done:
        _log.info(
            "%d of %d are there already and passed over; --overwrite predicts them again",
            len(done),
            len(scans),
        )
    if len(done) == len(scans):
        return done, failed

    predictor = Predictor(run, checkpoint=checkpoint)
    predictor.check_segments()
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {output}: {error.strerror or error}") from error
    with _progress(len(done), len(scans)) as progress:

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

        found = predictor.segment(
            volumes(),
            stored=False,
            probabilities=probabilities,
            largest_component=largest_component,
            mirror=mirror,
        )
        for labels, probs in found:
            scan = at_work.popleft()
            path, soft = outputs(scan, output)
            for file, values in ((soft, probs), (path, labels)):
                if file in missing[scan.name]:
                    write_image(file, values, reference=scan.images[0])
            done.append(scan.name)
            progress(str(path))
    return done, failed


@contextlib.contextmanager
def _progress(done, total):
    """``advance(line, failed=False)`` after each scan: a bar on a terminal, else a line."""
    if not sys.stderr.isatty():
        count = itertools.count(done + 1)
        yield lambda line, failed=False: _log.info("%d/%d %s", next(count), total, line)
        return
    bar = terminal_bar("predict", total, done=done)

    def advance(line, failed=False):
        if failed:
            _log.error(line)
        bar.update(bar.task_ids[0], advance=1, shown="" if failed else Path(line).name)

    try:
        yield advance
    finally:
        bar.stop()
