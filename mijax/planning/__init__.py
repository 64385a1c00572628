"""A plan for a data set: what a configuration leaves open, chosen by rules from what is in it.

The values that nobody gave, each with a sentence of reason; see ``rules``. What they cost is tried
out, see ``cost``.
"""

import logging
import math
from pathlib import Path

from mijax.data import (
    check_slice_options,
    complete_patients,
    count_patients,
    draw_splits,
    read_splits,
)
from mijax.data.patches import slice_options
from mijax.errors import UserError, quoted
from mijax.files import read_json, write_json
from mijax.options import flat, tuples
from mijax.planning.fingerprint import fingerprint
from mijax.planning.rules import Choice, choices, validation_patients
from mijax.progress import out_of_memory
from mijax.runs.annotation import annotation_in
from mijax.runs.folder import PLAN, Run
from mijax.runs.source import index_data
from mijax.training.config_checks import check_config

_log = logging.getLogger("mijax")
_SHARE = 0.8  # of the memory, that a step may fill


def settle_plan(config, folder, *, given=()):
    """Fills in what a configuration that is to be planned leaves open; then it is planned.

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
    if not config.plan:
        return None
    path = Path(folder) / PLAN
    begun = Run(Path(folder), config).begun
    plan = read_json(path) if begun and path.exists() else make_plan(config, given=given)
    apply(config, [Choice(**choice) for choice in plan["choices"]], given=given)
    config.plan = False
    return plan


def write_plan(folder, plan):
    """Writes the plan of a run into its folder; gives its path."""
    path = Path(folder) / PLAN
    write_json(path, plan)
    return path


def make_plan(config, *, given=()):
    """A plan for the data of a configuration, on the devices that JAX runs on.

    Args:
      config: of a run; its values hold where their flags were given.
      given: names of those, ``config.KEY``.

    Returns:
      A dict: ``fingerprint``, and ``choices`` (key, value and reason each).

    Raises:
      UserError: for data that cannot be read, or given values that cannot be, or do not go
        together.
    """
    import jax

    values = dict(flat(config.to_dict()))
    kept = {key: values[key] for key in values if f"config.{key}" in given}
    options, size = slice_options(config.data.patches), kept.get("data.patches.size")
    if not size:
        options["size"] = 1
    elif "data.patches.dims" not in kept:
        options["dims"] = 3 if len(size) == 3 else 2
    check_slice_options(**options)
    if size is not None and len(size) < 2:  # from which no number of axes follows
        raise UserError(
            f"config.data.patches.size {tuple(size)}: must be two numbers, height and width, or "
            "three, depth, height and width"
        )
    recipe = index_data(config)
    labelled = _labelled(config.data.splits, recipe.cases, kept.get("data.splits.validation"))
    annotation, fixed = annotation_in(config.data.annotation.file, config.data), []
    if any(drawn.slices is not None for drawn in annotation.cases.values()):
        if "data.patches.plane" not in kept:
            reason = f"the slices of {config.data.annotation.file} are across it"
            fixed = [Choice("data.patches.plane", annotation.plane, reason)]
        kept["data.patches.plane"] = annotation.plane
    found = fingerprint(_annotated(recipe, annotation), labelled)
    kept["data.splits.test"] = config.data.splits.test
    if config.data.splits.file:
        kept["data.splits.labelled"] = count_patients(labelled, recipe.cases)
    made = fixed + choices(
        found, device=jax.default_backend(), devices=jax.device_count(), kept=kept
    )
    trial = config.copy_and_resolve_references()
    apply(trial, made, given=given)
    check_config(trial)
    return {"fingerprint": found, "choices": [choice._asdict() for choice in made]}


def _annotated(recipe, annotation):
    """The recipe, of whose volumes the part counts that was annotated."""
    return recipe._replace(read=lambda name: annotation.restrict(recipe.read(name), recipe.classes))


def _labelled(splits, cases, validation):
    """The cases that the run will learn from with labels; none where they cannot be drawn."""
    if splits.file:
        return read_splits(splits.file).labelled
    validation = validation or validation_patients(len(complete_patients(cases)))
    try:
        return draw_splits(
            cases,
            labelled=splits.labelled,
            validation=validation,
            test=splits.test,
            seed=splits.seed,
        ).labelled
    except UserError:  # which is told when the run draws them
        return ()


def try_plan(config, plan, cost, *, memory=None):
    """The plan with what a training step costs, and with batches that fit into the memory.

    Args:
      config: of a run.
      plan: of ``make_plan``.
      cost: ``(config, most) -> cost.Cost`` of a step, see ``cost.step_cost``.
      memory: bytes that there are, or None where that is not known.

    Raises:
      UserError: if even the smallest step does not fit.
    """
    import jax

    made = [Choice(**choice) for choice in plan["choices"]]
    most = None if memory is None else _SHARE * memory
    while True:
        trial = config.copy_and_resolve_references()
        apply(trial, made)
        try:
            spent = cost(trial, most)
            if most is None or spent.bytes <= most:
                break
            taken = f"{spent.bytes / 2**30:.1f} GiB and there are {memory / 2**30:.1f}"
        except Exception as error:  # XLA has one kind for all
            if out_of_memory(error) is None:
                raise
            taken = "more memory than there is"
        made = smaller(made, devices=jax.device_count())
        if made is None:
            raise UserError(
                f"a step takes {taken}: give a smaller --config.data.patches.size or "
                "--config.model.widths"
            )
    return plan | {"choices": [choice._asdict() for choice in made], "cost": spent._asdict()}


def smaller(made, *, devices):
    """The choices with one that makes a step smaller, or None where none is left."""
    least = math.lcm(2, devices)
    batches = [c for c in made if c.key in ("labelled_batch", "unlabelled_batch")]
    if all(choice.value <= least for choice in batches):
        return None
    # The larger one; of two alike the labelled one, as a method may mix it with as many others.
    larger = max(batches, key=lambda choice: (choice.value, choice.key == "labelled_batch"))
    value = max(larger.value // 2 // least, 1) * least
    halved = larger._replace(value=value, reason="halved, so that a step fits into the memory")
    return [halved if choice == larger else choice for choice in made]


def apply(config, made, *, given=()):
    """Sets the choices in a configuration, but those whose flags were given."""
    for choice in made:
        if f"config.{choice.key}" not in given:
            section, _, key = choice.key.rpartition(".")
            part = config
            for name in filter(None, section.split(".")):
                part = part[name]
            part[key] = tuples(choice.value)


def describe(plan, before=None):
    """Yields the lines of a plan for people: values, reasons, and what a step costs.

    After ``before``, a plan that was described already, what is new.
    """
    for choice in plan["choices"]:
        if before is None or choice not in before["choices"]:
            value = str(tuples(choice["value"])).replace(" ", "")
            flag = f"--config.{choice['key']}"
            flag = f"no {flag}" if value == "None" else f"{flag}={quoted(value)}"
            yield f"{flag}\n    {choice['reason']}"
    if spent := plan.get("cost"):
        seconds = spent["seconds"]
        shown = f"{seconds:.0f}" if seconds >= 10 else f"{seconds:.2g}"
        yield (
            f"a step takes {spent['bytes'] / 2**30:.2f} GiB and {shown} s here, and "
            f"{spent['compile_seconds']:.0f} s to compile; {spent['steps']} of them take "
            f"{seconds * spent['steps'] / 60:.0f} min, validation aside"
        )
