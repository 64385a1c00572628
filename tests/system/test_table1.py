"""The launcher of Table 1: its jobs, what it skips, and what it does about failures."""

import fcntl
import functools
import itertools
import json
import shutil
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from absl import flags
from ml_collections import config_flags

from mijax import commands, jobs, table1
from mijax.configs import folder as folder_config
from mijax.data import read_splits
from mijax.errors import Notice, Preempted, UserError
from mijax.files import write_json
from mijax.report.names import row_of
from mijax.runs.folder import start_run

CONFIG = "configs/phantom.py"
# ml_collections loads configuration files the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")

# In place of mijax.main: writes what that would, with the configuration of CONFIGS.
STUB = """
import json, os, signal, sys
from pathlib import Path

(folder,) = (Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--workdir="))
folder.mkdir(parents=True)
(folder / "config.json").write_text(CONFIGS[folder.name])
(folder / "info.json").write_text("{}")
row, _, seed = folder.name.partition("-seed")
splits = {"labelled": ["c"], "unlabelled": ["d"] * (row != "full"), "validation": ["e"], "test": []}
(folder / "splits.json").write_text(json.dumps(splits))
if row in STOPPED:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(os.getppid(), signal.SIGTERM)
    signal.sigwait([signal.SIGTERM])
    sys.exit(75)
if row in FAILING:
    sys.exit(3)
dsc = {"full": 0.9, "partial": 0.5}[row] + int(seed) / 100
names = ("nsd", "hd95", "assd", "volume_error", "volume")
case = {"body": {"dsc": dsc, **dict.fromkeys(names, 1.0)}}
steps = json.loads(CONFIGS[folder.name])["steps"]
entry = {"step": steps, "split": "test", "mean_dsc": dsc, "patients": {"a": "a", "b": "b"},
         "nsd_tolerance": {"body": 2}, "classes": {"body": {"dsc": {"mean": dsc}}},
         "cases": {"a": case, "b": case}}
(folder / "scores.json").write_text(json.dumps({"best": entry, "last": entry}))
"""


class Defining:
    """absl's flags, with values of their own."""

    def __init__(self, values):
        self._values = values

    def __getattr__(self, name):
        return functools.partial(getattr(flags, name), flag_values=self._values)


@pytest.fixture
def launch(tmp_path, monkeypatch, png_alone):
    """``launch(*arguments)``: exit code of the launcher, with its jobs stubbed."""
    stub, output = tmp_path / "stub.py", tmp_path / "table"

    def call(*arguments, failing=(), stopped=(), seeds=2, index=None, show=False, rows=()):
        argv = ["", f"--config={CONFIG}", *arguments]
        values = flags.FlagValues()
        config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
        values(argv)
        overrides = config_flags.get_override_values(values["config"])
        planned = jobs_of(overrides, output=tmp_path / "unused", seeds=seeds, rows=rows)
        configs = {job.folder.name: job.config.to_json_best_effort() for job in planned}
        given = f"FAILING = {failing!r}\nSTOPPED = {stopped!r}\nCONFIGS = {configs!r}\n"
        stub.write_text(f"{given}{STUB}")
        monkeypatch.setattr(jobs, "COMMAND", (sys.executable, str(stub)))
        monkeypatch.setattr(commands, "prepare_jax", lambda config: None)
        with monkeypatch.context() as patch:
            patch.setattr(table1.config_flags, "DEFINE_config_file", lambda *_: None)
            patch.setattr(table1, "flags", Defining(values))
            table1.define_flags()
        given = {"output": str(output), "seeds": seeds, "index": index, "list": show, "rows": rows}
        for name, value in given.items():
            setattr(values, name, value)
        monkeypatch.setattr(table1, "flags", SimpleNamespace(FLAGS=values))
        try:
            table1.main([])
        except SystemExit as exit:
            return exit.code
        return 0

    # Two rows are enough: each job is a process.
    monkeypatch.setattr(jobs, "ROWS", {k: jobs.ROWS[k] for k in ("full", "partial")})
    return SimpleNamespace(call=call, output=output)


