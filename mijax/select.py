"""Which patients to annotate: python -m mijax.select --count N --output FOLDER …

From images alone, the first N: with --config FILE --config.data.source.dir=DATA, as in training.
They are those that stand best for all others; --features RUN compares by the features of a
pre-training, say, instead of a plain descriptor of the image.

From a run, the next N: with --workdir RUN. They are those of its unlabelled patients for which its
predictions disagree most and which are far from what has labels.

FOLDER then holds selection.csv, the list with a reason for each; selection.png, each of them beside
those it stands for; and splits.json, to train with by --config.data.splits.file. The same command
goes on after an interruption.
"""

from absl import flags
from ml_collections import config_flags

from mijax import commands
from mijax.errors import quoted


def main(argv):
    """Chooses, and prints the list."""
    from mijax.planning import settle_plan
    from mijax.runs.folder import open_run
    from mijax.selection import select_first, select_next
    from mijax.selection.words import summary

    values = flags.FLAGS
    if values.count is None or not values.output:
        commands.fail("needs --count N and --output FOLDER")
    if (values.config is None) == (not values.workdir):
        commands.fail(
            "needs --config FILE to choose by images or --workdir RUN to ask a run, not both"
        )
    if values.workdir:
        if values.features:
            commands.fail("--features goes with --config; with --workdir they are those of the run")
        run = open_run(values.workdir)
        if values.data_dir is not None:
            run.config.data.source.dir = values.data_dir
        commands.prepare_jax(run.config)
        selection = select_next(run, count=values.count, output=values.output)
    else:
        if values.data_dir is not None:
            commands.fail("--data_dir goes with --workdir; here it is --config.data.source.dir")
        config = values.config
        if values.features or config.plan:
            commands.prepare_jax(config)
        if config.plan:
            settle_plan(config, values.output, given=commands.given_keys())
        selection = select_first(
            config, count=values.count, output=values.output, features=values.features
        )
    for line in summary(selection):
        print(line)
    how = next_command(values, selection.candidates, selection.chosen)
    commands.tell(f"written to {values.output}; when the labels are there, train with {how}")


def next_command(values, candidates, chosen):
    """What trains with the chosen patients, of the flags ``values``."""
    output = quoted(f"{values.output}/splits.json")
    if not values.workdir:
        how = f"--config.data.splits.file={output}"
        if candidates.spare.intersection(candidates.chosen(chosen).unlabelled):
            how += f" --config.data.splits.labelled={len(candidates.labelled) + len(chosen)}"
        return how
    how = f"python -m mijax.main --grow {quoted(values.workdir)} --workdir NEW"
    if values.data_dir is not None:
        how += f" --data_dir {quoted(values.data_dir)}"
    if candidates.set_aside:  # or it takes all labels
        how += f" --splits {output}"
    return how


def define_flags():
    config_flags.DEFINE_config_file("config", None, "configuration file, for its data and slices")
    flags.DEFINE_string("workdir", None, "folder of a run that is asked for the next patients")
    flags.DEFINE_string("data_dir", None, "with --workdir: folder of the data, if it has moved")
    flags.DEFINE_string("features", None, "with --config: folder of a run that embeds the slices")
    flags.DEFINE_integer("count", None, "patients to choose")
    flags.DEFINE_string("output", None, "folder of the list, created where missing")


if __name__ == "__main__":
    commands.run(main, define_flags)
