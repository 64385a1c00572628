"""The folder of a run: made, opened, held, and given up where a start fails."""

import contextlib
import functools
import itertools
import json
import logging
import math
import operator
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import ml_collections

from mijax import parallel
from mijax.configs import common
from mijax.data import read_splits
from mijax.errors import UserError, quoted
from mijax.files import Record, locked, read_json, write_json, writing_to
from mijax.options import LONGER, flat, tuples

# Where things lie says nothing about the result.
_PLACES = ("cache", "data.source.dir", "data.source.follow_links")
MAY_DIFFER = (*_PLACES, "stream")
_PATHS = ("init_from", "grow_from", "data.source.dir", "data.splits.file", "data.annotation.file")
ANNOTATION = "annotation.json"  # of a run, and where a run that grows from it finds it
PLAN = "plan.json"
_SETTLED = ("splits.json", ANNOTATION, "tracking.json", PLAN)  # for a configuration
CHECKSUMS = "SHA256SUMS"  # the last file that a save of a checkpoint writes
_log = logging.getLogger("mijax")


class Run(NamedTuple):
    """A run folder and its configuration.

    Attributes:
      folder: holds config.json, info.json, splits.json, perhaps annotation.json, metrics.jsonl,
        scores.json, events/ and checkpoints/.
      config: ``ml_collections.ConfigDict``.
      made: folders that this start of it has made, from the run folder upwards.
      before: names of what was in the run folder before a new run began there; None of another.
    """

    folder: Path
    config: ml_collections.ConfigDict
    made: tuple[Path, ...] = ()
    before: frozenset | None = None

    @property
    def checkpoints(self):
        return self.folder / "checkpoints"

    @property
    def begun(self):
        """Whether it has saved a checkpoint, sound or not; one that a kill cut off is none."""
        return any(f.parent.name.isdigit() for f in self.checkpoints.glob(f"*/{CHECKSUMS}"))

    def info(self):
        """Contents of info.json, see ``runs.info``."""
        return Record(self.folder / "info.json")


def default_folder(config):
    """``runs/NAME/METHOD-Nlabelled-seedS``, where NAME is that of ``data_name``.

    With splits that are given it is ``-Nlabelled-Munlabelled``, of cases, and with 0 labelled
    patients, which are all that have labels, ``-alllabelled``: how many that are, and whether
    any are without, is not known before the data are. A run that begins with the weights of
    another ends in ``-from-`` and the name of its folder.

    Raises:
      UserError: for splits that cannot be read.
    """
    if config.data.splits.file:
        splits = read_splits(config.data.splits.file)
        labels = f"{len(splits.labelled)}labelled-{len(splits.unlabelled)}unlabelled"
    else:
        labels = f"{config.data.splits.labelled or 'all'}labelled"
    name = f"{config.method.name}-{labels}-seed{config.seed}"
    if config.init_from:
        name += f"-from-{Path(config.init_from).absolute().name}"
    return Path("runs") / data_name(config) / name


def data_name(config):
    """``config.name`` or, where that is empty, the name of the folder of the data."""
    return config.name or Path(absolute(config.data.source.dir)).name


def absolute(path):
    """The path for ``--workdir`` alone, from wherever; "" stays so."""
    return path and os.path.abspath(os.path.expanduser(path))


def settle_paths(config):
    """Makes folders and files that a configuration names absolute; ``config`` is changed."""
    for *sections, key in (path.split(".") for path in _PATHS):
        part = functools.reduce(operator.getitem, sections, config)
        part[key] = absolute(part[key])
    if not config["cache"].startswith("~"):  # that of whoever uses the run
        config["cache"] = absolute(config["cache"])


