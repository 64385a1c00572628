"""Flags of a configuration: the last holds, its file is found, and all of them are listed."""

from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from mijax import configs
from mijax.configs import folder
from mijax.errors import UserError
from mijax.options import flat, given, listing, settled

HOME = Path(configs.__file__).parent
FILE = str(HOME / "phantom.py")
# ml_collections loads configuration files the old way.
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--workdir", "x", "y"], ["--workdir", "x", "y"]),
        (["--config.a=1", "--report", "--config.a=2"], ["--config.a=2", "--report"]),
        (["--config.a", "1", "--config.a=2", "y"], ["--config.a=2", "y"]),
        (["--config.a=1", "-config.a", "-2"], ["--config.a=-2"]),
        (["--config.a=x=y", "--config.b"], ["--config.a=x=y", "--config.b"]),
        (["--config.b", "--config.a=1"], ["--config.b", "--config.a=1"]),
        (["--config=acdc", "--config.a=1", "--config", FILE], [f"--config={FILE}", "--config.a=1"]),
    ],
)
def test_the_last_flag_holds(arguments, wanted):
    assert settled(arguments) == wanted


def test_a_tuple_that_is_given_twice_is_the_last():
    argv = ["", f"--config={HOME / 'phantom.py'}"]
    argv = settled(
        [*argv, "--config.data.patches.size=(32,32)", "--config.data.patches.size=(64,48)"]
    )
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    assert values.config.data.patches.size == (64, 48)


def test_a_configuration_is_found_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("folder", "folder.py", "configs/folder.py"):
        assert settled([f"--config={name}"]) == [f"--config={HOME / 'folder.py'}"]
    assert settled(["--config", "configs/acdc.py:uamt"]) == [f"--config={HOME / 'acdc.py'}:uamt"]
    for nowhere in ("configs/nowhere.py", "other/folder.py", "common"):
        with pytest.raises(
            UserError, match=f"--config {nowhere}: no such file; .*hippocampus, hippocampus3d, ph"
        ):
            settled([f"--config={nowhere}"])
    own = tmp_path / "configs" / "folder.py"
    own.parent.mkdir()
    own.write_text("")
    assert settled(["--config=configs/folder.py"]) == ["--config=configs/folder.py"]


def test_what_is_given():
    assert given(["", "--config=a.py", "--config.b=1", "--c=2"]) == ("a.py", ["config.b"])
    assert given(["", "x"]) == (None, [])


def test_the_listing_has_every_flag_with_its_value_and_comment():
    text = listing(f"{HOME / 'folder.py'}:mean_teacher")
    for key, value in flat(folder.get_config("mean_teacher").to_dict()):
        (line,) = (x for x in text.splitlines() if x.startswith(f"  --config.{key}="))
        assert f"={'' if value is None else value}"[:30] in line.replace("'", "")
    assert (
        "  --config.precision=float32                      float32 or bfloat16, of activations"
        in text
    )
    for key, comment in {
        "data.source.test_images": "whether imagesTs are cases, too",
        "data.splits.seed": "of the draw",
        "data.source.patient_pattern": "regular expression on case names; group 1 is the patient",
        "hypergradient.batch": "validation slices a step",
        "data.patches.size": "as it is planned",
    }.items():
        (line,) = (x for x in text.splitlines() if x.startswith(f"  --config.{key}="))
        assert line.endswith(f"  {comment}")
    for key in ("seed", "data.source.name"):  # which others of the name have a comment
        (line,) = (x for x in text.splitlines() if x.startswith(f"  --config.{key}="))
        assert "  " not in line.strip()
    assert "python -m pydoc mijax.methods.mean_teacher.make" in text
    # Also what the file that it builds on says.
    text = listing(f"{HOME / 'acdc_small.py'}")
    (line,) = (x for x in text.splitlines() if "source.testing" in x)
    assert line.endswith("  whether patients 101 to 150 are taken too")
