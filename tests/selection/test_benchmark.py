"""benchmarks.select: what its runs are said to show."""

import json

import numpy as np

from benchmarks.select import done
from benchmarks.select_report import report

PATIENTS = [f"p{i}" for i in range(8)]
PLACE = np.arange(8.0)[:, None]  # on a line: the more central, the better it covers the others


def run_of(name, patients, dsc, seed=0, **more):
    job = {"name": name, "method": "supervised", "patients": patients, "seed": seed}
    scores = {"validation": {"v": dsc, "w": 1.02 * dsc}, "test": {"t": dsc, "u": 0.98 * dsc}}
    return job | scores | more


def test_report():
    runs = [
        run_of(f"random {i}", [f"p{i}"], 0.7 - 0.02 * abs(i - 3.5), every=1) for i in range(1, 7)
    ]
    runs += [run_of(f"random {i}", ["p1", "p5"], 0.8 + i / 100, every=4) for i in range(6)]
    runs += [run_of("k-medoids line", ["p3"], x, seed=i) for i, x in enumerate((0.7, 0.72))]
    lines = list(report(runs, PATIENTS, {"line": PLACE}, roles=("validation", "test")))
    text = "\n".join(lines)
    assert lines[0].startswith("N = 1: 6 random draws, validation 67.67 ± 1.81, median 67.67; test")
    assert lines[1].startswith("N = 2, one slice in 4: 6 random draws, validation 83.33 ± 1.89")
    assert lines[2].startswith("  against all slices of 1: validation p = 0.0")
    assert "line coverage: +1.00; +1.00" in text and "line typicality: +1.00" in text
    assert "N = 1, k-medoids line: 2 seeds; validation 71.71 (+4.04 against their mean" in text
    assert "above 6 of 6, p = 0.14); test 70.29 (+3.96 against their mean, above 6 of 6" in text


def test_jobs_are_done_once(tmp_path):
    whole, sparse = run_of("random 0", ["p1"], 0.5), run_of("random 0", ["p1"], 0.5, every=4)
    path = tmp_path / "runs.jsonl"
    path.write_text(f'{json.dumps(whole)}\n\n{json.dumps(sparse)}\n{{"name": "rand')
    keys = {"name": "random 0", "method": "supervised", "patients": ["p1"], "seed": 0}
    assert done(path) == [keys | {"every": 1}, keys | {"every": 4}]
