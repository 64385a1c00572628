"""The run folder: opened again, refused to another configuration, told apart by name."""

import json
import shutil

import numpy as np
import pytest

from mijax.data import Source, Splits, Volume, read_splits, write_splits
from mijax.data.volume import Case
from mijax.errors import UserError
from mijax.files import write_json
from mijax.inference import evaluate
from mijax.options import flat
from mijax.runs.folder import _SETTLED, default_folder, exclusive, open_run, start_run, taken_back
from mijax.runs.info import check_data, fingerprint
from mijax.runs.source import index_data
from mijax.runs.splits import settle_splits
from mijax.training import loop, train


@pytest.fixture
def begun(tiny, tmp_path, saved):
    """Folder of a run that has a checkpoint."""
    run = start_run(tmp_path / "run", tiny("local_mi"))
    saved(run)
    return run.folder


def test_names_tell_runs_apart(tiny, tmp_path):
    config = tiny("mean_teacher")
    assert str(default_folder(config)) == "runs/phantom/mean_teacher-2labelled-seed0"
    config.data.splits.labelled, config.seed = 0, 3
    # How many have labels, and whether others have none, is not known before the data are.
    assert str(default_folder(config)) == "runs/phantom/mean_teacher-alllabelled-seed3"
    config.init_from = "runs/phantom/boundary_iic-seed3/"
    name = default_folder(config).name
    assert name == "mean_teacher-alllabelled-seed3-from-boundary_iic-seed3"
    splits = {"labelled": ["a"], "unlabelled": ["b", "c"], "validation": ["d"], "test": []}
    write_json(tmp_path / "splits.json", splits)
    config.init_from, config.data.splits.file = "", str(tmp_path / "splits.json")
    name = default_folder(config).name
    assert name == "mean_teacher-1labelled-2unlabelled-seed3"  # whatever labelled_cases says


def test_a_run_opens_as_it_was(begun, tiny):
    first = json.loads(tiny("local_mi").to_json_best_effort())
    assert json.loads(open_run(begun).config.to_json_best_effort()) == first
    assert start_run(begun, tiny("local_mi")).folder == begun


def test_contents_of_a_trained_run(uninterrupted):
    run = uninterrupted("local_mi")
    names = {path.name for path in run.folder.iterdir()} - {"scores.json", "trust.json"}
    assert names == {
        ".lock", "config.json", "info.json", "splits.json",
        "metrics.jsonl", "events", "checkpoints",
    }  # fmt: skip
    info = run.info()
    assert info["classes"] == ["background", "body", "core"] and info["channels"] == 1
    assert info["versions"]["jax"] and info["python"]
    splits = json.loads((run.folder / "splits.json").read_text())
    assert {role: len(cases) for role, cases in splits.items()} == {
        "labelled": 2, "unlabelled": 2, "validation": 2, "test": 2,
    }  # fmt: skip


def test_all_labels_and_splits_that_leave_some_aside_are_at_odds(tiny, tmp_path):
    cases = [Case(name, name, True) for name in "abcd"] + [Case("e", "e", False)]
    file = tmp_path / "mine.json"

    def settle(labelled_cases, *splits):
        write_splits(file, Splits(*splits))
        changes = {"data.splits.file": str(file), "data.splits.labelled": labelled_cases}
        folder = tmp_path / f"{labelled_cases}-{'-'.join(splits[0])}"
        return settle_splits(start_run(folder, tiny("supervised", **changes)), cases)

    with pytest.raises(UserError, match=r"asks for all labels, but .*mine.json leaves 1 case"):
        settle(0, ("a",), ("b", "e"), ("c",), ("d",))
    assert settle(2, ("a",), ("b", "e"), ("c",), ("d",)).labelled == ("a",)  # the file counts
    whole = settle(0, ("a", "b"), ("e",), ("c",), ("d",))  # what has no label may stay
    assert whole.unlabelled == ("e",)
    cases = [Case("a2", "a", True), *cases]
    with pytest.raises(UserError, match=r"splits.labelled=1$"):  # it counts patients
        settle(0, ("a", "a2"), ("b", "e"), ("c",), ("d",))