def jobs_of(overrides=(), *, output, seeds=1, file=CONFIG, rows=()):
    return jobs.make_jobs(
        file, dict(overrides), output=output, seeds=seeds, rows=rows or list(jobs.ROWS)
    )


def test_rows_of_other_methods_and_what_they_begin_with(tmp_path):
    rows = ["partial", "global_local_mi", "supervised:boundary_iic", "mean_teacher:boundary_iic"]
    jobs = jobs_of(output=tmp_path, seeds=2, rows=rows)
    names = [job.folder.name.removesuffix("-seed1") for job in jobs[5:]]
    assert names == [
        "partial",
        "global_local_mi",
        "boundary_iic",
        "supervised-from-boundary_iic",
        "mean_teacher-from-boundary_iic",
    ]
    assert jobs[7].config.init_from == "" and jobs[7].config.method.name == "boundary_iic"
    for job, method in ((jobs[8], "supervised"), (jobs[9], "mean_teacher")):
        assert job.config.init_from == str(tmp_path / "boundary_iic-seed1")
        assert job.config.method.name == method
    for wrong in ("ours", "supervised:boundary"):
        with pytest.raises(
            UserError, match="--rows: there is no method .*: .*uamt.*; the rows are full, partial,"
        ):
            jobs_of(output=tmp_path, rows=[wrong])


def test_the_row_without_mutual_information(tmp_path):
    without, whole = jobs_of(output=tmp_path, rows=["mixed_without_mi", "mixed_mi"])
    assert without.folder.name == "mixed_without_mi-seed0"
    assert without.config.method.mi_weight == 0 < whole.config.method.mi_weight
    titles = [row_of(job.config.to_dict(), full=False).title for job in (without, whole)]
    assert titles == ["Mixing without MI", "Mixed MI"]


def test_a_row_waits_for_its_pretraining(launch, told):
    rows, failing = ["supervised:boundary_iic"], ("boundary_iic",)
    assert launch.call(rows=rows, failing=failing, seeds=1) == 1
    (line,) = (line for line in told if line.startswith("supervised-from-boundary_iic-seed0 "))
    assert "begins with" in line and "is not done" in line
    assert not (launch.output / "supervised-from-boundary_iic-seed0").exists()


def test_jobs_are_the_rows_of_the_paper_for_each_seed(tmp_path):
    jobs = jobs_of({"steps": 7, "data.splits.labelled": 3}, output=tmp_path, seeds=3)
    assert len(jobs) == 24 and len({job.folder for job in jobs}) == 24
    assert [job.config.seed for job in jobs] == [0] * 8 + [1] * 8 + [2] * 8
    assert all(job.config.steps == 7 for job in jobs)

    full, partial, entropy, teacher, mi, consistency, mse, kl = (job.config for job in jobs[:8])
    assert [c.data.splits.labelled for c in (full, partial, kl)] == [0, 3, 3]
    assert [c.method.name for c in (full, partial, entropy, teacher)] == [
        "supervised", "supervised", "entropy", "mean_teacher",
    ]  # fmt: skip
    for config, weights in ((mi, (1, 0, "kl")), (consistency, (0, 1, "kl")), (mse, (1, 1, "mse")),
                            (kl, (1, 1, "kl"))):  # fmt: skip
        method = config.method
        assert (method.mi_weight, method.consistency_weight, method.consistency) == weights


@pytest.mark.parametrize(
    ("overrides", "file", "message"),
    [
        ({"method.weight": 0.5}, CONFIG, "--config.method.weight cannot hold for all rows"),
        ({"data.splits.labelled": 0}, CONFIG, "every row would be fully supervised"),
        ({}, f"{CONFIG}:entropy", "without a method"),
    ],
)
def test_what_makes_no_table_is_refused(overrides, file, message, tmp_path):
    with pytest.raises(UserError, match=message):
        jobs_of(overrides, output=tmp_path, file=file)


