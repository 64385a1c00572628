"""Label maps of scans that are files."""

import contextlib
import itertools
import logging
import sys
from collections import deque
from pathlib import Path

from mijax.data.formats.dicom.codes import segments_of
from mijax.data.formats.dicom.segmentation import write_segmentation
from mijax.data.formats.imagefile import read_image
from mijax.data.formats.imagewriter import write_image
from mijax.data.outputs import missing_outputs, outputs
from mijax.data.patches import check_shape
from mijax.data.scans import find_scans, not_scans, read_scan
from mijax.errors import UserError, needs
from mijax.files import writing_to
from mijax.inference.predictor import Predictor
from mijax.inference.trust import caveats, trust_or_why_not
from mijax.inference.trust import trust as trust_of
from mijax.inference.trust_table import FILE, TrustTable
from mijax.progress import terminal_bar

_TIES = 1e-3  # of the foreground of two label maps: what rounding on another machine may change
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
    trust=False,
    below=0.5,
    disagreement=False,
    series=(),
    dicom_seg=False,
    codes=None,
):
    """Writes the label maps of a file or of a folder of scans.

    A label map has the grid and the file format family of its scan, and appears in one piece. A
    file that cannot be read is logged and passed over, and so is a scan whose label map is
    there already: what was interrupted goes on with the scans that are missing. What is asked for
    besides is made up for where the label map is the one that would be written now; else the scan
    has failed.

    Args:
      run: ``runs.folder.Run``.
      source: an image file, or a folder of them, see ``data.scans.find_scans``.
      output: folder to write to, created where it is missing.
      checkpoint: "best" or "last".
      probabilities: also write CASE_probabilities.nii.gz, (x, y, z, k) float32.
      overwrite: replace the files that are there already instead. Rows of trust.csv go with the
        label map that they are of, also where none are written.
      largest_component: see ``metrics.largest_components``; of the label maps alone.
      mirror: see ``volumes.mirrored``.
      trust: also write trust.csv, see ``trust_table.TrustTable``. Without a trust.json of the
        checkpoint in the run, a line says so, and there is none.
      below: threshold there.
      disagreement: also write CASE_disagreement.nii.gz, (x, y, z) float32, see ``signals``.
      series: UIDs of DICOM series to take; see ``dicom.choice``.
      dicom_seg: also write CASE_seg.dcm, see ``dicom.segmentation``.
      codes: JSON file of the codes in it, see ``dicom.codes``.

    Returns:
      Names of the cases that are done, now or before, and of those that failed.

    Raises:
      UserError: before anything is done, if there is no scan or no sound checkpoint, the run
        learned without labels, a file to be written exists and is not a whole one of its scan, or a
        DICOM segmentation is asked for that cannot be.
    """
    source, output = Path(source), Path(output)
    info = run.info()
    channels, numbered = info["channels"], info["numbered"]
    scans = find_scans(source, channels=channels, numbered=numbered, series=series)
    if others := not_scans(source, scans, output=output):
        _log.warning(others)
    missing = missing_outputs(
        source,
        scans,
        output,
        classes=len(info["classes"]),
        probabilities=probabilities,
        overwrite=overwrite,
        disagreement=disagreement,
        dicom_seg=dicom_seg,
    )
    segments = _segments(run, scans, codes) if dicom_seg else ()
    known, unknown = trust_or_why_not(run) if trust else (None, "")
    table = TrustTable(output, below=below if known else None, fresh=overwrite or not known)
    done = [s.name for s in scans if not missing[s.name] and (not known or s.name in table)]
    label_maps = [outputs(scan, output)[0] for scan in scans]
    begun, failed, at_work = set(done), [], deque()
    if done:
        _log.info(
            "%d of %d are there already and passed over; --overwrite predicts them again",
            len(done),
            len(scans),
        )
    if len(done) == len(scans):
        if known:
            _log.info(table.summary(done))
        return done, failed

    predictor = Predictor(run, checkpoint=checkpoint)
    predictor.check_segments()
    if unknown:
        _log.warning("no %s: %s", FILE, unknown)
    for line in caveats(known, predictor.step) if known else ():
        _log.warning("%s: %s", FILE, line)
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
    with _progress(len(done), len(scans)) as progress:

        def fail(scan, reason):
            failed.append(scan.name)
            progress(f"failed: {reason}", failed=True)

        def volumes():
            for scan in scans:
                if scan.name in begun:
                    continue
                try:
                    volume = read_scan(scan, channels=channels)
                    check_shape(volume, predictor.network.slices)
                except UserError as error:
                    fail(scan, error)
                    continue
                at_work.append((scan, volume.affine))
                yield volume

        options = {
            "stored": False,
            "voices": known is not None,
            "disagreement": disagreement,
            "probabilities": probabilities,
            "largest_component": largest_component,
            "mirror": mirror,
        }
        for one in predictor.look(volumes(), **options):
            scan, affine = at_work.popleft()
            path, soft, doubt, seg = outputs(scan, output)
            if path in missing[scan.name]:
                table.drop(scan.name)
                for file in {soft, doubt, seg}.difference(missing[scan.name], label_maps):
                    _leave_behind(file, overwrite)
            elif not _is_of(path, one.labels):
                fail(scan, f"{path} is of another run or flags, or edited; --overwrite replaces it")
                continue
            maps = ((soft, one.probs), (doubt, one.disagreement), (path, one.labels))
            for file, values in maps:
                if file in missing[scan.name]:
                    write_image(file, values, reference=scan.reference)
            if seg in missing[scan.name]:
                try:
                    write_segmentation(seg, one.labels, scan.stack, segments)
                except UserError as error:
                    fail(scan, error)
                    continue
            if known:
                table.add(scan.name, trust_of(known, one, affine, predictor.classes))
            done.append(scan.name)
            progress(str(path))
    if known and done:
        _log.info(table.summary(done))
    return done, failed


def _segments(run, scans, codes):
    """How the classes are described in DICOM segmentations, of scans that are DICOM."""
    if any(scan.stack is None and not scan.problem for scan in scans):
        raise UserError("--dicom_seg is of DICOM series, and these scans are of another format")
    needs("highdicom", "dicom")
    return segments_of(run.info()["classes"], codes and Path(codes))


def _leave_behind(file, overwrite):
    """What is beside a new label map, and of another."""
    if file.exists() and overwrite:
        file.unlink()
        _log.info("%s is removed: it was of the label map before", file)
    elif file.exists():
        _log.warning("%s is not of the new label map; --overwrite removes such files", file)


def _is_of(path, labels):
    """Whether a file has these labels, but for a tie here and there."""
    found, _ = read_image(path)
    return (found != labels).sum() <= _TIES * ((found > 0) | (labels > 0)).sum()


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