def test_a_file_that_is_corrected_counts_until_there_is_a_checkpoint(
    tiny, tmp_path, told, saved, monkeypatch
):
    cases, file = [Case(name, name, True) for name in "abcde"], tmp_path / "mine.json"
    first, second, third = (Splits((x,), ("d",), ("e",), ()) for x in "abc")
    write_splits(file, first)
    run = start_run(tmp_path / "run", tiny("supervised", data__splits__file=str(file)))
    with monkeypatch.context() as patch:
        patch.setattr("mijax.parallel.is_first", lambda: False)
        assert settle_splits(run, cases) == first and not (run.folder / "splits.json").exists()
    assert settle_splits(run, cases) == settle_splits(run, cases) == first
    write_splits(file, second._replace(unlabelled=("d", "a")))
    second = second._replace(unlabelled=("a", "d"))  # in order, whichever was given
    assert settle_splits(run, cases) == read_splits(run.folder / "splits.json") == second
    saved(run)
    assert settle_splits(run, cases) == second and not told
    write_splits(file, third)
    assert settle_splits(run, cases) == read_splits(run.folder / "splits.json") == second
    assert told == [f"{run.folder} goes on with its own splits.json: {file} differs"]
    file.unlink()
    assert settle_splits(run, cases) == second and len(told) == 1


def test_another_configuration_is_refused_by_its_differences(begun, tiny):
    config = tiny("local_mi")
    config.seed, config.method.weight = 1, 0.5
    with pytest.raises(UserError) as caught:
        start_run(begun, config)
    message = str(caught.value)
    assert "config.seed is 0 there and 1 here" in message
    assert "config.method.weight is 30.0 there and 0.5 here" in message
    assert "--workdir" in message and str(begun) in message and "\n" not in message
    with pytest.raises(UserError, match=r"config.method.name is 'local_mi' there"):
        start_run(begun, tiny("supervised"))


def test_a_longer_run_is_told_how(begun, tiny):
    with pytest.raises(UserError) as caught:
        start_run(begun, tiny("local_mi", steps=24))
    message = str(caught.value)
    assert "config.steps is 12 there and 24 here" in message
    assert f"begin with its weights: --config FILE --config.steps=N --config.init_from={begun}" in (
        message
    )


def test_where_the_data_lies_is_no_difference(begun, tiny):
    config = tiny("local_mi")
    config.cache, config.data.source.dir = "elsewhere", "/moved"
    assert start_run(begun, config).config.data.source.dir == "/moved"


PATHS = ("init_from", "grow_from", "data.source.dir", "data.splits.file", "data.annotation.file")


def test_paths_are_known_from_anywhere(tiny, tmp_path, saved, monkeypatch):
    """However they are given."""
    monkeypatch.chdir(tmp_path)
    run = start_run("run", tiny("local_mi", **{key: "set" for key in PATHS}))
    folder, whole = tmp_path / run.folder, {key: str(tmp_path / "set") for key in PATHS}
    saved(run)
    found = dict(flat(open_run(folder).config.to_dict()))
    assert {key: found[key] for key in PATHS} == whole
    for path in ("set", "../" + tmp_path.name + "/set", tmp_path / "set"):
        start_run(folder, tiny("local_mi", **{key: str(path) for key in PATHS}))


@pytest.mark.parametrize("place", ["~/.cache/mijax", "cache"])
def test_the_cache_in_a_home_is_that_of_who_uses_the_run(tiny, tmp_path, monkeypatch, place):
    monkeypatch.chdir(tmp_path)
    found = start_run("run", tiny("local_mi", cache=place)).config.cache
    assert found == (place if "~" in place else str(tmp_path / place))
    assert open_run("run").config.cache == found


def test_names_of_data_without_a_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny("local_mi", name="", data__source__dir="..")
    assert default_folder(config).parent.name == tmp_path.parent.name
    config = tiny("local_mi", name="", data__source__dir="some/where/")
    assert str(default_folder(config)) == "runs/where/local_mi-2labelled-seed0"


@pytest.mark.parametrize("where", ["folder", "cache"])
def test_addresses_are_refused(tiny, tmp_path, where):
    config, folder = tiny("local_mi"), tmp_path
    if where == "cache":
        config.cache = "gs://bucket/cache"
    else:
        folder = "gs://bucket/run"
    with pytest.raises(UserError, match="gs://bucket/.*: must be a folder"):
        start_run(folder, config)