def test_full_supervision_of_given_splits(tmp_path):
    a, b, c, d = (f"phantom_{i:04d}" for i in range(4))
    splits = {"labelled": [b], "unlabelled": [a, c], "validation": [d], "test": []}
    write_json(tmp_path / "splits.json", splits)
    given = {"data.splits.file": str(tmp_path / "splits.json")}
    rows = ["full", "partial", "full:boundary_iic"]
    full, partial, _, finetuned = jobs_of(given, output=tmp_path / "table", rows=rows)
    assert finetuned.config.data.splits.file == full.config.data.splits.file
    assert partial.config.data.splits.file == str(tmp_path / "splits.json")
    with open(full.config.data.splits.file) as file:
        assert json.load(file) == {**splits, "labelled": [a, b, c], "unlabelled": []}
    write_json(tmp_path / "full_splits.json", splits)
    given = {"data.splits.file": str(tmp_path / "full_splits.json")}
    with pytest.raises(UserError, match="full_splits.json is given, and would be written; choose"):
        jobs_of(given, output=tmp_path, rows=["full"])


@pytest.fixture
def folder(tmp_path):
    """An MSD folder, of which names are looked at alone: 5 cases with a label and 3 without."""
    data = tmp_path / "data"
    for name in ("imagesTr", "labelsTr"):
        (data / name).mkdir(parents=True)
    for i in range(8):
        (data / "imagesTr" / f"case_{i}.nii.gz").touch()
        if i < 5:
            (data / "labelsTr" / f"case_{i}.nii.gz").touch()
    write_json(data / "dataset.json", {"modality": {"0": "MRI"}, "labels": {"0": "no", "1": "yes"}})
    return data


@pytest.mark.parametrize(("labelled", "full"), [(0, None), (1, 3), (3, None)])
def test_there_is_a_row_full_where_it_has_more_labels(labelled, full, folder, tmp_path, told):
    """3 of the 5 with a label are left to train on."""
    values = {
        "data.source.dir": str(folder),
        "data.splits.labelled": labelled,
        "data.splits.test": 0,
    }
    jobs = jobs_of(values, output=tmp_path / "table", file="configs/folder.py")
    names = [job.folder.name for job in jobs]
    assert ("full-seed0" in names) == bool(full) and "partial-seed0" in names
    line = "no row full: there are no more labels than partial learns from"
    assert any(x.startswith(line) for x in told) == (not full)
    rows = {"rows": ["full"], "file": "configs/folder.py"}
    if not full:
        with pytest.raises(UserError, match="no row is left"):
            jobs_of(values, output=tmp_path / "table", **rows)

    splits = {"labelled": ["case_0"], "unlabelled": ["case_1", "case_6"], "test": []}
    write_json(tmp_path / "splits.json", {**splits, "validation": ["case_4"]})
    values["data.splits.file"] = str(tmp_path / "splits.json")
    (job,) = jobs_of(values, output=tmp_path / "table", **rows)
    whole = read_splits(job.config.data.splits.file)
    assert (whole.labelled, whole.unlabelled) == (("case_0", "case_1"), ("case_6",))


def test_a_plan_is_of_its_flags_and_cases_until_a_job_has_begun(
    folder, tmp_path, monkeypatch, told
):
    config, output = folder_config.get_config("supervised"), tmp_path / "table"
    config.data.source.dir = str(folder)

    def planned(*asked, keep=True):
        return table1._planned(config, asked, output, keep=keep)

    made = itertools.count(1)
    monkeypatch.setattr(
        table1, "_plan", lambda asked: {"choices": [{"key": "steps", "value": next(made)}]}
    )
    assert planned(keep=False) == {"steps": 1} and not output.exists()  # --list
    assert planned() == planned() == planned(keep=False) == {"steps": 2}
    assert planned("--config.data.patches.dims=3") == {"steps": 3}
    (folder / "imagesTr" / "case_8.nii.gz").touch()
    assert planned("--config.data.patches.dims=3") == {"steps": 4} and not told
    checkpoint = output / "partial-seed0" / "checkpoints" / "7"
    checkpoint.mkdir(parents=True)
    assert planned() == {"steps": 5} and not told  # its save was cut off
    (checkpoint / "SHA256SUMS").touch()
    assert planned("--config.data.patches.dims=3") == {"steps": 5}
    assert told == [f"{output / 'plan.json'} holds, as jobs have begun; another --output has a "
                    "plan of its own"]  # fmt: skip


