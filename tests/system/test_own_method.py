"""A method of one file outside the package: it trains, has its flags, and is in the report."""

import importlib
import re
import sys
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from mijax import jobs, methods, options
from mijax.configs import phantom
from mijax.errors import UserError
from mijax.inference import evaluate
from mijax.report import make_report
from mijax.report.figures import _titles
from mijax.report.runs import read_rows
from mijax.runs.folder import start_run
from mijax.training.loop import train

DOCS = Path(__file__).parents[2] / "docs" / "methods.md"
NAME = "lab.pi_model"
# ml_collections loads configuration files the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """The example of the documentation, on the path of Python."""
    (example,) = (code for code in re.findall(r"```python\n(.*?)```", DOCS.read_text("utf-8"), re.S)
                  if "def make(" in code)  # fmt: skip
    (tmp_path / "lab").mkdir()
    (tmp_path / "lab" / "pi_model.py").write_text(example, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("lab", NAME):
        monkeypatch.delitem(sys.modules, name, raising=False)
    importlib.invalidate_caches()
    return tmp_path


def test_trains_and_is_in_the_report(lab, tiny, tmp_path, png_alone):
    run = start_run(tmp_path / "run", tiny(NAME, method__noise=0.2, steps=4))
    train(run)
    evaluate(run)
    assert '"disagreement"' in (run.folder / "metrics.jsonl").read_text()
    page = make_report([run.folder], tmp_path / "report", predictions=False)
    assert "<h1>Π-model</h1>" in page.read_text(encoding="utf-8")
    rows, _ = read_rows([run.folder], checkpoint="best")
    assert _titles(rows)["disagreement"] == "Squared distance of the noisy copies"


def test_a_report_does_without_the_file(lab):
    (lab / "lab" / "pi_model.py").unlink()
    assert methods.rows("lab.pi_model") == {} == methods.quantities("lab.pi_model")
    with pytest.raises(UserError, match="no method 'lab.pi_model': No module named 'lab.pi_model'"):
        methods.build(NAME)


def test_has_its_flags(lab):
    file = f"{Path(phantom.__file__)}:{NAME}"
    values = flags.FlagValues()
    argv = ["", f"--config={file}", "--config.method.noise=0.5"]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    assert values.config.method.to_dict() == {
        "name": NAME, "weight": 1.0, "noise": 0.5, "ramp_steps": 0,
    }  # fmt: skip
    text = options.listing(file)
    assert "--config.method.noise=0.1\n" in text and f"pydoc {NAME}.make" in text
    with pytest.raises(UserError, match="method lab.pi_model: noise is at least 0, not -1"):
        methods.build(NAME, noise=-1)
    with pytest.raises(UserError, match="method lab.pi_model has no radius, but weight, noise"):
        methods.build(NAME, radius=1)


def test_is_a_row_of_the_table(lab, tmp_path):
    (job,) = jobs.make_jobs(
        str(Path(phantom.__file__)), {}, output=tmp_path / "table", seeds=1, rows=[NAME]
    )
    assert job.folder.name == f"{NAME}-seed0" and job.config.method.noise == 0.1


def test_a_module_that_is_no_method():
    with pytest.raises(UserError, match=r"no method 'os.path': .* has no function make"):
        methods.find("os.path")


def test_the_documentation_has_every_method():
    text = DOCS.read_text("utf-8")
    assert [name for name in methods.names() if f"| `{name}` |" not in text] == []