def check_processes(folder, config):
    """Refuses processes of one run that were not started with the same flags.

    Raises:
      UserError: in each of them; it says what another one has instead.
    """
    own = json.loads(config.to_json_best_effort())
    text = json.dumps([str(folder), own])
    for number, another in enumerate(parallel.of_all(text)):
        if another == text:  # NaN and all
            continue
        other, found = json.loads(another)
        differences = _differences(found, own, _PLACES)
        if other != str(folder):
            differences.append(f"--workdir is {other} there and {folder} here")
        if differences:
            raise UserError(
                f"process {number} of this run was started otherwise ({'; '.join(differences)}); "
                "give all of them the same flags"
            )


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
    settle_paths(config)
    wanted = json.loads(config.to_json_best_effort())
    for key, value in flat(wanted):
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"config.{key} is {value}: must be a finite number")
    path = folder / "config.json"
    with writing_to(folder), contextlib.ExitStack() as stack:
        if path.exists():
            if not _gives_way(folder, wanted):
                return Run(folder, config)
            stack.enter_context(exclusive(Run(folder, config)))  # it may be at its first steps
            _gives_way(folder, wanted)  # or have saved a checkpoint meanwhile
            data = config.data  # which may name a file there, such as that of mijax.select
            named = {Path(f).resolve() for f in (data.splits.file, data.annotation.file) if f}
            for left in (folder / name for name in _SETTLED):
                if left.resolve() not in named:
                    left.unlink(missing_ok=True)
        made = tuple(itertools.takewhile(lambda f: not f.exists(), (folder, *folder.parents)))
        before = frozenset() if made else frozenset(path.name for path in folder.iterdir())
        run = Run(folder, config, made, before)
        with taken_back(run):
            folder.mkdir(parents=True, exist_ok=True)
            write_json(path, wanted)
    return run


def _gives_way(folder, wanted):
    """Whether the run of a folder is of another configuration, of which nothing was saved.

    Raises:
      UserError: if it is of another and something was.
    """
    begun = Run(folder, None).begun
    found = read_json(folder / "config.json")
    differences = _differences(found, wanted, MAY_DIFFER if begun else ())
    if differences and begun:
        longer = LONGER.format(run=quoted(folder))
        steps_only = all(d.startswith("config.steps ") for d in differences)
        raise UserError(
            f"{folder} holds a run of another configuration ({'; '.join(differences)}); "
            + (longer if steps_only else "choose another --workdir")
        )
    return bool(differences)


def settled(run, name, given, read):
    """Path of a file in a run folder that holds, or None where it is to be made of what is given.

    That may be corrected until there is a checkpoint; of what differs later a line is logged.

    Args:
      run: ``Run``.
      name: of the file.
      given: path of the file that it was made of, which may be gone; "" for none.
      read: (path) -> contents.
    """
    path = run.folder / name
    if path.exists() and given and Path(given).is_file():
        if not run.begun:
            return None
        if read(path) != read(given):
            _log.warning("%s goes on with its own %s: %s differs", run.folder, name, given)
    return path if path.exists() else None


@contextlib.contextmanager
def taken_back(run):
    """Leaves nothing behind where a start fails before it has logged or saved a step.

    Only what has come into the run folder since ``start_run`` is removed, and the folders that
    ``start_run`` has made.
    """
    try:
        yield
    except BaseException:
        log = run.folder / "metrics.jsonl"
        begun = run.begun or (log.exists() and log.stat().st_size)
        if run.before is not None and not begun:
            with contextlib.suppress(OSError):
                for path in run.folder.iterdir():
                    if path.name not in run.before:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                for folder in run.made:
                    folder.rmdir()
        raise


def open_run(folder):
    """The run of an existing folder, configured as it was.

    Raises:
      UserError: if there is no run there, or one of a version that had other configurations.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").exists():
        raise UserError(f"{folder} is not a run: it has no config.json")
    config = ml_collections.ConfigDict(tuples(read_json(folder / "config.json")))
    known = {key for key, _ in flat(config.to_dict())}
    for key, _ in flat(common.get_config("supervised").to_dict()):
        if key not in known:
            raise UserError(
                f"{folder} is a run of another version of mijax: it has no config.{key}"
            )
    return Run(folder, config)


def is_done(folder):
    """Whether there is a run in a folder that was scored after its last step."""
    try:
        scores, config = (read_json(Path(folder) / f"{name}.json") for name in ("scores", "config"))
        return scores["last"]["step"] == config["steps"]
    except (UserError, KeyError, TypeError):  # not there, or damaged
        return False


@contextlib.contextmanager
def exclusive(run):
    """Holds a run folder against any other process that would train in it.

    Raises:
      UserError: if one does.
    """
    with locked(run.folder / ".lock") as lock:
        if lock is None:
            raise UserError(f"another process is training in {run.folder}; wait for it, or stop it")
        yield


def _differences(found, wanted, may_differ):
    found, wanted = (dict(flat(tuples(config))) for config in (found, wanted))
    return [
        f"config.{key} is {found.get(key)!r} there and {wanted.get(key)!r} here"
        for key in sorted(found.keys() | wanted.keys())
        if key not in may_differ and found.get(key) != wanted.get(key)
    ]