def test_rows_before_a_download(tmp_path):
    assert len(jobs_of(output=tmp_path, file="configs/spleen.py")) == 8
    with pytest.raises(UserError, match="every row would be fully supervised"):
        jobs_of({"data.splits.labelled": 0}, output=tmp_path, file="configs/spleen.py")
    splits = {"labelled": ["b"], "unlabelled": ["a"], "validation": ["c"], "test": []}
    write_json(tmp_path / "splits.json", splits)
    given = {"data.splits.file": str(tmp_path / "splits.json")}
    (job,) = jobs_of(given, output=tmp_path, file="configs/spleen.py", rows=["full"])
    whole = read_splits(job.config.data.splits.file)
    assert (whole.labelled, whole.unlabelled) == (("b", "a"), ())


def test_a_table_of_volumes_that_were_annotated_in_part(folder, tmp_path, told):
    """Every case with a label: partial supervision learns from all that there is."""
    for i in range(5, 8):
        (folder / "imagesTr" / f"case_{i}.nii.gz").unlink()
    values = {"data.source.dir": str(folder), "data.annotation.empty_is_unlabelled": True}
    rows = ["full", "partial", "ours_kl"]
    jobs = jobs_of(values, output=tmp_path / "table", file="configs/folder.py", rows=rows)
    assert [job.folder.name for job in jobs] == ["partial-seed0", "ours_kl-seed0"]
    assert any(line.startswith("no row full: there are no more labels") for line in told)


def test_one_row_under_two_names_is_refused(tmp_path):
    with pytest.raises(UserError, match="--rows: ours_kl and local_mi are the same; give one"):
        jobs_of(output=tmp_path, rows=["partial", "ours_kl", "local_mi"])


