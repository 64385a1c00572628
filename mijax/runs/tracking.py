"""A run in MLflow and in Weights & Biases as well: extras ``mlflow`` and ``wandb``.

RUN/tracking.json names the trackers with the id that the run has in each, so that a run which is
resumed, by whichever command, goes on in the same place.
"""

import logging
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path

from mijax.errors import needs
from mijax.files import read_json, write_json

_FILE = "tracking.json"
_log = logging.getLogger("mijax")


class MLflow:
    """Where MLFLOW_TRACKING_URI says, in the experiment MLFLOW_EXPERIMENT_NAME or "mijax"."""

    def __init__(self, folder: Path, run_id: str):
        import mlflow

        self._client, self._last = mlflow.MlflowClient(), {}
        if run_id:
            self._client.update_run(run_id, status="RUNNING")
        else:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "mijax")
            found = self._client.get_experiment_by_name(name)
            experiment = found.experiment_id if found else self._client.create_experiment(name)
            run_id = self._client.create_run(experiment, run_name=folder.resolve().name).info.run_id
        self.id = run_id

    def hyperparameters(self, values):
        from mlflow.entities import Param

        params = [Param(_plain(name), str(value)[:500]) for name, value in values.items()]
        for start in range(0, len(params), 100):  # as many as a call takes
            self._client.log_batch(self.id, params=params[start : start + 100])

    def scalars(self, step, values):
        from mlflow.entities import Metric

        now, new = int(1000 * time.time()), []
        for name, value in values.items():
            name = _plain(name)
            if name not in self._last:
                history = self._client.get_metric_history(self.id, name)
                self._last[name] = max((point.step for point in history), default=-1)
            if step > self._last[name]:  # else it is there, from before the run was resumed
                new.append(Metric(name, value, now, step))
                self._last[name] = step
        self._client.log_batch(self.id, metrics=new)

    def close(self, *, done):
        self._client.set_terminated(self.id, "FINISHED" if done else "KILLED")


class Wandb:
    """Offline in RUN/wandb unless WANDB_MODE says otherwise; the project is WANDB_PROJECT's."""

    def __init__(self, folder: Path, run_id: str):
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mijax"),
            name=folder.resolve().name,
            id=run_id or None,
            resume="allow",
            dir=folder,
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )
        self._run.define_metric("*", step_metric="step")
        self.id = self._run.id

    def hyperparameters(self, values):
        self._run.config.update(values, allow_val_change=True)

    def scalars(self, step, values):
        self._run.log({"step": step, **values})

    def close(self, *, done):
        self._run.finish(exit_code=0 if done else 1)


TRACKERS = {"mlflow": MLflow, "wandb": Wandb}


def settle_tracking(folder: Path, names: Iterable[str]) -> None:
    """Adds trackers to those that a run is written to."""
    before = _read(folder)
    if wanted := [name for name in names if name not in before]:
        write_json(folder / _FILE, before | dict.fromkeys(wanted, ""))


class Tracking:
    """All trackers of a run at once; one that fails is left out from there on, and told of."""

    def __init__(self, folder: Path):
        """Opens them, and keeps their ids.

        Raises:
          UserError: a package is not installed.
        """
        self._open, ids = {}, _read(folder)
        for name in ids:
            needs(name, name)
        for name, run_id in ids.items():
            self._guarded(name, lambda make=TRACKERS[name], of=run_id: make(folder, of))
        found = {name: tracker.id for name, tracker in self._open.items()}
        if found.items() - ids.items():
            write_json(folder / _FILE, ids | found)

    def hyperparameters(self, values):
        """Records values by name."""
        self._all(lambda tracker: tracker.hyperparameters(values))

    def scalars(self, step, values):
        """Records floats by name at a step."""
        self._all(lambda tracker: tracker.scalars(step, values))

    def close(self, *, done):
        """Ends them, as done or as stopped."""
        self._all(lambda tracker: tracker.close(done=done))

    def _all(self, call):
        for name, tracker in list(self._open.items()):
            self._guarded(name, lambda tracker=tracker: call(tracker) or tracker)

    def _guarded(self, name, call):
        try:
            self._open[name] = call()
        except Exception as error:  # a server that is gone is no reason to stop a training
            self._open.pop(name, None)
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            _log.warning("%s: %s; the run goes on without it", name, reason)


def _read(folder: Path) -> dict[str, str]:
    path = folder / _FILE
    return {k: v for k, v in read_json(path).items() if k in TRACKERS} if path.exists() else {}


def _plain(name: str) -> str:
    """A name that MLflow takes; with a slash, its store of files would make a folder of it."""
    return re.sub(r"[^\w\-. ]", "_", name.replace("/", "."))
