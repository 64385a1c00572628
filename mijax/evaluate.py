"""Scores a run on the native grid of its volumes: python -m mijax.evaluate --workdir RUN

Writes RUN/scores.json, for the last and the best checkpoint, and prints it as a table. The
cases are those of the test split, or of the validation split where there is no test.
"""

from absl import flags

from mijax import commands
from mijax.errors import UserError
from mijax.progress import doing
from mijax.scores import score, table

_BATCHES = 4  # of slices that a method without labels is measured on


def main(argv):
    """Scores the run."""
    from mijax.run import open_run

    values = flags.FLAGS
    if not values.workdir:
        commands.fail("needs --workdir FOLDER, the folder of a run")
    run = open_run(values.workdir)
    if values.data_dir is not None:
        run.config.data.dir = values.data_dir
    commands.prepare_jax(run.config)
    scores = evaluate(
        run,
        largest_component=values.largest_component,
        mirror=values.mirror,
        tell=commands.tell,
    )
    print(table(scores))


def evaluate(run, *, largest_component=False, mirror=False, tell):
    """Scores the last and the best checkpoint of a run and writes its scores.json.

    Cases are those of the test split, or of the validation split where there is no test, as
    in the paper.

    Args:
      run: ``run.Run``, trained.
      largest_component: see ``inference.predict_volumes``.
      mirror: likewise.
      tell: called with a line about anything unusual, and about what takes long.

    Returns:
      What is in scores.json: by checkpoint ("last", "best") its ``step``, the ``split``, the
      patient of each case, the options ``largest_component`` and ``mirror``, and what ``score``
      returns; of a method that learns without labels its ``measures`` instead of the last three.

    Raises:
      UserError: if the run has no sound checkpoint, its data is not as it was, or it has no
        label maps that the options could be for.
    """
    from mijax import parallel
    from mijax.checkpoint import Checkpoints
    from mijax.data import read_splits
    from mijax.experiment import open_data
    from mijax.inference import rebuild
    from mijax.run import write_json

    source = open_data(run.config)
    splits = read_splits(run.folder / "splits.json")
    split = "test" if splits.test else "validation"
    names = getattr(splits, split)
    volumes = [source.volume(name) for name in names]
    patients = {case.name: case.patient for case in source.cases if case.name in names}
    how = {"largest_component": largest_component, "mirror": mirror}
    scores = {}
    with Checkpoints(run.checkpoints, tell=tell, read_only=True) as checkpoints:
        steps = {"last": checkpoints.last_step(), "best": checkpoints.best_step()}
        if steps["last"] is None:
            raise UserError(f"{run.checkpoints} has no sound checkpoint")
        experiment, like = rebuild(run)
        if experiment.measure and any(how.values()):
            raise UserError(
                f"{run.folder} learned without labels and segments nothing: --largest_component "
                "and --mirror are for label maps"
            )
        by_step = {}
        for name, step in steps.items():
            if step not in by_step:
                with doing(f"restoring the checkpoint of step {step}", tell=tell):
                    state = checkpoints.restore(step, like)
                found = _score(
                    experiment, state, volumes, run.config.data, source.classes, how, tell
                )
                by_step[step] = found if experiment.measure else {"patients": patients, **found}
            scores[name] = {"step": step, "split": split, **by_step[step]}
    if parallel.is_first():
        write_json(run.folder / "scores.json", scores)
    return scores


def _score(experiment, state, volumes, data, classes, how, tell):
    if experiment.measure:
        return {"measures": measures(experiment, state, volumes, data)}
    predictions = segment(experiment, state, volumes, data, **how)
    return how | score(predictions, volumes, classes, tell=tell)


def measures(experiment, state, volumes, data):
    """Measures of a method that learns without labels, by name, on slices of some volumes."""
    from mijax.inference import even_slices, measure

    count = _BATCHES * experiment.predict_batch
    return measure(experiment, state, even_slices(volumes, data, count=count, stored=True))


def segment(experiment, state, volumes, data, *, largest_component=False, mirror=False):
    """Yields the label map (x, y, z) of each volume, on its native grid.

    Options as of ``inference.predict_volumes``.
    """
    from mijax.inference import predict_volumes

    stream = predict_volumes(
        experiment,
        state,
        volumes,
        data,
        stored=True,
        largest_component=largest_component,
        mirror=mirror,
    )
    yield from (labels for labels, _ in stream)


def _define_flags():
    # Not at import, which is free to programs with flags of these names.
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("data_dir", None, "folder of the data, where it moved since")
    flags.DEFINE_bool("largest_component", False, "keep the largest 3-D piece of each class")
    flags.DEFINE_bool("mirror", False, "average over mirrored slices; takes four times as long")


if __name__ == "__main__":
    _define_flags()
    commands.run(main)
