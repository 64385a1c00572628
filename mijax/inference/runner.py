"""Label maps of new scans from a bundle: python predict.py --input SCANS --output FOLDER

SCANS is a file or a folder of them: NIfTI, with SimpleITK installed MetaImage or NRRD, or with
pydicom installed DICOM series. CASE.nii.gz gives FOLDER/CASE.nii.gz, on the same grid. Several
channels are a 4-D file, or one file each: CASE_0000.nii.gz, CASE_0001.nii.gz, …

A bundle is what ``mijax.export`` writes: this file and those it imports are in it as they are in
mijax, so that there is one way from a scan to a label map. It knows nothing of JAX.
"""

import argparse
import hashlib
import json
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

from mijax.errors import ANOTHER_SERIES, Notice, UserError

FORMAT = 1  # of bundle.json; raised when a runner could misread one
DESCRIPTION, MODEL = "bundle.json", "model.onnx"
_BATCH = 8  # slices a call, and one window: of the size of the batch, results do not depend


def main(folder, arguments=None):
    """The command ``predict.py`` of the bundle in a folder.

    Returns:
      The exit code: 0, or 1 where something was wrong, which one line on stderr tells.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            return _run(Path(folder), _parse(arguments))
        except (UserError, ModuleNotFoundError, OSError) as error:
            _tell(_for_bundles(error))
    return 1


def open_bundle(folder):
    """What a bundle says of itself, after the checksums of its files.

    Raises:
      UserError: it is not whole, or of a format that this runner does not know.
    """
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        form, files = found["format"], found["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{folder / DESCRIPTION}: no description of a bundle ({error})") from error
    if form != FORMAT:
        raise UserError(f"{folder}: a bundle of format {form}; this runner reads format {FORMAT}")
    for name, expected in files.items():
        if checksum(folder / name) != expected:
            raise UserError(f"{folder / name}: missing or changed since the export; copy it again")
    return found


def checksum(path):
    """SHA-256 of a file, in hexadecimal; None where it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def load_network(folder, description):
    """The network of a bundle, with all that ``volumes.segment`` asks of a ``network.Network``."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / MODEL, providers=["CPUExecutionProvider"])

    def predict(_, images):
        return session.run(["probs"], {"images": images.copy()})[0]  # a view may be mirrored

    patch = description["patch"]
    return SimpleNamespace(
        predict=predict,
        slices=SimpleNamespace(**description["slices"]),
        batch=1 if patch else _BATCH,
        stride=tuple(description["stride"]),
        patch=patch and tuple(patch),
    )


def _run(folder, options):
    bundle = open_bundle(folder)
    # Not before the files are known to be whole.
    from mijax.data.formats.imagewriter import label_ending, write_image
    from mijax.data.patches import check_shape
    from mijax.data.scans import check_apart, find_scans, not_scans, read_scan
    from mijax.inference.volumes import segment

    source, output = (Path(path).expanduser() for path in (options.input, options.output))
    scans = find_scans(source, channels=bundle["channels"], numbered=bundle["numbered"])
    if others := not_scans(source, scans, output=output):
        _tell(others)
    check_apart(source, scans, output)
    paths = {scan.name: output / (scan.name + label_ending(scan.reference)) for scan in scans}
    if not options.overwrite:
        for path in filter(Path.exists, paths.values()):
            raise UserError(f"{path} exists already; --overwrite replaces it")
    network = load_network(folder, bundle)
    output.mkdir(parents=True, exist_ok=True)
    at_work, failed = [], []

    def volumes():
        for scan in scans:
            try:
                volume = read_scan(scan, channels=bundle["channels"])
                check_shape(volume, network.slices)
            except (UserError, ModuleNotFoundError) as error:
                failed.append(scan.name)
                _tell(f"failed: {_for_bundles(error)}")
                continue
            at_work.append(scan)
            yield volume

    maps = segment(
        network,
        None,
        volumes(),
        stored=False,
        largest_component=options.largest_component,
        mirror=options.mirror,
    )
    for labels, _ in maps:
        scan = at_work.pop(0)
        write_image(paths[scan.name], labels, reference=scan.reference)
        _tell(str(paths[scan.name]))
    done = f"{len(scans) - len(failed)} of {len(scans)} done"
    _tell(f"{done}; failed: {', '.join(failed)}" if failed else f"{done}, in {output}")
    return 1 if failed else 0


def _parse(arguments):
    parser = argparse.ArgumentParser(
        "predict.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--input", required=True, help="scan, or folder of scans")
    parser.add_argument("--output", required=True, help="folder, created where missing")
    for name, meaning in (
        ("largest_component", "keep the largest 3-D piece of each class"),
        ("mirror", "average over mirror images; four times as long, or eight"),
        ("overwrite", "replace label maps that are there already"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    return parser.parse_args(arguments)


def _for_bundles(error):
    """The line of an error or a notice, for who has these flags and may lack a package."""
    cause = error if isinstance(error, ModuleNotFoundError) else error.__cause__
    if isinstance(cause, ModuleNotFoundError):
        return f"needs {cause.name}, which is not installed: pip install {cause.name}"
    return str(error).removesuffix(ANOTHER_SERIES)


def _show_warning(message, category, *place, _others=warnings.showwarning):
    """A notice as a line; anything else as Python does."""
    if issubclass(category, Notice):
        _tell(_for_bundles(message))
    else:
        _others(message, category, *place)


def _tell(line):
    print(f"predict: {line}", file=sys.stderr, flush=True)
