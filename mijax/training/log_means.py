"""Means of what the steps log, between two lines of the log; also over a stop between them."""

import contextlib
import json

import jax
import numpy as np

from mijax.errors import UserError
from mijax.files import write_json

_UNLOGGED = "unlogged.json"  # in the run folder, after a stop between two lines of the log


class LogMeans:
    """Collects the logs of the calls of a train step."""

    def __init__(self, folder, start):
        """Goes on behind step ``start``, of a run in that folder."""
        self._path, self._logs = folder / _UNLOGGED, []
        with contextlib.suppress(OSError, ValueError):  # none, or one that was cut off
            left = json.loads(self._path.read_text(encoding="utf-8"))
            if left["step"] == start:
                self._logs = [
                    {k: np.array(v, np.float32) for k, v in logs.items()} for logs in left["logs"]
                ]

    def add(self, logs, step, schedule):
        """Takes the logs of a call that began at a step: {name: (steps,)}.

        Raises:
          UserError: at the first NaN in them.
        """
        logs = jax.device_get(logs)
        bad = ~np.isfinite(np.stack(list(logs.values()))).all(0)
        if bad.any():
            index = int(bad.argmax())
            terms = ", ".join(f"{name} {value[index]:.4g}" for name, value in logs.items())
            raise UserError(
                f"the loss is not finite at step {step + index} ({terms}, learning rate "
                f"{float(schedule(step + index)):.3g}); the checkpoints before it are kept. Lower "
                "config.learning_rate or the weights of the method"
            )
        self._logs.append(logs)

    def take(self):
        """The means since they were last taken, {name: float}."""
        logs, self._logs = self._logs, []
        return {k: float(np.mean(np.concatenate([x[k] for x in logs]))) for k in logs[-1]}

    def keep(self, step):
        """Writes what was not taken into the run folder, for the run to go on behind ``step``."""
        write_json(self._path, {"step": step, "logs": jax.tree.map(np.ndarray.tolist, self._logs)})
