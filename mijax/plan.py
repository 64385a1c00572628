"""A plan for a folder, with reasons: python -m mijax.plan --config configs/folder.py

With --config.data.source.dir=FOLDER. It says what a run of the folder would do where no flag says
otherwise, and what a training step costs on this machine (--notry leaves that out): where it does
not fit, in which halved batches it does, which are then flags to give. The run makes the same plan
by itself, but for that; --output FILE writes it as JSON. Splits that cannot be drawn are refused
after the plan, as the run would.
"""

import logging
from pathlib import Path

from absl import flags
from ml_collections import config_flags

from mijax import commands

_log = logging.getLogger("mijax")


def main(argv):
    """Prints the plan."""
    from mijax.files import write_json, writing_to  # these take seconds to import
    from mijax.planning import Choice, apply, describe, make_plan, try_plan
    from mijax.planning.cost import step_cost
    from mijax.progress import doing
    from mijax.runs.method import make_method
    from mijax.runs.source import index_data
    from mijax.runs.splits import choose_splits

    values = flags.FLAGS
    if values.config is None:
        commands.fail("needs --config FILE, such as configs/folder.py")
    config = values.config
    if not config.plan:
        commands.fail("that configuration is not planned: give configs/folder.py or --config.plan")
    output = values.output and Path(values.output)
    if output:
        with writing_to(output):
            output.parent.mkdir(parents=True, exist_ok=True)
    commands.prepare_jax(config)
    plan = made = make_plan(config, given=commands.given_keys())
    for line in describe(made):
        print(line, flush=True)
    found, planned = index_data(config), config.copy_and_resolve_references()
    apply(planned, [Choice(**choice) for choice in made["choices"]])
    complete = not make_method(config).examination
    choose_splits(planned.data, found.cases, complete=complete)  # refuses what a run would
    if values["try"].value:

        def cost(trial, most):
            with doing("trying a training step"):
                return step_cost(trial, classes=found.classes, channels=found.channels, most=most)

        plan = try_plan(config, made, cost, memory=_memory())
        for line in describe(plan, made):
            print(line)
    if output:
        with writing_to(output):
            write_json(output, plan)


def _memory():
    """Bytes of the device, or None where that is not known."""
    import jax

    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def define_flags():
    config_flags.DEFINE_config_file("config", None, "configuration file, with a method")
    flags.DEFINE_bool("try", True, "try a training step: its memory and its time")
    flags.DEFINE_string("output", "", "a JSON file for the plan")


if __name__ == "__main__":
    commands.run(main, define_flags)
