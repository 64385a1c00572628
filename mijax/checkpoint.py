"""Checkpoints of a run: kept by Orbax, guarded by checksums. Sole importer of Orbax."""

import hashlib
import os
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, BestN, LatestN

from mijax.errors import UserError

_CHECKSUMS = "SHA256SUMS"


class Checkpoints:
    """The ``checkpoints`` folder of a run, as a context manager.

    Holds the two newest checkpoints, so that there is one to fall back to, and the best by
    validation DSC. A checkpoint counts only once its checksums stand beside it (in the
    format of ``sha256sum``): Orbax by itself does not notice a flipped byte.
    """

    def __init__(self, directory, *, tell):
        """Opens the folder, creating it where it is missing.

        Args:
          directory: of the checkpoints, one subfolder a step.
          tell: called with a line about each damaged checkpoint.
        """
        self._tell = tell
        self._manager = ocp.CheckpointManager(
            Path(directory).absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=_dsc,  # without it Orbax does not write the metrics
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(2), BestN(get_metric_fn=_dsc, n=1)]
                ),
                # The networks are small: a save takes a fraction of a second, and a save that
                # has returned is one that a kill cannot undo.
                enable_async_checkpointing=False,
                cleanup_tmp_directories=True,
            ),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._manager.close()

    def save(self, state, *, dsc):
        """Saves a ``TrainState`` under its step, with its mean validation DSC."""
        step = int(state.step)
        self._manager.save(
            step, args=ocp.args.StandardSave(state), metrics={"dsc": dsc}, force=True
        )
        folder = self._folder(step)
        if jax.process_index() == 0:
            part = folder / f"{_CHECKSUMS}.part"
            part.write_text("".join(f"{h}  {n}\n" for n, h in sorted(_digests(folder).items())))
            os.replace(part, folder / _CHECKSUMS)

    def last_step(self):
        """Newest sound step, or None. Damaged ones are told of and passed over."""
        return max(self._sound_steps(), default=None)

    def best_step(self):
        """Sound step of the highest validation DSC (of equals the latest), or None."""
        return max(
            self._sound_steps(),
            key=lambda step: (_dsc(self._manager.metrics(step)), step),
            default=None,
        )

    def restore(self, step, like):
        """The checkpoint of ``step``, with the shapes and shardings of the tree ``like``.

        Raises:
          UserError: if it does not fit, as after a change of the network.
        """
        try:
            return self._manager.restore(step, args=ocp.args.StandardRestore(like))
        except Exception as error:  # Orbax raises bare Exceptions, among others
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"cannot restore {self._folder(step)}: {reason}") from error

    def discard_after(self, step):
        """Deletes every checkpoint newer than ``step`` (all of them for None)."""
        for newer in self._manager.all_steps():
            if step is None or newer > step:
                self._manager.delete(newer)

    def _sound_steps(self):
        for step in self._manager.all_steps():
            if damage := _damage(self._folder(step)):
                self._tell(f"checkpoint {self._folder(step)} is damaged ({damage}): passed over")
            else:
                yield step

    def _folder(self, step):
        return Path(self._manager.directory) / str(step)


def _dsc(metrics):
    return metrics["dsc"]


def _digests(folder):
    files = (f for f in folder.rglob("*") if f.is_file() and not f.name.startswith(_CHECKSUMS))
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def _damage(folder):
    """What is wrong with the files of a checkpoint, or an empty string."""
    try:
        lines = (folder / _CHECKSUMS).read_text().splitlines()
    except OSError:
        return "its save did not finish"
    expected = dict(reversed(line.split("  ", 1)) for line in lines)
    found = _digests(folder)
    for name, digest in expected.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != digest:
            return f"{name} has changed"
    return ""
