"""The printed tables of accuracy are those of the scores that are kept beside them."""

import re
from pathlib import Path

import numpy as np
import pytest

from benchmarks import tables

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("scores", "full"),
    [
        ("acdc_1_labelled.csv", "acdc_3_labelled.csv"),
        ("acdc_3_labelled.csv", ""),
        ("acdc_3_labelled_9000_steps.csv", ""),
        ("acdc_7_labelled.csv", "acdc_3_labelled.csv"),
    ],
)
def test_acdc(scores, full):
    page = (BENCHMARKS / "ACDC.md").read_text(encoding="utf-8")
    printed = list(tables.of_file(BENCHMARKS / scores, full=full and BENCHMARKS / full))
    assert len(printed) > 1
    for table in printed:
        assert table in page


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["acdc_1_labelled.csv"], "acdc_1_labelled.csv has no row Full supervision; .* by --full"),
        (["acdc_3_labelled.csv", "--rows=Ours"], "acdc_3_labelled.csv has no row Ours; its rows a"),
        (["hippocampus_1_labelled.csv"], "has no column method; they are method, seed, patient, "),
        (["nowhere.csv"], "No such file or directory: .*nowhere.csv"),
    ],
)
def test_a_row_or_file_that_is_not_there_is_one_line(arguments, line, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tables", str(BENCHMARKS / arguments[0]), *arguments[1:]])
    with pytest.raises(SystemExit, match="2"):
        tables.main()
    assert re.search(line, capsys.readouterr().err.splitlines()[-1])


def test_what_a_table_says(tmp_path):
    """Two rows of two seeds, ten patients, of which one has two cases and one no distance."""
    draw = np.random.default_rng(0)
    lines, dsc = ["method,seed,patient,case,class,dsc,hd95,assd"], {}
    for row, better in ((tables.FULL, 0.2), (tables.PARTIAL, 0.0), ("Ours (KL)", 0.1)):
        for seed in (0, 1):
            for patient in range(10):
                values = draw.uniform(0.5, 0.6, 1 + (patient == 3)) + better
                dsc.setdefault(row, []).append(values.mean())
                lines += [f"{row},{seed},p{patient},c{i},A,{v},,2" for i, v in enumerate(values)]
    (tmp_path / "scores.csv").write_text("\n".join(lines))
    rows, tests = (t.splitlines() for t in tables.of_file(tmp_path / "scores.csv"))
    found = {name: 100 * np.array(values) for name, values in dsc.items()}
    low, high, mean = (found[name].mean() for name in (tables.PARTIAL, tables.FULL, "Ours (KL)"))
    spread = found["Ours (KL)"].reshape(2, 10).mean(1).std(ddof=1)
    assert rows[-1].startswith("| Ours (KL) | 2 | ")
    assert f"| {mean:.1f} ({spread:.1f}) |" in rows[-1]
    assert rows[-1].endswith(f"| {100 * (mean - low) / (high - low):.0f} % | nan | 2.00 |")
    gain = mean - low
    assert tests[-1].startswith(f"| {tables.PARTIAL} | {gain:+.2f}, ")
    assert tests[-1].endswith("| < 0.001 | < 0.001 |")
