"""The picture of the house: what may import what, and how the pure functions look."""

import ast
import importlib
import inspect
import sys
from pathlib import Path

import pytest

import mijax

ROOT = Path(mijax.__file__).parent

# Five floors of rooms, from below. Imports run downwards only: a part imports parts of lower floors
# and, on its own floor, of rooms before its own, never of its own room or of a later one.
FLOORS = {
    "ground": [
        {"errors"},
        {"files", "progress"},
        {"losses", "transforms", "metrics", "models", "data", "options", "parallel"},
    ],
    "what is asked": [{"methods", "commands"}, {"configs"}],
    "a run": [{"runs"}, {"inference"}, {"training"}],
    "of runs": [{"report"}, {"jobs", "planning", "selection", "serving"}],
    "commands": [
        {"main", "evaluate", "export", "inspect", "plan", "predict", "select", "serve", "table1"}
    ],
}
ROOMS = [room for rooms in FLOORS.values() for room in rooms]
PURE = ("losses", "transforms", "metrics", "models")  # the ground floor of a JAX programmer


def part_of(module):
    """``losses`` of ``mijax.losses.pointwise``."""
    return module.split(".")[1]


def imports_of(path):
    """Full names of all modules that a file imports, at its top or inside a function.

    ``from a import b`` counts as ``a.b``, which may be a module or a name in one.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} has a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


FILES = {
    ".".join(("mijax", *path.relative_to(ROOT).with_suffix("").parts)): imports_of(path)
    for path in sorted(ROOT.rglob("*.py"))
    if path != ROOT / "__init__.py"
}


def importers_of(package):
    return {f for f, names in FILES.items() if any(n.split(".")[0] == package for n in names)}


def test_every_part_has_its_place_in_the_picture():
    assert {part_of(f) for f in FILES} <= set().union(*ROOMS)


def test_imports_run_downwards_only():
    level = {part: n for n, room in enumerate(ROOMS) for part in room}
    for file, names in FILES.items():
        for name in names:
            if name.startswith("mijax.") and name != "mijax.__version__":
                own, other = part_of(file), part_of(name)
                assert own == other or level[other] < level[own], f"{file} imports {name}"


@pytest.mark.parametrize("part", sorted(PURE))
def test_the_ground_floor_has_no_siblings(part):
    for file, names in FILES.items():
        if part_of(file) == part:
            ours = {part_of(n) for n in names if n.startswith("mijax.")}
            assert ours <= {part, "errors"}, file


def test_data_has_rooms_of_its_own():
    """Formats know nothing of sources, and neither knows what is made of them."""
    above = {"formats": {"sources", "index", "store", "scans"}, "sources": {"index", "store"}}
    for file, names in FILES.items():
        for room, others in above.items():
            if file.startswith(f"mijax.data.{room}"):
                found = {n.split(".")[2] for n in names if n.startswith("mijax.data.")}
                assert not found & others, file


def test_no_import_goes_round_in_a_circle():
    def targets(names):
        # The module itself where the name is one, or else the module it is taken from.
        for name in names:
            for candidate in (name, name.rpartition(".")[0]):
                for module in (candidate, f"{candidate}.__init__"):
                    if module in FILES:
                        yield module

    graph = {file: set(targets(names)) - {file} for file, names in FILES.items()}
    while leaves := [file for file, below in graph.items() if not below]:
        for leaf in leaves:
            del graph[leaf]
        graph = {file: below - set(leaves) for file, below in graph.items()}
    assert not graph


def test_heavy_libraries_are_where_they_belong():
    assert importers_of("orbax") == {"mijax.runs.checkpoints"}
    assert {part_of(f) for f in importers_of("flax")} <= {"models"}
    assert {part_of(f) for f in importers_of("optax")} <= {"training"}
    for library in ("ml_collections", "nibabel", "scipy"):
        assert not {part_of(f) for f in importers_of(library)} & {"losses", "transforms"}, library
    assert not {part_of(f) for f in importers_of("jax")} & {"data", "metrics", "errors", "files"}
    configured = {part_of(f) for f in importers_of("ml_collections")}
    assert configured <= {"runs", "report", "jobs", "main", "plan", "select", "table1"}
    for library in ("fastapi", "starlette", "uvicorn"):
        assert {part_of(f) for f in importers_of(library)} == {"serving"}, library
    for library in ("tensorflow", "torch", "monai", "chex"):
        assert not importers_of(library)


def test_predicting_knows_nothing_of_training():
    for file in ("inference", "runs"):
        parts = {part_of(n) for f, names in FILES.items() if part_of(f) == file for n in names
                 if n.startswith("mijax.")}  # fmt: skip
        assert "training" not in parts


def test_the_command_line_is_read_in_commands_only():
    shells = {
        "evaluate",
        "export",
        "main",
        "plan",
        "predict",
        "report",
        "select",
        "serve",
        "table1",
    }
    assert {part_of(f) for f in importers_of("absl")} <= shells | {"commands", "jobs"}


def test_no_file_is_long():
    for file in ROOT.rglob("*.py"):
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 280, file


# Conventions of the pure functions -----------------------------------------------------

FACES = ["mijax.losses", "mijax.transforms", "mijax.metrics"]
PUBLIC = [
    pytest.param(getattr(importlib.import_module(module), name), id=f"{module}.{name}")
    for module in FACES
    for name in importlib.import_module(module).__all__
]


@pytest.mark.parametrize("f", PUBLIC)
def test_conventions_of_the_public_functions(f):
    assert inspect.getdoc(f)
    parameters = inspect.signature(f).parameters
    if "key" in parameters:
        assert next(iter(parameters)) == "key"
    assert not parameters.keys() & {"rng", "seed", "reduction"}
    for parameter in parameters.values():
        # Labels go where their images go; they are data, not an option.
        if parameter.default is not parameter.empty and parameter.name != "labels":
            assert parameter.kind is parameter.KEYWORD_ONLY, parameter


@pytest.mark.parametrize("module", FACES)
def test_the_public_face_is_complete(module):
    module = importlib.import_module(module)
    assert module.__all__ == sorted(module.__all__)
    own = {
        name
        for name, f in vars(module).items()
        if not name.startswith("_") and not inspect.ismodule(f)
    }
    assert own == set(module.__all__)


def test_every_module_and_method_says_what_it_is():
    for file in FILES:
        module = sys.modules.get(file) or importlib.import_module(file.removesuffix(".__init__"))
        assert module.__doc__, file
