"""Runs read from their folders and grouped into the rows of a table."""

import itertools
import json
from pathlib import Path
from typing import NamedTuple

from mijax.data import read_splits
from mijax.errors import UserError
from mijax.evaluate import METRICS
from mijax.run import Run, flat, open_run

FULL, PARTIAL = "Full supervision", "Partial supervision"
ORDER = (  # the rows of Table 1 of the paper
    FULL, PARTIAL, "Entropy min.", "Mean Teacher", "Mutual information", "Consistency reg.",
    "Ours (MSE)", "Ours (KL)",
)  # fmt: skip

# Of a configuration: what tells the runs of a row apart, or where things lie, or how it is shown.
_OF_A_RUN = {"seed", "name", "cache", "data.dir", "log_every", "predict_batch"}
# Of config.data: how its volumes are used. Anything else says which volumes they are.
_USE = {
    "dir", "splits", "split_seed", "labelled_cases", "validation_cases", "test_cases", "size",
    "fit", "spacing", "plane", "intensity", "window", "percentiles", "bias_correction",
}  # fmt: skip


class Scored(NamedTuple):
    """A run and its scores: ``entry`` is one checkpoint's part of scores.json."""

    run: Run
    seed: int
    entry: dict


class Row(NamedTuple):
    """Runs that differ in nothing but their seed, in the order of their seeds.

    Attributes:
      label: its name in the table.
      base: the name without the values that tell it from rows of the same name.
      runs: of ``Scored``.
    """

    label: str
    base: str
    runs: tuple[Scored, ...]

    @property
    def config(self):
        return self.runs[0].run.config

    @property
    def settings(self):
        """The configuration as a flat dict, less what differs between runs of a row."""
        return settings(self.config)


def find_runs(folders):
    """Run folders among ``folders``; one that is not a run stands for the runs in it.

    Raises:
      UserError: for a folder that neither is a run nor holds one.
    """
    found = []
    for folder in map(Path, folders):
        inside = [folder] if (folder / "config.json").exists() else []
        inside = inside or sorted(path.parent for path in folder.glob("*/config.json"))
        if not inside:
            raise UserError(f"{folder} is not a run and holds none: there is no config.json")
        found += inside
    return list({path.resolve(): path for path in found}.values())


def read_rows(folders, *, checkpoint, tell):
    """Reads runs and groups them into rows, in the order of the paper.

    A run without scores is named and left out, for it may be under way. One whose files are
    damaged is refused: the table would silently be of fewer seeds.

    Args:
      folders: of runs, or of folders of runs.
      checkpoint: "best" or "last".
      tell: called with a line about each run that is left out.

    Returns:
      The rows, and the folders that were left out.

    Raises:
      UserError: no scored run; a damaged one; two of one configuration and seed; or runs of
        different data sets, classes or scored cases.
    """
    scored, left_out = [], []
    for folder in find_runs(folders):
        run = open_run(folder)
        if (folder / "scores.json").exists():
            scored.append(Scored(run, run.config.seed, _read_scores(folder, checkpoint)))
        else:
            left_out.append(folder)
            tell(f"{folder} is left out: it has no scores.json yet")
    if not scored:
        raise UserError(
            "none of the runs has scores; python -m mijax.main --workdir RUN goes on with one, "
            "python -m mijax.evaluate --workdir RUN scores one"
        )
    for other in scored[1:]:
        _check_comparable(scored[0], other)
    return _group(scored), left_out


def name_of(run):
    """The row of Table 1 that a run belongs to, or the name of its method."""
    method = run.config.method
    if method.name == "supervised":
        return FULL if _all_labelled(run) else PARTIAL
    if method.name == "local_mi":
        if not method.consistency_weight:
            return "Mutual information"
        if not method.mi_weight:
            return "Consistency reg."
        return f"Ours ({method.consistency.upper()})"
    return {"entropy": "Entropy min.", "mean_teacher": "Mean Teacher"}.get(method.name, method.name)


def differences(rows):
    """Settings in which rows differ: ``{key: [value of each row, None where it has none]}``."""
    settings = [row.settings for row in rows]
    keys = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each.get(key) for each in settings] for key in keys}
    return {key: found for key, found in values.items() if any(v != found[0] for v in found)}


def settings(config):
    """A configuration as a flat dict, less what differs between the runs of a row."""
    plain = json.loads(config.to_json_best_effort())
    return {key: value for key, value in flat(plain) if key not in _OF_A_RUN}


def _all_labelled(run):
    if run.config.data.splits:  # given, whatever labelled_cases says
        return not read_splits(run.folder / "splits.json").unlabelled
    return run.config.data.labelled_cases == 0


def _read_scores(folder, checkpoint):
    path = folder / "scores.json"
    try:
        entry = json.loads(path.read_text(encoding="utf-8"))[checkpoint]
        classes = list(entry["classes"])
        complete = bool(entry["cases"]) and all(
            list(case) == classes and set(METRICS) <= case[name].keys()
            for case in entry["cases"].values()
            for name in classes
        )
        if not complete or not {"step", "split", "mean_dsc"} <= entry.keys():
            raise ValueError("it is incomplete")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} is damaged ({error}); python -m mijax.evaluate --workdir {folder} writes it "
            "again"
        ) from error
    return entry


def _check_comparable(first, other):
    def volumes(one):
        # Of a key that only one of them has, versions of mijax differ, not the volumes.
        shared = set(first.run.config.data) & set(other.run.config.data) - _USE
        return {key: one.run.config.data[key] for key in shared}

    for what, value in (
        ("data sets", volumes),
        ("classes", lambda one: list(one.entry["classes"])),
        ("cases", lambda one: sorted(one.entry["cases"])),
        ("splits", lambda one: one.entry["split"]),
    ):
        if value(first) != value(other):
            raise UserError(
                f"{first.run.folder} and {other.run.folder} are not comparable: they were scored "
                f"on different {what}"
            )


def _group(scored):
    groups = {}
    for one in scored:
        key = json.dumps(settings(one.run.config), sort_keys=True)
        groups.setdefault(key, []).append(one)
    rows = []
    for runs in groups.values():
        runs.sort(key=lambda one: one.seed)
        for one, other in itertools.pairwise(runs):
            if one.seed == other.seed:
                raise UserError(
                    f"{one.run.folder} and {other.run.folder} are the same configuration with "
                    f"the same seed {one.seed}; give one of them"
                )
        base = name_of(runs[0].run)
        rows.append(Row(base, base, tuple(runs)))
    rows.sort(key=lambda row: (ORDER.index(row.base) if row.base in ORDER else 99, row.base))
    return [_distinguish(row, [other for other in rows if other.base == row.base]) for row in rows]


def _distinguish(row, namesakes):
    """The row with its label lengthened by the values in which it differs from its namesakes."""
    values = [f"{key}={row.settings.get(key, 'absent')}" for key in differences(namesakes)]
    return row._replace(label=", ".join([row.base, *values]))
