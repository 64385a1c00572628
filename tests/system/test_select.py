"""Which patients to annotate: from images alone, from a run, and written as training takes it."""

import csv
import itertools
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mijax import commands, select
from mijax.configs import folder
from mijax.data import Splits, read_splits, write_splits
from mijax.errors import UserError
from mijax.inference import Predictor
from mijax.inference.signals import SUMS
from mijax.inference.trust import Look
from mijax.runs.source import open_data
from mijax.runs.splits import choose_splits
from mijax.selection import _of_patient, network, select_first, select_next
from mijax.selection.candidates import Candidates
from mijax.selection.choice import coverage
from mijax.selection.words import summary

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from folders import write_msd


def rows_of(output):
    with (output / "selection.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def bare(tmp_path):
    """The configuration of a folder of seven images without a label."""
    root = write_msd(tmp_path / "set", labelled=0, unlabelled=6)
    config = folder.get_config("supervised")
    config.data.source.dir, config.cache = str(root), str(tmp_path / "cache")
    config.data.patches.size, config.data.splits.validation = (16, 16), 1
    return config


def test_images_alone(bare, tmp_path):
    output = tmp_path / "out"
    found = select_first(bare, count=2, output=output)
    rows = rows_of(output)
    assert [row["rank"] for row in rows] == ["1", "2"]
    assert [row["patient"] for row in rows] == found.chosen
    assert rows[0]["cases"] == found.chosen[0] and "stands for " in rows[0]["reason"]
    with Image.open(output / "selection.png") as picture:
        assert picture.width > 100
    splits = read_splits(output / "splits.json")
    assert set(splits.labelled) == set(found.chosen)
    assert (len(splits.unlabelled), len(splits.validation)) == (4, 1)
    places = found.candidates.index(found.chosen)
    assert found.coverage == pytest.approx(coverage(found.distances, places))
    assert (found.random >= found.coverage - 1e-9).all()  # of so few it is the best pair
    pairs = [coverage(found.distances, pair) for pair in itertools.combinations(range(6), 2)]
    share = np.mean(np.array(pairs) <= found.coverage)
    assert (found.random <= found.coverage).mean() == pytest.approx(share, abs=0.05)

    # Annotated as it says, the same folder trains with these splits.
    labels = write_msd(tmp_path / "all", labelled=6) / "labelsTr"
    wanted = [*splits.labelled, *splits.validation]
    Path(bare.data.source.dir, "labelsTr").mkdir()
    for name in (n for n in wanted if (labels / f"{n}.nii.gz").exists()):
        shutil.copy(labels / f"{name}.nii.gz", Path(bare.data.source.dir, "labelsTr"))
    annotated = [case._replace(labelled=case.name in wanted) for case in open_data(bare).cases]
    assert choose_splits(bare.data, annotated, given=output / "splits.json") == splits


def test_the_same_command_reads_what_it_has_and_chooses_the_same(bare, tmp_path, monkeypatch):
    first = select_first(bare, count=2, output=tmp_path)
    monkeypatch.setattr("mijax.selection.describe", pytest.fail)
    again = select_first(bare, count=2, output=tmp_path)
    assert again.chosen == first.chosen and (again.distances == first.distances).all()


def test_the_next_of_a_run(uninterrupted, tmp_path):
    run = uninterrupted("local_mi")
    before = read_splits(run.folder / "splits.json")
    found = select_next(run, count=1, output=tmp_path)
    after = read_splits(tmp_path / "splits.json")
    (new,) = set(after.labelled) - set(before.labelled)
    assert [new] == found.chosen and new in before.unlabelled
    assert after[2:] == before[2:]
    assert all(0 <= value <= 1 for value in found.disagreement.values())
    places, given = range(len(found.distances)), found.candidates.index(before.labelled)
    gain = np.array([*found.disagreement.values()]) * found.distances[:, given].min(1)
    assert found.candidates.patients[max(places, key=gain.__getitem__)] == new
    assert "agree to a DSC of " in rows_of(tmp_path)[0]["reason"]
    assert summary(found)[-1] == "That is a distance between images, not DSC."


def test_no_splits_are_lost(bare, uninterrupted, copied, tmp_path):
    run = copied("local_mi")
    with pytest.raises(UserError, match="copy is a run; choose another --output"):
        select_next(run, count=1, output=run.folder)
    select_first(bare, count=1, output=tmp_path / "out")
    bare.data.splits.file = str(tmp_path / "out" / "splits.json")
    with pytest.raises(UserError, match="is read, and would be written; choose another --output"):
        select_first(bare, count=1, output=tmp_path / "out")
    bare.data.splits.file = ""
    with pytest.raises(UserError, match=r"splits.json is there and says otherwise; choose another"):
        select_first(bare, count=2, output=tmp_path / "out")
    bare.data.splits.file = str(tmp_path / "out" / "splits.json")
    before, second = read_splits(bare.data.splits.file), tmp_path / "second"
    found = select_first(bare, count=1, output=second)
    assert {*before.labelled, *found.chosen} == set(read_splits(second / "splits.json").labelled)
    assert not {*before.labelled} & {*found.chosen}
    assert not any("no validation case" in line for line in summary(found))
    # A file says who validates, and of them those without a label are named.
    line = f"validation, to be annotated as well: {before.validation[0]}"
    assert line in summary(found)
    labelled = found._replace(candidates=found.candidates._replace(bare=frozenset()))
    assert not any("to be annotated" in line for line in summary(labelled))
    write_splits(tmp_path / "mine.json", before._replace(validation=()))
    bare.data.splits.file = str(tmp_path / "mine.json")
    lines = summary(select_first(bare, count=1, output=tmp_path / "third"))
    assert "splits.json names no validation case; to train, it needs some with labels" in lines


def test_features_of_a_run(tiny, uninterrupted, tmp_path):
    run = uninterrupted("local_mi")
    config = tiny("supervised", data__splits__file=str(run.folder / "splits.json"))
    plain = select_first(config, count=2, output=tmp_path / "a")
    found = select_first(config, count=2, output=tmp_path / "b", features=run.folder)
    assert found.candidates == plain.candidates
    assert not np.allclose(found.distances, plain.distances)
    with pytest.raises(UserError, match="is not a run"):
        select_first(config, count=2, output=tmp_path / "b", features=tmp_path)
    # Into the folder of the descriptor, which has its own.
    (tmp_path / "a" / "splits.json").unlink()
    again = select_first(config, count=2, output=tmp_path / "a", features=run.folder)
    np.testing.assert_array_equal(again.distances, found.distances)


def test_the_scans_of_a_patient_count_as_one():
    rows = {"a": {"x": np.array([0.0, 2])}, "b": {"x": np.array([4.0, 0])}}
    np.testing.assert_array_equal(_of_patient(rows, ("a", "b"))["x"], [2, 1])


def test_features_are_of_every_slice_whatever_the_batch(uninterrupted):
    predictor = Predictor(uninterrupted("local_mi"))
    source = open_data(predictor.run.config)
    volumes = [source.volume(case.name) for case in source.cases[:3]]
    together = list(network.features(predictor, volumes))
    for volume, found in zip(volumes, together, strict=True):
        (alone,) = network.features(predictor, [volume])
        for block in ("mean", "spread"):
            np.testing.assert_allclose(found[block], alone[block], rtol=1e-4, atol=1e-5)


def test_disagreement_by_hand():
    """Of the first class a copy finds 10 pixels, 8 of them its own 10; the other is not found."""
    sums = np.ones((3, len(SUMS) + 2))
    sums[:, SUMS.index("predicted")] = [90, 10, 0]
    sums[:, SUMS.index("pixels")] = 100
    sums[1, -2:] = 10, 8
    nothing = sums.copy()
    nothing[1:, 0] = 0
    looks = [Look(None, sums=x) for x in (sums, nothing)]
    predictor = SimpleNamespace(look=lambda volumes: looks)
    np.testing.assert_allclose([*network.disagreement(predictor, [])], [0.2, 1.0])


def test_channels_that_do_not_fit(uninterrupted):
    predictor = Predictor(uninterrupted("local_mi"))
    with pytest.raises(UserError, match=r"is of images with 1 channel\(s\), and these have 2"):
        network.check_channels(predictor, 2)


@pytest.fixture
def command(monkeypatch, capsys):
    """``command(**flags)``: exit code, stdout, stderr."""

    def run(**values):
        names = ("config", "workdir", "data_dir", "features", "count", "output")
        values = SimpleNamespace(**{**dict.fromkeys(names), **values})
        monkeypatch.setattr(sys, "argv", ["select"])
        monkeypatch.setattr(select, "flags", SimpleNamespace(FLAGS=values))
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            commands.run(select.main)
        return caught.value.code, *capsys.readouterr()

    return run


def test_the_command(command, bare, tmp_path):
    code, out, err = command(config=bare, count=2, output=str(tmp_path / "out"))
    lines = out.splitlines()
    assert not code and lines[0].startswith("1. ") and lines[1].startswith("2. ")
    assert lines[2].startswith("validation, drawn at random, to be annotated as well: ")
    assert lines[3].startswith("Coverage: the 6 training patients are ")
    assert lines[4].startswith("That is a distance between images, not DSC: ")
    assert f"train with --config.data.splits.file={tmp_path}/out/splits.json" in err


@pytest.mark.parametrize(
    ("data_dir", "set_aside", "more"),
    [
        (None, False, ""),
        (None, True, " --splits NEXT/splits.json"),
        ("d", True, " --data_dir d --splits NEXT/splits.json"),
    ],
)
def test_what_trains_with_the_next_ones(data_dir, set_aside, more):
    """--grow alone takes all labels, those that were set aside as well."""
    values = SimpleNamespace(workdir="RUN", data_dir=data_dir, output="NEXT")
    splits = Splits(("a1",), ("b1", "c1", "d1"), (), ())
    spare = frozenset(splits.unlabelled if set_aside else ())
    candidates = Candidates(
        splits, {name: (f"{name}1",) for name in "abcd"}, ("a",), bare=(), drawn=False, spare=spare
    )
    how = select.next_command(values, candidates, ["b", "c"])
    assert how == f"python -m mijax.main --grow RUN --workdir NEW{more}"
    values = SimpleNamespace(workdir=None, output="MY NEXT")
    for some in (spare, spare & {"d1"}):  # main asks for all labels, or for how many
        candidates = candidates._replace(spare=some)
        how = select.next_command(values, candidates, ["b", "c"])
        assert how.startswith("--config.data.splits.file='MY NEXT/splits.json'")
        assert how.endswith(" --config.data.splits.labelled=3") == set_aside
    all_of_them = select.next_command(values, candidates, ["b", "c", "d"])
    assert all_of_them == "--config.data.splits.file='MY NEXT/splits.json'"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 2}, "needs --count N and --output FOLDER"),
        ({"count": 2, "output": "o"}, "needs --config FILE to choose by images or --workdir RUN"),
        ({"count": 1, "output": "o", "workdir": "r", "features": "f"}, "--features goes with"),
        ({"count": 1, "output": "o", "workdir": "nowhere"}, "nowhere is not a run"),
        (
            {"count": 1, "output": "o", "config": "c", "data_dir": "d"},
            "--data_dir goes with --workd",
        ),
    ],
)
def test_wrong_flags(command, values, message):
    code, out, err = command(**values)
    assert code in (1, 2) and out == ""
    assert message in err and len(err.splitlines()) == 1


def test_more_than_there_are_and_none_that_can_be_read(command, bare, tmp_path):
    values = {"config": bare, "output": str(tmp_path / "out")}
    code, _, err = command(count=7, **values)
    assert code == 1 and "--count=7, but there are 6 training patients without labels" in err
    assert not (tmp_path / "out").exists()
    for path in Path(bare.data.source.dir).glob("images*/*.nii.gz"):
        path.write_bytes(b"hello")
    code, _, err = command(count=2, **values)
    assert code == 1 and "7 of 7 cases cannot be used, for the reasons above" in err
