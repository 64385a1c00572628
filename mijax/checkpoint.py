"""Checkpoints of a run: kept by Orbax, guarded by checksums. Sole importer of Orbax."""

import hashlib
import json
import math
import os
import re
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mijax import parallel
from mijax.errors import UserError

_CHECKSUMS = "SHA256SUMS"


class Checkpoints:
    """The ``checkpoints`` folder of a run, as a context manager.

    Holds the two newest checkpoints, so that there is one to fall back to, and the best by
    validation score. A checkpoint counts only once its checksums stand beside it (in the
    format of ``sha256sum``): Orbax by itself does not notice a flipped byte.
    """

    def __init__(self, directory, *, tell, read_only=False):
        """Opens the folder; to write to it, creates it where it is missing.

        Damaged checkpoints are passed over, and deleted unless ``read_only``: Orbax does not
        open a folder in which the metrics of one are damaged.

        Args:
          directory: of the checkpoints, one subfolder a step.
          tell: called with a line about each damaged checkpoint.
          read_only: leave the folder as it is; a run may be writing to it.
        """
        self._directory = Path(directory).absolute()
        steps = sorted(int(f.name) for f in self._directory.glob("*") if f.name.isdigit())
        damages = {step: _damage(self._folder(step)) for step in steps}
        self._sound = {step for step in steps if not damages[step]}
        for step in steps:
            if damages[step]:
                tell(f"checkpoint {self._folder(step)} is damaged ({damages[step]}): passed over")
                if not read_only and parallel.is_first():
                    shutil.rmtree(self._folder(step))
        if steps and not self._sound:
            tell(f"{self._directory} has no sound checkpoint left")
        if not read_only:
            parallel.meet("checkpoints are checked")
        self._manager = None if read_only else _manager(self._directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._manager:
            self._manager.close()

    def save(self, state, *, score=-math.inf):
        """Saves a ``TrainState`` under its step, with its score: the higher the better.

        Raises:
          UserError: if it cannot be written, as to a full disk.
        """
        step = int(state.step)
        needed = sum(x.nbytes for x in jax.tree.leaves(state)) + 2**20
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise UserError(
                f"cannot save {self._folder(step)}: no space left on device ({free} bytes, it "
                f"takes {needed}); the checkpoints before it are kept"
            )
        try:
            self._manager.save(
                step, args=ocp.args.StandardSave(_tree(state)), metrics={"score": score}, force=True
            )
        except Exception as error:  # of many kinds, and over many lines
            reason = re.search(r"([\w ]+) \[os_error_code", str(error))
            reason = reason[1].strip() if reason else str(error).strip().splitlines()[0]
            raise UserError(
                f"cannot save {self._folder(step)}: {reason}; the checkpoints before it are kept"
            ) from error
        if parallel.is_first():
            folder = self._folder(step)
            part = folder / f"{_CHECKSUMS}.part"
            lines = [f"{h}  {n}\n" for n, h in sorted(_digests(folder).items())]
            part.write_text("".join(lines), encoding="utf-8")
            os.replace(part, folder / _CHECKSUMS)
        parallel.meet("checkpoint is saved")
        self._sound = {*self._sound, step} & set(self._manager.all_steps())

    def last_step(self):
        """Newest sound step, or None."""
        return max(self._sound, default=None)

    def best_step(self):
        """Sound step of the highest score (of equals the latest), or None."""
        return max(self._sound, key=lambda step: (self._score(step), step), default=None)

    def step(self, which):
        """``last_step`` or ``best_step``, for "last" or "best"."""
        return {"last": self.last_step, "best": self.best_step}[which]()

    def restore(self, step, like):
        """The checkpoint of ``step``, with the shapes and shardings of ``like``.

        Raises:
          UserError: if it does not fit, as after a change of the network.
        """
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                restored = checkpointer.restore(self._folder(step) / "default", _tree(like))
                return like._replace(**restored)
        except Exception as error:  # Orbax raises bare Exceptions, among others
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot restore {self._folder(step)}: {reason}") from error

    def _score(self, step):
        path = self._folder(step) / "metrics" / "metrics"
        return json.loads(path.read_text(encoding="utf-8"))["score"]

    def _folder(self, step):
        return self._directory / str(step)


def _tree(state):
    """The fields of a state that it has: those it has not may be unknown to a checkpoint."""
    return {name: value for name, value in state._asdict().items() if value is not None}


def _manager(directory):
    def score(metrics):
        return metrics["score"]

    return ocp.CheckpointManager(
        directory,
        options=ocp.CheckpointManagerOptions(
            best_fn=score,  # without it Orbax does not write the metrics
            preservation_policy=AnyPreservationPolicy(
                [LatestN(2), BestN(get_metric_fn=score, n=1)]
            ),
            # The networks are small: a save takes a fraction of a second, and a save that
            # has returned is one that a kill cannot undo.
            enable_async_checkpointing=False,
            cleanup_tmp_directories=True,
        ),
    )


def _digests(folder):
    files = (f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(_CHECKSUMS))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _damage(folder):
    """What is wrong with the files of a checkpoint, or an empty string."""
    try:
        lines = (folder / _CHECKSUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return "its save did not finish"
    except (OSError, ValueError):
        return f"{_CHECKSUMS} cannot be read"
    expected = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    found = _digests(folder)
    if found.keys() - expected.keys():
        return f"{_CHECKSUMS} is incomplete"
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} has changed"
    return ""
