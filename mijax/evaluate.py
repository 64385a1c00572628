"""Scores a run on the native grid of its volumes: python -m mijax.evaluate --workdir RUN

Writes RUN/scores.json, for the last and the best checkpoint, and prints it as a table. The
cases are those of the test split, or of the validation split where there is no test.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import flags

from mijax import commands
from mijax.errors import UserError
from mijax.metrics import dice, surface_distances

METRICS = ("dsc", "hd95", "assd")
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
    print(table(evaluate(run, tell=commands.tell)))


def evaluate(run, *, tell):
    """Scores the last and the best checkpoint of a run and writes its scores.json.

    Cases are those of the test split, or of the validation split where there is no test, as
    in the paper.

    Args:
      run: ``run.Run``, trained.
      tell: called with a line about anything unusual.

    Returns:
      What is in scores.json: by checkpoint ("last", "best") its ``step``, the ``split``,
      ``mean_dsc`` over cases and foreground classes, ``classes`` and ``cases``; of a method
      that learns without labels its ``measures`` instead of the last three.

    Raises:
      UserError: if the run has no sound checkpoint, or its data is not as it was.
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
    volumes = [source.volume(name) for name in getattr(splits, split)]
    scores = {}
    with Checkpoints(run.checkpoints, tell=tell, read_only=True) as checkpoints:
        steps = {"last": checkpoints.last_step(), "best": checkpoints.best_step()}
        if steps["last"] is None:
            raise UserError(f"{run.checkpoints} has no sound checkpoint")
        experiment, like = rebuild(run)
        by_step = {}
        for name, step in steps.items():
            if step not in by_step:
                state = checkpoints.restore(step, like)
                by_step[step] = _score(experiment, state, volumes, run.config.data, source.classes)
            scores[name] = {"step": step, "split": split, **by_step[step]}
    if parallel.is_first():
        write_json(run.folder / "scores.json", scores)
    return scores


def _score(experiment, state, volumes, data, classes):
    if experiment.measure:
        return {"measures": measures(experiment, state, volumes, data)}
    return score(segment(experiment, state, volumes, data), volumes, classes)


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


def mean_dsc(predictions, volumes, classes):
    """Mean 3D DSC over volumes and foreground classes; volumes have labels."""
    pairs = zip(predictions, volumes, strict=True)
    return float(np.mean([dice(p, v.label, classes=len(classes)) for p, v in pairs]))


def score(predictions, volumes, classes):
    """DSC, HD95 and ASSD of each case and class, their means and standard deviations.

    Returns:
      ``{"mean_dsc": …, "classes": {class: {metric: {"mean", "std", "undefined"}}},
      "cases": {case: {class: {metric: value}}}}``; distances in mm, undefined ones are None
      and left out of the mean; ``std`` is the sample standard deviation over cases.
    """
    from mijax.parallel import cores

    # Threads do: SciPy computes distances without holding the interpreter.
    with ThreadPoolExecutor(cores()) as threads:
        coming = {
            volume.name: threads.submit(_score_case, prediction, volume, classes)
            for prediction, volume in zip(predictions, volumes, strict=True)
        }
        cases = {name: case.result() for name, case in coming.items()}
    return {
        "mean_dsc": float(np.mean([c["dsc"] for case in cases.values() for c in case.values()])),
        "classes": {
            name: {
                metric: _summary([case[name][metric] for case in cases.values()])
                for metric in METRICS
            }
            for name in classes[1:]
        },
        "cases": cases,
    }


def _score_case(prediction, volume, classes):
    """{class: {metric: value or None}} of a case."""
    overlaps = dice(prediction, volume.label, classes=len(classes))
    found = {}
    for value, (name, dsc) in enumerate(zip(classes[1:], overlaps, strict=True), start=1):
        distances = surface_distances(
            prediction == value, volume.label == value, spacing=volume.spacing
        )
        hd95, assd = (None if math.isnan(d) else d for d in distances)
        found[name] = {"dsc": float(dsc), "hd95": hd95, "assd": assd}
    return found


def table(scores):
    """The scores of a run as text for people, one row a checkpoint and class."""
    if any("measures" in entry for entry in scores.values()):
        return _measures_table(scores)
    header = ("checkpoint", "class", "DSC %", "HD95 mm", "ASSD mm")
    rows = [header]
    for name, entry in scores.items():
        label = f"{name} (step {entry['step']})"
        for class_name, metrics in entry["classes"].items():
            values = [metrics[m] for m in METRICS]
            shown = [
                _show(v, 100 if m == "dsc" else 1) for m, v in zip(METRICS, values, strict=True)
            ]
            rows.append((label, class_name, *shown))
        rows.append((label, "mean", f"{100 * entry['mean_dsc']:.2f}", "", ""))
    cases = len(entry["cases"])
    return f"{cases} {entry['split']} cases, mean (standard deviation)\n{_aligned(rows)}"


def _measures_table(scores):
    rows = [("checkpoint", "measure", "value")]
    for name, entry in scores.items():
        for measure, value in entry["measures"].items():
            rows.append((f"{name} (step {entry['step']})", measure, f"{value:.4f}"))
    return f"slices of the {entry['split']} cases, no labels\n{_aligned(rows)}"


def _aligned(rows):
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _summary(values):
    defined = [v for v in values if v is not None]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "std": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "undefined": len(values) - len(defined),
    }


def _show(summary, factor):
    if summary["mean"] is None:
        return "undefined"
    spread = "" if summary["std"] is None else f" ({factor * summary['std']:.2f})"
    missing = f" [{summary['undefined']} undefined]" if summary["undefined"] else ""
    return f"{factor * summary['mean']:.2f}{spread}{missing}"


def _define_flags():
    # Not at import, which is free to programs with flags of these names.
    flags.DEFINE_string("workdir", None, "folder of the run")
    flags.DEFINE_string("data_dir", None, "folder of the data, where it moved since")


if __name__ == "__main__":
    _define_flags()
    commands.run(main)
