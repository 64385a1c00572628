"""What a run notes of itself: what it takes to use it without its data, and to repeat it."""

import hashlib
import importlib.metadata
import json
import logging
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np

import mijax
from mijax.errors import UserError
from mijax.files import write_json
from mijax.runs.folder import open_run
from mijax.runs.growth import lineage

_log = logging.getLogger("mijax")


def write_info(
    run, *, classes, channels, numbered, splits, validation, learned, init_from, devices
):
    """Writes info.json: what is needed to use the run without its data, and to repeat it.

    ``numbered`` is that of its ``data.volume.Recipe``, ``splits`` are its own, ``validation`` its
    validation volumes, ``learned`` digests of all that it reads, see ``Noting``, ``init_from`` is
    the ``Run`` that its weights came from, or None, and ``devices`` what it begins on, in words.
    """
    packages = ("mijax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    write_json(
        run.folder / "info.json",
        {
            "classes": list(classes),
            "channels": channels,
            "numbered": numbered,
            "splits": splits._asdict(),
            "data": fingerprint(validation),
            "learned": learned,
            "init_from": init_from and json.loads(init_from.config.to_json_best_effort()),
            "lineage": [ancestor._asdict() for ancestor in lineage(run)],
            "devices": devices,
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "git_revision": _git_revision(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        },
    )


def fingerprint(volumes):
    """A text that changes with the names, grids and labels of volumes, not with their place."""
    digest = hashlib.sha256()
    for volume in volumes:
        grid = [volume.name, volume.image.shape, np.round(volume.affine, 3).tolist()]
        grid += [volume.undrawn] if volume.undrawn else []
        digest.update(json.dumps(grid).encode())
        if volume.label is not None:
            digest.update(np.ascontiguousarray(volume.label))
    return digest.hexdigest()[:16]


class Noting:
    """A ``data.Source`` that notes what is read of it, in whatever order and how often."""

    def __init__(self, source, unlabelled):
        """``unlabelled`` are names of cases whose labels do not count."""
        self._source, self._unlabelled, self._seen = source, {*unlabelled}, {}

    def __getattr__(self, name):
        return getattr(self._source, name)

    def volume(self, name):
        found = self._source.volume(name)
        counts = found._replace(label=None) if name in self._unlabelled else found
        image = hashlib.sha256(np.ascontiguousarray(found.image)).hexdigest()
        self._seen[name] = fingerprint([counts]), image
        return found

    def digests(self):
        """Texts that change with labels and grids, and with images, of all that was read."""
        kinds = zip(*(self._seen[name] for name in sorted(self._seen)), strict=True)
        labels, images = (hashlib.sha256("".join(kind).encode()).hexdigest()[:16] for kind in kinds)
        return {"labels": labels, "images": images}


def check_data(run, volumes, learned):
    """Refuses to go on with a run on other data than it began with.

    Args:
      run: ``Run``.
      volumes: its validation volumes.
      learned: ``Noting.digests`` of what it reads; on another machine images that N4 has
        corrected may be rounded otherwise, and are not looked at.

    Raises:
      UserError: if they are not those that it began with.
    """
    data, info = run.config.data, run.info()
    begun = {"data": info["data"], **info["learned"]}
    found = {"data": fingerprint(volumes), **learned}
    if data.patches.bias_correction:
        found["images"] = begun["images"]
    for key, what in (
        ("data", "its validation cases have other labels or voxel grids"),
        ("labels", "its training cases have other labels or voxel grids"),
        ("images", "its training or validation cases have other images"),
    ):
        if found[key] != begun[key]:
            raise UserError(
                f"{run.folder} was trained on other data: {what} in "
                f"{data.source.dir or 'this data set'} now; choose another --workdir"
            )


def check_names(run, classes):
    """Refuses data with other classes than a run began with.

    Raises:
      UserError: names both.
    """
    if (begun := run.info()["classes"]) != list(classes):
        raise UserError(
            f"{run.folder} has the classes {', '.join(begun)}, and its data {', '.join(classes)} "
            "now; name them as they were, or begin another run"
        )


def check_roles(run, splits):
    """Refuses other training or validation cases than a run began with; test cases may be others.

    Raises:
      UserError: names one that has another role now.
    """
    begun = run.info()["splits"]
    for role in begun.keys() - {"test"}:
        if moved := set(begun[role]) ^ {*getattr(splits, role)}:
            raise UserError(
                f"{run.folder / 'splits.json'}: case {min(moved)} has another role than when the "
                "run began; put the file back, or begin another run with it "
                "(--config.data.splits.file)"
            )


def check_grown(run, volumes):
    """Logs that the validation volumes are not those of the run that a run has grown from."""
    if not (before := run.config.grow_from):
        return
    found = fingerprint(volumes)
    if open_run(before).info()["data"] != found:
        _log.warning(
            "the validation cases have other labels or voxel grids than in %s, so that its scores "
            "and those of this run do not compare",
            before,
        )


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision():
    git = ["git", "-C", str(Path(mijax.__file__).parent)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