def test_the_fingerprint_is_of_names_grids_and_labels():
    labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    volume = Volume("a", np.zeros((2, 3, 4, 1), np.float32), labels, np.eye(4))
    others = [
        volume._replace(name="b"),
        volume._replace(label=labels[::-1]),
        volume._replace(affine=2 * np.eye(4)),
        volume._replace(label=None),
    ]
    found = {fingerprint([x]) for x in (volume, *others)} | {fingerprint([volume, volume])}
    assert len(found) == 6
    assert fingerprint([volume._replace(image=volume.image + 1)]) == fingerprint([volume])


def test_a_run_does_not_go_on_with_other_data(copied):
    run = copied("local_mi")
    train(run)
    write_json(run.folder / "info.json", run.info() | {"data": "other"})
    with pytest.raises(UserError, match="trained on other data.* choose another --workdir"):
        train(run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            lambda v: v._replace(label=1 - np.minimum(v.label, 1)),
            "training cases have other labels",
        ),
        (lambda v: v._replace(image=v.image + 1), "training or validation cases have other images"),
    ],
)
def test_a_run_does_not_go_on_with_other_training_data(copied, monkeypatch, change, told):
    run = copied("local_mi")
    labelled, of = read_splits(run.folder / "splits.json").labelled, Source.volume
    monkeypatch.setattr(
        Source, "volume", lambda self, n: change(of(self, n)) if n in labelled else of(self, n)
    )
    with pytest.raises(UserError, match=f"trained on other data: its {told}.* now; choose an"):
        train(run)


def test_images_that_n4_has_corrected_may_be_rounded_otherwise(copied):
    run = copied("local_mi")
    write_json(run.folder / "info.json", run.info() | {"data": fingerprint([])})
    learned = run.info()["learned"] | {"images": "rounded"}
    with pytest.raises(UserError, match="have other images"):
        check_data(run, [], learned)
    run.config.data.patches.bias_correction = True
    check_data(run, [], learned)


def test_a_run_that_begins_anew_has_no_scores_of_before(copied, monkeypatch):
    run = copied("local_mi")
    shutil.rmtree(run.checkpoints)
    for name in ("scores.json", "trust.json"):
        (run.folder / name).write_text("{}")
    monkeypatch.setattr(loop, "_loop", lambda run, *_: run)
    assert train(run) == run
    assert not {"scores.json", "trust.json"} & {path.name for path in run.folder.iterdir()}


def test_a_draw_that_a_start_has_left_is_told_of(tiny, tmp_path, listening):
    run = start_run(tmp_path, tiny("local_mi"))
    cases = index_data(run.config).cases
    splits = settle_splits(run, cases)
    with listening() as lines:
        assert settle_splits(run, cases) == splits and not lines
        write_splits(tmp_path / "splits.json", splits._replace(test=splits.test[:1]))
        settle_splits(run, cases)
    assert "splits.json is left from an earlier start, and used; " in lines[0]


def test_other_classes_are_refused(copied):
    run = copied("local_mi")
    write_json(run.folder / "info.json", run.info() | {"classes": ["background", "body", "heart"]})
    files = {path: path.read_bytes() for path in run.folder.glob("*.json")}
    for what in (evaluate, train):
        with pytest.raises(UserError, match="has the classes background, body, heart, and its da"):
            what(run)
    assert {path: path.read_bytes() for path in run.folder.glob("*.json")} == files


def test_cases_that_were_moved_are_refused(copied):
    """Or those that a run has learned from would be its test cases."""
    run = copied("local_mi")
    path = run.folder / "splits.json"
    splits = read_splits(path)
    one, *others = splits.labelled
    write_splits(path, splits._replace(labelled=tuple(others), test=(*splits.test, one)))
    for what in (evaluate, train):
        with pytest.raises(UserError, match=f"splits.json: case {one} has another role than when"):
            what(run)
    write_splits(path, splits._replace(test=(*splits.test, one)))
    with pytest.raises(UserError, match=f"case {one} is there 2 times, in labelled and test"):
        evaluate(run)
    write_splits(path, splits._replace(test=splits.test[:1]))
    assert list(evaluate(run)["last"]["cases"]) == [splits.test[0]]


