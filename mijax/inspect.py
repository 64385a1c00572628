"""What a folder of volumes looks like: python -m mijax.inspect FOLDER

FOLDER is in the layout of the MSD or of nnU-Net. All its files are read and checked. A file that
cannot be used is named with the reason; the exit code is then 1. JAX is not needed.
"""

import hashlib
import logging
from pathlib import Path

import numpy as np

from mijax import commands
from mijax.errors import UserError, counted, quoted

_log = logging.getLogger("mijax")


def main(argv):
    """Prints the tables and the next command."""
    if len(argv) != 2:
        commands.fail("needs a folder: python -m mijax.inspect FOLDER")
    for line in describe(Path(argv[1]).expanduser()):
        print(line, flush=True)


def describe(root):
    """Yields the lines about a folder, what headers tell first; logs cases that cannot be used.

    Args:
      root: the folder that holds dataset.json.

    Raises:
      UserError: after the last line, if there were such cases; at once, if all are.
    """
    from mijax.data.sources.folder import files_of_cases, links_out, read_geometry, read_volume
    from mijax.data.sources.layout import read_layout
    from mijax.data.survey import grids, look
    from mijax.data.volume import check_size
    from mijax.progress import Progress

    if not root.is_dir():
        raise UserError(f"{root}: no such folder; give the one that holds dataset.json")
    layout = read_layout(root, kind="folder", patient_pattern="", test_images=True)
    channels, total = len(layout.channels), len(layout.entries)
    yield _headline(root, layout)

    def each(read, entries, begin=lambda index: None):
        for index, entry in enumerate(entries):
            begin(index)
            try:
                yield entry, read(entry)
            except UserError as error:
                bad.append(error)

    def read_header(entry):
        files, geometry = files_of_cases([entry]), read_geometry(entry, channels)
        check_size(entry.case.name, geometry)
        return files, geometry

    bad = []
    found = list(each(read_header, layout.entries))
    if links := links_out(root, [file for _, (files, _) in found for file in files]):
        _log.warning(
            "%s: a link out of %s, one of %d; training takes them with the flag of the last line, "
            "if you trust them", links[0], root, len(links)
        )  # fmt: skip
    for error in bad:
        _log.error(error)
    if not found:
        raise UserError(f"{root}: no case can be used, for the reasons above")
    yield from _grid_table(grids([geometry for _, (_, geometry) in found]))

    def read(entry):
        volume = read_volume(entry, classes=layout.classes, channels=channels, ignore=layout.ignore)
        same = alike.setdefault(hashlib.sha256(np.ascontiguousarray(volume.image)).digest(), [])
        same.append(entry.case.name)
        return look(volume, len(layout.classes))

    alike = {}  # the cases of each image
    headers, progress = len(bad), Progress("reading", len(found))
    looks = [look for _, look in each(read, [entry for entry, _ in found], progress)]
    progress.end()
    for error in bad[headers:]:
        _log.error(error)
    for same in alike.values():
        if len(same) > 1:
            _log.warning(
                "%s are one image under %d names: keep one, or a network may be tested on what it "
                "has learned from", " and ".join(same), len(same)
            )  # fmt: skip
    if not looks:
        raise UserError(f"{root}: no case can be used, for the reasons above")
    yield from _intensity_table(layout.channels, looks)
    yield from _class_table(layout.classes, looks)
    yield ""
    yield _next(root, layout, links)
    if bad:
        raise UserError(f"{len(bad)} of {total} cases cannot be used, for the reasons above")


def _next(root, layout, links):
    data = f"--config configs/folder.py --config.data.source.dir={quoted(root)}"
    data += " --config.data.source.follow_links=True" if links else ""
    if any(entry.case.labelled for entry in layout.entries):
        return f"next: python -m mijax.plan {data}"
    return f"next: python -m mijax.select {data} --count N --output FIRST"


def _headline(root, layout):
    labelled = sum(entry.case.labelled for entry in layout.entries)
    others = len(layout.entries) - labelled
    channels = ", ".join(layout.channels)
    return (
        f"{root}: {counted(labelled, 'labelled case')} and {others} unlabelled; "
        f"{counted(len(layout.channels), 'channel')} ({channels[:80]!a})"
        + ("" if layout.ignore is None else f"; {layout.ignore} is the label to ignore")
    )


def _grid_table(seen):
    yield ""
    yield _row("", "least", "median", "most")
    for axis, name in enumerate("xyz"):
        yield _spread(f"voxels along {name}", seen.shape[:, axis])
    for axis, name in enumerate("xyz"):
        yield _spread(f"mm a voxel along {name}", seen.spacing[:, axis])
    codes = sorted(set(seen.axcodes), key=lambda code: (-seen.axcodes.count(code), code))
    yield "axes of the files: " + ", ".join(f"{c} {seen.axcodes.count(c)}" for c in codes)


def _intensity_table(channels, looks):
    from mijax.data.survey import LEVELS

    levels = np.array([look.levels for look in looks])
    for channel, name in enumerate(channels):
        yield ""
        yield _row(f"intensity {name[:12]!r}", "least", "median", "most")
        for level, percent in enumerate(LEVELS):
            text = {0: "lowest", 100: "highest"}.get(percent, f"{percent} % are below")
            yield _spread(f"  {text}", levels[:, channel, level])


def _class_table(classes, looks):
    counts = np.array([look.counts for look in looks if look.counts is not None])
    if not len(counts):
        return
    yield ""
    yield _row("class", "cases", "share of voxels", "")
    *shown, without = zip([*classes, "not annotated"], counts.T, strict=True)
    for name, of_class in [*shown, without] if without[1].any() else shown:
        yield _row(name, np.count_nonzero(of_class), f"{of_class.sum() / counts.sum():.3%}", "")
        if not of_class.any():
            yield f"no labelled case shows {name}"


def _spread(name, values):
    return _row(name, *(f"{v:.4g}" for v in (values.min(), np.median(values), values.max())))


def _row(name, *cells):
    return (f"{name:24s}" + "".join(f"{cell!s:>16s}" for cell in cells)).rstrip()


if __name__ == "__main__":
    commands.run(main, arguments=True)
