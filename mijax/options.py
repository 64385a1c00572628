"""The flags ``--config`` and ``--config.KEY`` of a command: found, settled, and listed."""

import importlib.util
import re
from pathlib import Path

from mijax.errors import UserError, quoted

LONGER = (
    "its learning rate has fallen to 0 at config.steps, so it cannot be made longer; a new run can "
    "begin with its weights: "
    "--config FILE --config.steps=N --config.init_from={run} --workdir OTHER"
)
_FLAG = re.compile(r"--?(config(?:\.[^=]+)?)(?:=(.*))?", re.DOTALL)
_ENTRY = re.compile(r'\s*"(\w+)":')
_CHANGE = re.compile(r"\s*(\w+(?:\.\w+)+) = ")
_BUILT_ON = re.compile(r"from mijax\.configs import (\w+)$")
_HOME = Path(__file__).parent / "configs"


def settled(argv):
    """The arguments with each of these flags once: the last of them, in the place of the first.

    The parser of tuples would take all of them for one tuple. Each gets the form NAME=VALUE, and
    the file of ``--config`` the path where it is found.

    Raises:
      UserError: if there is no such file.
    """
    kept, rest = {}, argv[::-1]
    while rest:
        argument = rest.pop()
        flag = _FLAG.fullmatch(argument)
        if not flag:
            kept[len(rest)] = argument  # a key that no other has
            continue
        name, value = flag.groups()
        if value is None and rest and not rest[-1].startswith("--"):
            value = rest.pop()
        if name == "config" and value:
            value = _found(value)
        kept[name] = f"--{name}" if value is None else f"--{name}={value}"
    return list(kept.values())


def given(argv):
    """Value of ``--config`` among settled arguments, and names of the flags ``--config.KEY``."""
    flags = [flag for flag in map(_FLAG.fullmatch, argv) if flag]
    files = [value for name, value in (flag.groups() for flag in flags) if name == "config"]
    return (files[0] if files else None), [f[1] for f in flags if f[1] != "config"]


def listing(file):
    """All flags of a configuration file with their values, and what is said of them, as text."""
    path, _, method = file.partition(":")
    spec = importlib.util.spec_from_file_location("config", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config(*filter(None, [method]))
    comments = _comments(_HOME / "common.py") | _comments(path)
    lines = [f"\n{file}:"]
    for key, value in flat(config.to_dict()):
        flag = f"  --config.{key}={'' if value is None else quoted(value)}"
        lines.append(f"{flag:48}  {comments.get(key, '')}".rstrip())
    name = config.method.name
    module = name if "." in name else f"mijax.methods.{name}"
    lines.append(f"python -m pydoc {module}.make describes config.method")
    lines.append("python -m pydoc mijax.methods.with_teacher describes config.teacher")
    return "\n".join(lines)


def flat(tree, prefix=""):
    """Yields (dotted key, value) of every leaf of nested dicts."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def tuples(value):
    """With lists, also inside, as tuples: JSON has lists where a configuration has those."""
    if isinstance(value, dict):
        return {key: tuples(one) for key, one in value.items()}
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value


def _found(file):
    """The file, or where there is none the one of that name that came with mijax.

    ``spleen``, ``spleen.py`` and ``configs/spleen.py`` are names of one; a method may follow.

    Raises:
      UserError: if there is neither; names those that there are.
    """
    path, colon, method = file.partition(":")
    if Path(path).exists():
        return file
    folder, _, name = path.rpartition("/")
    own = sorted(p for p in _HOME.glob("*.py") if p.stem not in ("__init__", "common"))
    if folder in ("", "configs"):
        for place in own:
            if place.stem == name.removesuffix(".py"):
                return f"{place}{colon}{method}"
    names = ", ".join(place.stem for place in own)
    raise UserError(f"--config {path}: no such file; those that come with mijax are {names}")


def _comments(path):
    """{dotted key: comment on the line that gives it its value}, of a file of configuration.

    Of those of mijax that it builds on as well.
    """
    found, parents = {}, []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        if built_on := _BUILT_ON.match(line):
            found |= _comments(_HOME / f"{built_on[1]}.py")
        code, _, comment = line.partition("  # ")
        indent = len(line) - len(line.lstrip())
        if entry := _ENTRY.match(code):  # of a dict
            parents = [(i, key) for i, key in parents if i < indent]
            name = ".".join([*(key for _, key in parents), entry[1]])
            if code.rstrip().endswith("{"):
                parents.append((indent, entry[1]))
        elif change := _CHANGE.match(code):  # of config, or of a part of it in a variable
            name = change[1].removeprefix("config.")
        else:
            continue
        if comment:
            found[name] = comment
    return found