def test_a_run_without_a_checkpoint_gives_way(tiny, tmp_path):
    run = start_run(tmp_path, tiny("local_mi"))
    settled = [tmp_path / name for name in _SETTLED]
    for path in settled:
        path.write_text("{}")
    for name in ("4", "8.orbax-checkpoint-tmp"):  # of a save that a kill cut off
        (run.checkpoints / name).mkdir(parents=True)
    start_run(tmp_path, tiny("local_mi"))
    assert all(path.exists() for path in settled)  # the same one goes on
    run = start_run(tmp_path, tiny("local_mi", seed=5))
    assert open_run(run.folder).config.seed == 5
    assert not any(path.exists() for path in settled)
    (tmp_path / "splits.json").write_text("{}")
    start_run(tmp_path, tiny("local_mi", seed=5, data__source__dir="other"))
    assert not (tmp_path / "splits.json").exists()
    # But for what is given: mijax.select may have written it there.
    settled[0].write_text("{}")
    start_run(tmp_path, tiny("local_mi", seed=6, data__splits__file=str(tmp_path / "splits.json")))
    assert (tmp_path / "splits.json").exists() == (settled[0].name == "splits.json")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_are_finite(tiny, tmp_path, value):
    with pytest.raises(UserError, match=r"config\.method\.weight is (inf|nan): must be a finite"):
        start_run(tmp_path / "run", tiny("local_mi", **{"method.weight": value}))
    assert not (tmp_path / "run").exists()


def test_what_a_run_has_not_noted_is_one_line(begun):
    write_json(begun / "info.json", {"data": "0"})
    info = open_run(begun).info()
    assert info["data"] == "0" and info.get("learned") is None
    with pytest.raises(UserError, match=r"info.json has no 'learned': it is of another version"):
        info["learned"]


def test_not_a_run(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        open_run(tmp_path)


def test_a_run_of_another_version(begun):
    config = json.loads((begun / "config.json").read_text())
    config["data"]["slices"] = config["data"].pop("patches")
    (begun / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="a run of another version of mijax: it has no config.data"):
        open_run(begun)


@pytest.mark.parametrize("content", ["", '{"seed": 0', "\0"])
def test_damaged_configuration(begun, tiny, content):
    (begun / "config.json").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        open_run(begun)
    with pytest.raises(UserError, match=r"cannot read .*config\.json"):
        start_run(begun, tiny("local_mi"))


def test_folder_that_cannot_be_written(tiny, tmp_path, monkeypatch):
    file = tmp_path / "file"
    file.write_text("")
    for folder in (file, file / "run"):
        with pytest.raises(UserError, match=f"cannot write to {folder}"):
            start_run(folder, tiny("local_mi"))

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(UserError, match="cannot write to .*: Permission denied"):
        start_run(tmp_path / "new", tiny("local_mi"))


def test_a_start_that_fails_leaves_no_folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = start_run("runs/phantom/one", tiny("local_mi", data__splits__labelled=8))
    with pytest.raises(UserError, match="lower --config.data"):
        train(run)
    assert list(tmp_path.iterdir()) == []


def test_a_start_that_fails_leaves_what_was_there(tiny, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("")
    for folder in (tmp_path / "set", tmp_path / "set" / "run"):
        run = start_run(folder, tiny("local_mi", data__splits__labelled=8))
        with pytest.raises(UserError, match="lower --config.data"):
            train(run)
        left = {path.name for path in tmp_path.rglob("*")}
        assert left == {"set", "notes.txt"}


@pytest.mark.parametrize("begun", ["metrics.jsonl", "checkpoints/4/SHA256SUMS"])
def test_a_run_that_has_begun_stays(tiny, tmp_path, begun):
    run = start_run(tmp_path / "run", tiny("local_mi"))
    with pytest.raises(UserError), taken_back(run):
        (run.folder / begun).parent.mkdir(parents=True, exist_ok=True)
        (run.folder / begun).write_text("{}")
        raise UserError("a loss that is not finite")
    assert (run.folder / begun).exists()


def test_two_who_start_at_once(tiny, tmp_path):
    """The second is refused, and does not take the folder of the first with it."""
    run = start_run(tmp_path / "run", tiny("local_mi"))
    with exclusive(run), pytest.raises(UserError, match="another process"):
        train(run)
    assert open_run(run.folder).config.seed == run.config.seed


def test_a_run_that_trains_gives_way_to_no_other(tiny, tmp_path):
    """Though it has no checkpoint yet."""
    run = start_run(tmp_path, tiny("local_mi"))
    (tmp_path / "splits.json").write_text("{}")
    with exclusive(run), pytest.raises(UserError, match="another process is training in"):
        start_run(tmp_path, tiny("local_mi", seed=5))
    assert open_run(tmp_path).config.seed == run.config.seed
    assert (tmp_path / "splits.json").exists()