def test_list(launch, capsys):
    assert launch.call(show=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [[str(i), "-"] for i in range(4)]
    assert not launch.output.exists()
    assert launch.call(index=2) == 0
    launch.call(show=True)
    states = [line.split()[1] for line in capsys.readouterr().out.splitlines()]
    assert states == ["-", "-", "done", "-"]


@pytest.mark.parametrize("given", [True, False])
def test_an_output_that_is_a_file_is_one_line(launch, tmp_path, given):
    launch.output.touch()
    flag = f"--config.data.splits.file={tmp_path / 'splits.json'}"
    splits = {"labelled": ["phantom_0000"], "unlabelled": ["phantom_0001"], "test": []}
    write_json(tmp_path / "splits.json", {**splits, "validation": ["phantom_0002"]})
    with pytest.raises(UserError, match=f"^cannot write to {launch.output}: "):
        launch.call(*[flag] * given, seeds=1)


def test_runs_all_skips_what_is_done_and_ends_in_the_report(launch, capsys, told):
    assert launch.call(failing=("full",)) == 1
    assert "full-seed0 failed with exit code 3" in told
    last = capsys.readouterr().err.splitlines()[-1]
    assert "2 of 4 jobs not done: full-seed0, full-seed1" in last
    page = launch.output / "report" / "index.html"
    assert "Full supervision" not in page.read_text()  # of what there is

    for name in ("full-seed0", "full-seed1"):
        shutil.rmtree(launch.output / name)
    before = (launch.output / "partial-seed0" / "scores.json").stat().st_mtime_ns
    assert launch.call() == 0
    assert "partial-seed0 is done" in told
    assert (launch.output / "partial-seed0" / "scores.json").stat().st_mtime_ns == before
    text = page.read_text()
    assert "Full supervision" in text and "Partial supervision" in text
    assert "90.50 (0.71)" in text and "50.50 (0.71)" in text  # over both seeds


def test_a_job_that_was_scored_before_its_end_is_run_again(launch, told):
    assert launch.call(seeds=1) == 0
    folder = launch.output / "partial-seed0"
    scores = json.loads((folder / "scores.json").read_text())
    scores["last"]["step"] -= 1
    write_json(folder / "scores.json", scores)
    assert launch.call(seeds=1) == 1  # the stub is for new folders alone
    assert "full-seed0 is done" in told and "partial-seed0 is done" not in told


def test_an_array_ends_in_the_report(launch, capsys):
    page = launch.output / "report" / "index.html"
    for index in range(2):
        assert not page.exists()
        assert launch.call(seeds=1, index=index) == 0
    assert page.exists()
    assert launch.call(seeds=1, index=2) == 2
    assert "--index is below 2" in capsys.readouterr().err


def test_the_report_looks_for_the_data_where_they_are_now(folder, tmp_path, monkeypatch):
    values = {"data.source.dir": str(folder), "data.splits.test": 0}
    (job,) = jobs_of(values, output=tmp_path / "table", file="configs/folder.py", rows=["partial"])
    done(job.folder, job.config)
    asked = {}
    monkeypatch.setattr("mijax.report.make_report", lambda *_, **options: asked.update(options))
    monkeypatch.setattr(commands, "prepare_jax", lambda config: None)
    table1._report([job], tmp_path / "table" / "report")
    assert asked == {"data_dir": str(folder)}


def test_a_job_that_another_process_is_at_is_left_to_it(launch, told):
    (launch.output / ".locks").mkdir(parents=True)
    with (launch.output / ".locks" / "full-seed0").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert launch.call(seeds=1, index=0) == 1
    assert "full-seed0 is left to the process that is at it" in told
    assert launch.call(seeds=1, index=0) == 0


def test_sigterm_is_passed_on_to_the_job_and_ends_the_table(launch):
    with pytest.raises(Preempted, match="the same command goes on"):
        launch.call(stopped=("full",))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert [folder.name for folder in launch.output.glob("*-seed*")] == ["full-seed0"]


def done(folder, config):
    start_run(folder, config)
    write_json(folder / "scores.json", {"last": {"step": config.steps}})


def test_data_that_lie_elsewhere_than_those_of_the_scores_are_told(folder, tmp_path):
    values = {"data.source.dir": str(folder), "data.splits.test": 0}
    options = {"output": tmp_path / "table", "file": "configs/folder.py", "rows": ["partial"]}
    (job,) = jobs_of(values, **options)
    done(job.folder, job.config)
    jobs_of(values, **options)
    shutil.copytree(folder, tmp_path / "other")
    with pytest.warns(Notice, match=f"on the data in {folder}, not in {tmp_path / 'other'}; if"):
        jobs_of(values | {"data.source.dir": str(tmp_path / "other")}, **options)


def test_a_table_goes_on_however_its_folder_and_splits_are_written(tmp_path, monkeypatch):
    file = str(Path(CONFIG).absolute())
    splits = {"labelled": ["phantom_0000"], "unlabelled": ["phantom_0001"], "test": []}
    write_json(tmp_path / "splits.json", {**splits, "validation": ["phantom_0002"]})

    def make(output, splits):
        return jobs_of({"data.splits.file": splits}, output=output, file=file)[:2]

    monkeypatch.chdir(tmp_path)
    for job in make("table", "splits.json"):
        done(job.folder, job.config)
        shutil.copy(job.config.data.splits.file, job.folder / "splits.json")
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    found = make("../table", "../splits.json"), make(tmp_path / "table", tmp_path / "splits.json")
    assert all(job.done for jobs in found for job in jobs)
    write_json(tmp_path / "splits.json", {**splits, "validation": ["phantom_0003"]})
    with pytest.raises(UserError, match=r"full-seed0 has other splits than .*; c"):
        make("../table", "../splits.json")


def test_where_a_row_begins_is_known_from_anywhere(tmp_path, monkeypatch):
    options = {"file": str(Path(CONFIG).absolute()), "rows": ["supervised:boundary_iic"]}
    monkeypatch.chdir(tmp_path)
    job = jobs_of(output="table", **options)[1]
    assert job.config.init_from == str(tmp_path / "table" / "boundary_iic-seed0")
    done(job.folder, job.config)
    monkeypatch.chdir("/")
    assert jobs_of(output=tmp_path / "table", **options)[1].config.init_from == job.config.init_from


def test_scores_of_another_configuration_are_not_taken(launch):
    assert launch.call(seeds=1, index=1) == 0
    with pytest.raises(
        UserError, match=r"partial-seed0 holds .* \(config.steps is 400 there and 9"
    ):
        launch.call("--config.steps=9", seeds=1)
