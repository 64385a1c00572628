"""The folder of a run: what it was asked for, on what, and with which versions."""

import contextlib
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import ml_collections
import numpy as np

from mijax.data import all_labelled, check_splits, draw_splits, read_splits, write_splits
from mijax.errors import UserError
from mijax.lock import locked
from mijax.options import LONGER, flat

# Where things lie says nothing about the result.
_MAY_DIFFER = ("cache", "data.dir", "data.follow_links", "stream")


class Run(NamedTuple):
    """A run folder and its configuration.

    Attributes:
      folder: holds config.json, info.json, splits.json, metrics.jsonl, scores.json, events/
        and checkpoints/.
      config: ``ml_collections.ConfigDict``.
      made: folders that this start of it has made, from the run folder upwards.
    """

    folder: Path
    config: ml_collections.ConfigDict
    made: tuple[Path, ...] = ()

    @property
    def checkpoints(self):
        return self.folder / "checkpoints"

    def info(self):
        """Contents of info.json: classes, channels, versions, command."""
        return _read_json(self.folder / "info.json")


def default_folder(config):
    """``runs/NAME/METHOD-Nlabelled-seedS``, where NAME is that of ``data_name``.

    With splits that are given it is ``-Nlabelled-Munlabelled``, of cases, and with 0 labelled
    patients, which are all that have labels, ``-alllabelled``: how many that are, and whether
    any are without, is not known before the data are. A run that begins with the weights of
    another ends in ``-from-`` and the name of its folder.

    Raises:
      UserError: for splits that cannot be read.
    """
    if config.data.splits:
        splits = read_splits(config.data.splits)
        labels = f"{len(splits.labelled)}labelled-{len(splits.unlabelled)}unlabelled"
    else:
        labels = f"{config.data.labelled_cases or 'all'}labelled"
    name = f"{config.method.name}-{labels}-seed{config.seed}"
    if config.get("init_from"):
        name += f"-from-{Path(config.init_from).absolute().name}"
    return Path("runs") / data_name(config) / name


def data_name(config):
    """``config.name`` or, where that is empty, the name of the folder of the data."""
    return config.name or Path(config.data.dir).absolute().name


def start_run(folder, config):
    """Creates a run folder, or opens the one of an interrupted run of the same configuration.

    A run that has not saved a checkpoint yet gives way to another configuration: a value that
    had to be corrected is no reason to choose another folder.

    Raises:
      UserError: if the folder holds a run of another configuration, cannot be written or is an
        address, or a number of the configuration is infinite or NaN.
    """
    for name, place in (("--workdir", folder), ("config.cache", config.cache)):
        if "://" in str(place):
            raise UserError(f"{name} {place}: must be a folder; mount the bucket and name that")
    folder = Path(folder)
    wanted = json.loads(config.to_json_best_effort())
    if wanted["data"]["dir"]:  # for --workdir alone, from wherever
        wanted["data"]["dir"] = os.path.abspath(os.path.expanduser(wanted["data"]["dir"]))
    for key, value in flat(wanted):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{key} is {value}: must be a finite number")
    path = folder / "config.json"
    try:
        if path.exists():
            begun = any((folder / "checkpoints").glob("[0-9]*"))
            differences = _differences(_read_json(path), wanted, _MAY_DIFFER if begun else ())
            if differences and begun:
                longer = LONGER.format(run=folder)
                steps_only = all(d.startswith("config.steps ") for d in differences)
                raise UserError(
                    f"{folder} holds a run of another configuration ({'; '.join(differences)}); "
                    + (longer if steps_only else "choose another --workdir")
                )
            if not differences:
                return Run(folder, config)
            (folder / "splits.json").unlink(missing_ok=True)  # drawn for the other one
        made = tuple(itertools.takewhile(lambda f: not f.exists(), (folder, *folder.parents)))
        run = Run(folder, config, made)
        with taken_back(run):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, wanted)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}") from error
    return run


