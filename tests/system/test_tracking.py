"""A run in MLflow and in Weights & Biases: the same numbers, and the same run when it resumes."""

import json
import sys

import pytest

from mijax.errors import UserError
from mijax.runs import tracking
from mijax.runs.tracking import settle_tracking
from mijax.training.metrics_log import MetricsLog


def write(folder, steps, *, start=0, stop=None, enabled=True):
    """Some steps of a run; ``stop`` is raised after the last of them."""
    with MetricsLog(folder, steps=10, start=start, enabled=enabled) as log:
        if not start:
            log.hyperparameters({"seed": 3, "model.widths": (4, 8)}, score="dsc")
        for step in steps:
            log.scalars(step, {"loss": step / 4})
            if step % 4 == 0:
                log.scalars(step, {"dsc": 10.0 * step, "dsc/left (a)": 1.0})
        if stop:
            raise stop


class Recorder:
    """A tracker that keeps what it is told."""

    made = []  # noqa: RUF012

    def __init__(self, folder, run_id):
        self.id, self.calls = run_id or "new", []
        Recorder.made.append((run_id, self.calls))

    def hyperparameters(self, values):
        self.calls.append(values)

    def scalars(self, step, values):
        if values.get("loss") == 1.5:
            raise ConnectionError("no route\nto the server")
        self.calls.append(step)

    def close(self, *, done):
        self.calls.append(done)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setitem(tracking.TRACKERS, "mlflow", Recorder)
    monkeypatch.setitem(sys.modules, "mlflow", json)  # any module: there is one
    Recorder.made.clear()
    return Recorder.made


def test_a_run_that_resumes_goes_on_in_its_place(tmp_path, recorder):
    settle_tracking(tmp_path, ["mlflow"])
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, [2, 4], stop=KeyboardInterrupt())
    settle_tracking(tmp_path, ["mlflow"])
    write(tmp_path, [5], start=4)
    settle_tracking(tmp_path, [])  # --workdir RUN alone
    write(tmp_path, [7], start=5)
    (first, calls), (second, more), (third, last) = recorder
    assert (first, second, third) == ("", "new", "new")
    assert calls == [{"seed": 3, "model.widths": "(4, 8)"}, 2, 4, 4, False]
    assert (more, last) == ([5, True], [7, True])
    assert json.loads((tmp_path / "tracking.json").read_text()) == {"mlflow": "new"}


def test_a_tracker_that_fails_stops_no_training(tmp_path, recorder, told):
    settle_tracking(tmp_path, ["mlflow"])
    write(tmp_path, [2, 6, 8])
    assert recorder[0][1][1:] == [2]
    assert told == ["mlflow: no route to the server; the run goes on without it"]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_one_process_writes(tmp_path, recorder):
    settle_tracking(tmp_path, ["mlflow"])
    write(tmp_path, [2], enabled=False)
    assert recorder == []


def test_without_a_flag_there_is_none(tmp_path, recorder):
    settle_tracking(tmp_path, [])
    write(tmp_path, [2])
    assert recorder == [] and not (tmp_path / "tracking.json").exists()


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_without_the_package(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    settle_tracking(tmp_path, [name])
    with pytest.raises(UserError, match=rf"needs {name}.*pip install -e '.\[{name}\]'"):
        write(tmp_path, [2])


# The packages themselves -----------------------------------------------------------------


def interrupted_and_resumed(folder, name):
    """Steps 2 to 6, and again from the checkpoint of 4 on."""
    settle_tracking(folder, [name])
    with pytest.raises(KeyboardInterrupt):
        write(folder, [2, 4, 6], stop=KeyboardInterrupt())
    write(folder, [6, 8], start=4)
    return json.loads((folder / "tracking.json").read_text())[name]


@pytest.mark.filterwarnings("default")
def test_mlflow(tmp_path, monkeypatch, told):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    folder = tmp_path / "run"
    folder.mkdir()
    run_id = interrupted_and_resumed(folder, "mlflow")
    assert told == []
    client = mlflow.MlflowClient()
    found = client.get_run(run_id)
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params == {"seed": "3", "model.widths": "(4, 8)"}
    points = [(p.step, p.value) for p in client.get_metric_history(run_id, "loss")]
    assert sorted(points) == [(2, 0.5), (4, 1.0), (6, 1.5), (8, 2.0)]  # 6 is there once
    assert found.data.metrics["dsc"] == 80.0 and "dsc.left _a_" in found.data.metrics
    experiment = client.get_experiment_by_name("mijax").experiment_id
    assert [run.info.run_id for run in client.search_runs([experiment])] == [run_id]


def records(content):
    """Those of a .wandb file, a log as of LevelDB: blocks of 32 KiB, records in parts."""
    at, whole = 7, b""  # behind a header
    while at + 7 <= len(content):
        left = 2**15 - at % 2**15
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        whole += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


@pytest.mark.filterwarnings("default")
def test_wandb(tmp_path, told):
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    run_id = interrupted_and_resumed(tmp_path, "wandb")
    assert told == [] and wandb.run is None
    points, ids = [], set()
    for file in sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb")):
        for data in records(file.read_bytes()):
            record = Record.FromString(data)
            if record.WhichOneof("record_type") == "run":
                ids.add(record.run.run_id)
            row = {(i.key or "/".join(i.nested_key)): json.loads(i.value_json)
                   for i in record.history.item}  # fmt: skip
            if "loss" in row:
                points.append((row["step"], row["loss"]))
    assert ids == {run_id}
    assert set(points) == {(2, 0.5), (4, 1.0), (6, 1.5), (8, 2.0)}
