"""Checkpoints of a run: kept by Orbax, guarded by checksums. Sole importer of Orbax."""

import hashlib
import logging
import math
import re
import shutil
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mijax import parallel
from mijax.errors import UserError, lines_of
from mijax.files import read_json, write_atomically
from mijax.runs.folder import CHECKSUMS

STATE, NETWORK = "state", "network"  # items of a checkpoint: to train on, to predict with
_log = logging.getLogger("mijax")


class Checkpoints:
    """The ``checkpoints`` folder of a run, as a context manager.

    Holds the two newest checkpoints, so that there is one to fall back to, and the best by
    validation score. Each has the training state, and by itself the network that is evaluated.
    It counts only once its checksums stand beside it (in the format of ``sha256sum``): Orbax by
    itself does not notice a flipped byte.
    """

    def __init__(self, directory, *, read_only=False):
        """Opens the folder; to write to it, creates it where it is missing.

        Damaged checkpoints are logged and passed over, and deleted unless ``read_only``: Orbax
        does not open a folder in which the metrics of one are damaged.

        Args:
          directory: of the checkpoints, one subfolder a step.
          read_only: leave the folder as it is; a run may be writing to it.
        """
        self._directory = Path(directory).absolute()
        steps = sorted(int(f.name) for f in self._directory.glob("*") if f.name.isdigit())
        damages = {step: _damage(self._folder(step)) for step in steps}
        self._sound = {step for step in steps if not damages[step]}
        if not read_only:
            parallel.barrier("checkpoints are checked")
        for step in steps:
            if damages[step]:
                folder = self._folder(step)
                _log.warning("checkpoint %s is damaged (%s): passed over", folder, damages[step])
                if not read_only and parallel.is_first():
                    shutil.rmtree(folder)
        if steps and not self._sound:
            _log.warning("%s has no sound checkpoint left", self._directory)
        if not read_only:
            parallel.barrier("damaged checkpoints are removed")
        self._manager = None if read_only else _manager(self._directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self._manager:
            self._manager.close()

    def save(self, state, network, *, score=-math.inf):
        """Saves a ``TrainState`` and the evaluated network under its step.

        Args:
          state: ``TrainState``.
          network: a tree of arrays, see ``inference.network.evaluated``.
          score: the higher the better.

        Raises:
          UserError: if it cannot be written, as to a full disk.
        """
        step = int(state.step)
        needed = sum(x.nbytes for x in jax.tree.leaves((state, network))) + 2**20
        free = shutil.disk_usage(self._directory).free
        if free < needed:
            raise UserError(
                f"cannot save {self._folder(step)}: no space left on device ({free} bytes, it "
                f"takes {needed}); the checkpoints before it are kept"
            )
        items = {STATE: _tree(state), NETWORK: network}
        try:
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    **{name: ocp.args.StandardSave(tree) for name, tree in items.items()}
                ),
                metrics={"score": score},
                force=True,
            )
        except Exception as error:  # of many kinds, and over many lines
            reason = re.search(r"([\w ]+) \[os_error_code", str(error))
            reason = reason[1].strip() if reason else lines_of(error)[0]
            raise UserError(
                f"cannot save {self._folder(step)}: {reason}; the checkpoints before it are kept"
            ) from error
        if parallel.is_first():
            folder = self._folder(step)
            lines = [f"{_digest(folder / name)}  {name}\n" for name in sorted(_files(folder))]
            write_atomically(folder / CHECKSUMS, "".join(lines))
        parallel.barrier("checkpoint is saved")
        self._sound = {*self._sound, step} & set(self._manager.all_steps())

    def last_step(self):
        """Newest sound step, or None."""
        return max(self._sound, default=None)

    def best_step(self):
        """Sound step of the highest score (of equals the latest), or None."""
        return max(self._sound, key=lambda step: (self._score(step), step), default=None)

    def step_of(self, which):
        """The step of a checkpoint.

        Args:
          which: "last", "best", or the step itself.

        Raises:
          UserError: if there is no sound one.
        """
        steps = {"last": self.last_step, "best": self.best_step}
        step = steps[which]() if which in steps else which
        if step is None:
            raise UserError(f"{self._directory} has no sound checkpoint")
        if step not in self._sound:
            raise UserError(f"{self._directory} has no sound checkpoint of step {step}")
        return step

    def restore(self, step, like):
        """The ``TrainState`` of a step, with the shapes and shardings of ``like``.

        Raises:
          UserError: if it does not fit, as after a change of the network.
        """
        return like._replace(**self._restore(step, STATE, _tree(like)))

    def restore_network(self, step, sharding):
        """The network of a step, of whatever shapes it was saved, on the devices of a sharding."""
        handler = ocp.StandardCheckpointHandler()
        saved = handler.metadata(self._folder(step) / NETWORK).tree
        handler.close()
        like = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved
        )
        return self._restore(step, NETWORK, like)

    def _restore(self, step, item, like):
        try:
            with ocp.StandardCheckpointer() as checkpointer:
                return checkpointer.restore(self._folder(step) / item, like)
        except Exception as error:  # Orbax raises bare Exceptions, among others
            reason = lines_of(error)[0]
            hint = "; another version of mijax than that of info.json may not know its form"
            raise UserError(f"cannot restore {self._folder(step)}: {reason}{hint}") from error

    def _score(self, step):
        return read_json(self._folder(step) / "metrics" / "metrics")["score"]

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


def _files(folder):
    """Names of its files, but for hidden ones, which are of file managers and of NFS."""
    return [
        str(file.relative_to(folder))
        for file in folder.rglob("*")
        if file.is_file() and not file.name.startswith(".") and CHECKSUMS not in file.name
    ]


def _digest(file):
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _damage(folder):
    """What is wrong with the files of a checkpoint, or an empty string."""
    try:
        text = (folder / CHECKSUMS).read_text(encoding="utf-8")
    except FileNotFoundError:
        return "its save did not finish"
    except OSError as error:
        raise _unreadable(folder / CHECKSUMS, error) from error
    except ValueError:
        return f"{CHECKSUMS} cannot be read"
    if not text.endswith("\n"):
        return f"{CHECKSUMS} is incomplete"
    for line in text.splitlines():  # what else is there is no part of it
        digest, _, name = line.partition("  ")
        try:
            if _digest(folder / name) != digest:
                return f"{name} has changed"
        except FileNotFoundError:  # perhaps all of it is being removed
            return f"{name} is missing"
        except OSError as error:
            raise _unreadable(folder / name, error) from error
    return ""


def _unreadable(path, error):
    """Not a damage, as it may pass."""
    return UserError(f"cannot read {path}: {error.strerror or error}")