@contextlib.contextmanager
def taken_back(run):
    """Leaves no folder behind where a start fails before it has logged or saved a step.

    Only what ``start_run`` has made is removed, and of the folders around that the empty ones.
    """
    try:
        yield
    except BaseException:
        log = run.folder / "metrics.jsonl"
        begun = any(run.checkpoints.glob("[0-9]*")) or (log.exists() and log.stat().st_size)
        if run.made and not begun:
            shutil.rmtree(run.folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                for folder in run.made[1:]:
                    folder.rmdir()
        raise


def open_run(folder):
    """The run of an existing folder, configured as it was.

    Raises:
      UserError: if there is no run there.
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} is not a run: it has no config.json")
    return Run(folder, ml_collections.ConfigDict(_read_json(folder / "config.json")))


def settle_splits(run, cases):
    """The splits of a run: those of its splits.json, or else given or drawn, and written there.

    Raises:
      UserError: if they are not disjoint by patient, do not fit the cases, or leave labels aside
        where the configuration asks for all of them.
    """
    path, data = run.folder / "splits.json", run.config.data
    splits = choose_splits(data, cases, given=path if path.exists() else None)
    if not path.exists():
        left = set(splits.unlabelled) - set(all_labelled(splits, cases).unlabelled)
        if left and data.splits and not data.labelled_cases:
            raise UserError(
                f"config.data.labelled_cases=0 asks for all labels, but {data.splits} leaves "
                f"{len(left)} case(s) unlabelled that have some; it alone says who is labelled"
            )
        write_splits(path, splits)
    return splits


def choose_splits(data, cases, *, given=None):
    """The splits of a file, ``given`` or that of ``config.data``, or else drawn as that says.

    Raises:
      UserError: if they are not disjoint by patient, or do not fit the cases.
    """
    if file := given or data.splits:
        splits = read_splits(file)
        try:
            check_splits(splits, cases)
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
    else:
        splits = draw_splits(
            cases,
            labelled=data.labelled_cases,
            validation=data.validation_cases,
            test=data.test_cases,
            seed=data.split_seed,
        )
        check_splits(splits, cases)
    return splits


def fingerprint(volumes):
    """A text that changes with the names, grids and labels of volumes, not with their place."""
    digest = hashlib.sha256()
    for volume in volumes:
        grid = [volume.name, volume.image.shape, np.round(volume.affine, 3).tolist()]
        digest.update(json.dumps(grid).encode())
        if volume.label is not None:
            digest.update(np.ascontiguousarray(volume.label))
    return digest.hexdigest()[:16]


def check_data(run, volumes):
    """Refuses to go on with a run on other data than it began with.

    Raises:
      UserError: if the validation volumes are not those that it began with.
    """
    found = fingerprint(volumes)
    if run.info().get("data", found) != found:
        raise UserError(
            f"{run.folder} was trained on other data: its validation cases have other labels or "
            f"voxel grids in {run.config.data.dir or 'this data set'} now; choose another --workdir"
        )


def write_info(run, *, classes, channels, validation, unlabelled_slices, init_from, devices):
    """Writes info.json: what is needed to use the run without its data, and to repeat it.

    ``validation`` are its validation volumes, ``init_from`` is the ``Run`` that its weights came
    from, or None, and ``devices`` is what it begins on, in words.
    """
    packages = ("mijax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    write_json(
        run.folder / "info.json",
        {
            "classes": list(classes),
            "channels": channels,
            "data": fingerprint(validation),
            "unlabelled_slices": unlabelled_slices,
            "init_from": init_from and json.loads(init_from.config.to_json_best_effort()),
            "devices": devices,
            "command": shlex.join([Path(sys.executable).name, *sys.argv]),
            "git_revision": _git_revision(),
            "python": platform.python_version(),
            "versions": {name: _version(name) for name in packages},
        },
    )


@contextlib.contextmanager
def sole(run, *, tell):
    """Holds a run folder against any other process that would train in it.

    Raises:
      UserError: if one does.
    """
    with locked(run.folder / ".lock", tell=tell) as lock:
        if lock is None:
            raise UserError(f"another process is training in {run.folder}; wait for it, or stop it")
        yield


def write_json(path, value):
    """Writes JSON in one piece: a reader sees the old file or the new one."""
    part = Path(f"{path}.{os.getpid()}.part")  # each process of a run writes its own
    part.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    os.replace(part, path)


def _read_json(path):
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error


def _differences(found, wanted, may_differ):
    found, wanted = dict(flat(found)), dict(flat(wanted))
    return [
        f"config.{key} is {found.get(key)!r} there and {wanted.get(key)!r} here"
        for key in sorted(found.keys() | wanted.keys())
        if key not in may_differ and found.get(key) != wanted.get(key)
    ]


def _version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision():
    git = ["git", "-C", str(Path(__file__).parent)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
