"""A plan for a data set: what a configuration leaves open, chosen by rules from what is in it.

The values that nobody gave, each with a sentence of reason; see ``rules``. What they cost is tried
out, see ``cost``.
"""

import logging
from pathlib import Path

from mijax.errors import UserError
from mijax.files import read_json, write_json
from mijax.options import flat
from mijax.planning.fingerprint import fingerprint
from mijax.planning.rules import Choice, choices, smaller
from mijax.runs.source import index_data

_log = logging.getLogger("mijax")
_SHARE = 0.8  # of the memory, that a step may fill
FILE = "plan.json"


def settle_plan(config, folder, *, given=()):
    """Fills in what a configuration without a size of images leaves open.

    By the plan of a run that has saved a checkpoint; else by one that is made.

    Args:
      config: of the run, which is changed.
      folder: of the run.
      given: names of the flags that were given, ``config.KEY``; those keys are left alone.

    Returns:
      The plan as a dict, to be written by ``write_plan``; None where there is nothing to plan.

    Raises:
      UserError: for data that cannot be read.
    """
    if config.data.patches.size:
        return None
    path, begun = Path(folder) / FILE, any((Path(folder) / "checkpoints").glob("[0-9]*"))
    plan = read_json(path) if begun and path.exists() else make_plan(config, given=given)
    apply(config, [Choice(**choice) for choice in plan["choices"]], given=given)
    return plan


def write_plan(folder, plan):
    """Writes the plan of a run into its folder; gives its path."""
    path = Path(folder) / FILE
    write_json(path, plan)
    return path


def make_plan(config, *, given=(), cost=None, memory=None):
    """A plan for the data of a configuration, on the devices that JAX runs on.

    Args:
      config: of a run; its values hold where their flags were given.
      given: names of those, ``config.KEY``.
      cost: ``config -> cost.Cost`` of a step, so that it fits into the memory; None to go without.
      memory: bytes that there are, or None where that is not known.

    Returns:
      A dict: ``fingerprint``, ``choices`` (key, value and reason each), and ``cost`` if it was
      asked for.

    Raises:
      UserError: for data that cannot be read; and if even the smallest step does not fit.
    """
    import jax

    found = fingerprint(index_data(config))
    values = dict(flat(config.to_dict()))
    kept = {key: values[key] for key in values if f"config.{key}" in given}
    made = choices(found, device=jax.default_backend(), devices=jax.device_count(), kept=kept)
    plan = {"fingerprint": found, "choices": made}
    if cost:
        made, spent = _that_fits(config, made, cost, memory)
        plan |= {"cost": spent._asdict()}
    return plan | {"choices": [choice._asdict() for choice in made]}


def _that_fits(config, made, cost, memory):
    """The choices, with batches that fit into the memory, and the ``Cost`` of a step of them."""
    while True:
        trial = config.copy_and_resolve_references()
        apply(trial, made)
        spent = cost(trial)
        if memory is None or spent.bytes <= _SHARE * memory:
            return made, spent
        made = smaller(made)
        if made is None:
            raise UserError(
                f"a step takes {spent.bytes / 2**30:.1f} GiB and there are {memory / 2**30:.1f}: "
                "give a smaller --config.data.patches.size or --config.model.widths"
            )


def apply(config, made, *, given=()):
    """Sets the choices in a configuration, but those whose flags were given."""
    for choice in made:
        if f"config.{choice.key}" not in given:
            section, _, key = choice.key.rpartition(".")
            part = config
            for name in filter(None, section.split(".")):
                part = part[name]
            part[key] = _tuples(choice.value)


def _tuples(value):
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def describe(plan):
    """Yields the lines of a plan for people: values, reasons, and what a step costs."""
    for choice in plan["choices"]:
        value = str(_tuples(choice["value"])).replace(" ", "")
        flag = f"--config.{choice['key']}={value}"
        yield f"{flag}\n    {choice['reason']}"
    if spent := plan.get("cost"):
        yield (
            f"a step takes {spent['bytes'] / 2**30:.2f} GiB and {spent['seconds']:.2g} s here, and "
            f"{spent['compile_seconds']:.0f} s to compile; {spent['steps']} of them take "
            f"{spent['seconds'] * spent['steps'] / 60:.0f} min, validation aside"
        )
