"""metrics.jsonl, events and the terminal."""

import contextlib
import io
import json
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest

from mijax.progress import logged
from mijax.training.log_means import LogMeans
from mijax.training.metrics_log import MetricsLog


class Terminal(io.StringIO):
    def isatty(self):
        return True


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write(folder, steps, *, start=0):
    with MetricsLog(folder, steps=10, start=start) as writer:
        for step in steps:
            writer.progress(step)
            writer.scalars(step, {"loss": step / 4})


def test_one_line_of_json_each_time(tmp_path):
    write(tmp_path, [2, 4])
    assert lines(tmp_path) == [{"step": 2, "loss": 0.5}, {"step": 4, "loss": 1.0}]


@pytest.mark.parametrize("half", ["", '{"step": 8, "lo', '{"step"', "{", "\0\0\0", "é"])
def test_resume_drops_what_came_after_its_step(tmp_path, half):
    write(tmp_path, [2, 4, 6])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(half)
    write(tmp_path, [5, 6], start=4)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4, 5, 6]


def test_resume_survives_a_character_cut_in_half(tmp_path):
    write(tmp_path, [2])
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write('{"é'.encode()[:-1])
    write(tmp_path, [4], start=2)
    assert [line["step"] for line in lines(tmp_path)] == [2, 4]


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    write(tmp_path, [5, 10])
    out, err = capsys.readouterr()
    assert out == ""
    first, last = err.splitlines()
    assert first.startswith("step 5/10  loss 1.25  ") and first.endswith("min left")
    assert last.startswith("step 10/10  loss 2.5  0.0 min left")


def test_time_left_is_without_what_is_left_out(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 130.0])  # 120 s of it compiling
    monkeypatch.setattr(
        "mijax.training.metrics_log.time", SimpleNamespace(monotonic=lambda: next(clock))
    )
    with MetricsLog(tmp_path, steps=60, start=0) as writer:
        writer.leave_out(120.0)
        writer.scalars(10, {"loss": 1.0})
    assert capsys.readouterr().err == "step 10/60  loss 1  0.8 min left\n"


def test_progress_bar_on_a_terminal(tmp_path, monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with MetricsLog(tmp_path, steps=10, start=3) as writer:
        assert "3/10" in terminal.getvalue().replace(" ", "")
        writer.scalars(5, {"loss": 0.25, "validation_dsc_percent": 80.0})
        writer.progress(5)
    shown = terminal.getvalue()
    assert "step 5/10" not in shown and "\x1b[" in shown
    assert "5/10" in shown and "loss 0.250" in shown and "DSC % 80.000" in shown
    assert "0:00" in shown or "-:--:--" in shown  # time left


def test_events_for_tensorboard(tmp_path, events_of):
    write(tmp_path, [2, 4])
    found = [(v.tag, event.step, v.simple_value) for event, v in events_of(tmp_path)]
    assert found == [("loss", 2, 0.5), ("loss", 4, 1.0)]


def test_events_are_there_before_the_end(tmp_path, events_of):
    """A run that is killed does not write again what came before its last checkpoint."""
    with MetricsLog(tmp_path, steps=9, start=0) as writer:
        writer.scalars(2, {"loss": 0.5})
        writer.picture(2, "slice", np.zeros((2, 2, 3), np.uint8))
        until, found = time.monotonic() + 60, []
        while len(found) < 2 and time.monotonic() < until:
            time.sleep(0.1)
            with contextlib.suppress(Exception):  # half a record
                found = [(value.tag, event.step) for event, value in events_of(tmp_path)]
    assert found == [("loss", 2), ("slice", 2)]


def test_parts_of_a_whole_are_written_and_not_shown(tmp_path, capsys, events_of):
    with MetricsLog(tmp_path, steps=10, start=0) as writer:
        writer.scalars(5, {"dsc": 69.123, "dsc/body": 70.5})
    assert lines(tmp_path) == [{"step": 5, "dsc": 69.123, "dsc/body": 70.5}]
    assert [v.tag for _, v in events_of(tmp_path)] == ["dsc", "dsc/body"]
    err = capsys.readouterr().err
    assert "dsc 69.12" in err and "body" not in err


def test_other_processes_write_nothing(tmp_path, capsys):
    with MetricsLog(tmp_path, steps=2, start=0, enabled=False) as writer:
        writer.progress(1)
        writer.scalars(1, {"loss": 1.0})
        writer.picture(1, "a", None)
        writer.hyperparameters({"b": 1}, score="loss")
    assert list(tmp_path.iterdir()) == [] and capsys.readouterr() == ("", "")


# Waits -----------------------------------------------------------------------------------


def test_how_far_it_is_where_that_takes_long(monkeypatch, told):
    monkeypatch.setattr("mijax.progress.PATIENCE", 0.01)
    deadline = time.monotonic() + 60

    def slow(done):
        while f"work {done}/3" not in told and time.monotonic() < deadline:
            time.sleep(0.005)
        return done

    assert list(logged(map(slow, range(3)), 3, "work")) == [0, 1, 2]
    assert told == ["work 0/3", "work 1/3", "work 2/3"]


def test_no_word_where_it_takes_no_time(told):
    assert list(logged("abc", 3, "work")) == ["a", "b", "c"]
    assert told == []


def test_means_go_on_over_a_stop(tmp_path):
    means = LogMeans(tmp_path, 0)
    means.add({"loss": np.ones(1)}, 0, None)
    means.keep(1)
    means = LogMeans(tmp_path, 1)
    means.add({"loss": np.full(1, 3.0)}, 1, None)
    assert means.take() == {"loss": 2.0}
