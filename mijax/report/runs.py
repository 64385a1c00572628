"""Runs read from their folders and grouped into the rows of a table."""

import itertools
import json
import logging
from pathlib import Path
from typing import NamedTuple

from mijax.data import Annotation, Splits, read_splits
from mijax.errors import UserError
from mijax.methods import PARTIAL
from mijax.options import flat, tuples
from mijax.report.comparable import check_comparable, read_scores
from mijax.report.labels import given_labels, short_labels
from mijax.report.names import name_of, row_of
from mijax.runs.annotation import annotation_of
from mijax.runs.folder import ANNOTATION, MAY_DIFFER, Run, is_done, open_run

# Of a configuration: what tells the runs of a row apart, or where things lie, or how it is shown.
_OF_A_RUN = {
    *MAY_DIFFER, "seed", "name", "log_every", "predict_batch", "steps_per_dispatch", "model.remat",
}  # fmt: skip
_log = logging.getLogger("mijax")


class Scored(NamedTuple):
    """A run and its scores.

    Attributes:
      run: ``runs.folder.Run``.
      seed: of the run.
      entry: one checkpoint's part of its scores.json.
      splits: ``data.Splits``.
      origin: configuration, a dict, of the run that its weights came from, or None.
      checkpoints: ``{"best" or "last": (step, mean DSC)}``, of those in scores.json.
      annotation: ``data.Annotation``.
    """

    run: Run
    seed: int
    entry: dict
    splits: Splits
    origin: dict | None = None
    checkpoints: dict | None = None
    annotation: Annotation | None = None


class Row(NamedTuple):
    """Runs that differ in nothing but their seed, in the order of their seeds.

    Attributes:
      label: its name in the table.
      base: the name without the values that tell it from rows of the same name.
      kind: the base without a teacher on top and without what it was pre-trained by.
      runs: of ``Scored``.
      full: whether they had all labels that there are.
    """

    label: str
    base: str
    kind: str
    runs: tuple[Scored, ...]
    full: bool = False

    @property
    def config(self):
        return self.runs[0].run.config

    @property
    def settings(self):
        """The configuration as a flat dict, less what differs between runs of a row.

        That of the run that its weights came from is under ``init_from.``, of its data the number
        of labelled patients alone.
        """
        found, origin = settings(self.config), _settings(self.runs[0].origin or {})
        if self.pretraining:  # measures are of batches
            found["predict_batch"] = self.config.predict_batch
        if found.get("grow_from"):  # it has as many labels as there were then
            found["data.splits.labelled"] = len(self.splits.labelled)
        for of_a_run in (found, origin):  # folders of runs are others for every seed
            of_a_run.pop("init_from", None)
            if parent := of_a_run.get("grow_from"):
                of_a_run["grow_from"] = True
                if of_a_run.get("data.annotation.file") == str(Path(parent, ANNOTATION)):
                    of_a_run["data.annotation.file"] = True
        return found | {
            f"init_from.{key}": value
            for key, value in origin.items()
            if not key.startswith("data.") or key == "data.splits.labelled"
        }

    @property
    def declared(self):
        """The ``methods.Row`` of its method that it is."""
        return row_of(self.config.to_dict(), self.full)

    @property
    def splits(self):
        return self.runs[0].splits

    @property
    def labels(self):
        """What it learned from: the labelled cases, and what was annotated of them."""
        labelled, _, annotation = _learned_from(self.runs[0])
        return labelled, annotation

    @property
    def training_cases(self):
        """Numbers of its labelled and its unlabelled cases, "4 + 32"."""
        return f"{len(self.splits.labelled)} + {len(self.splits.unlabelled)}"

    @property
    def pretraining(self):
        """Whether its runs learned without labels: they have measures instead of scores."""
        return "measures" in self.runs[0].entry


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


def read_rows(folders, *, checkpoint, names=()):
    """Reads runs and groups them into rows, in the order of the paper.

    A run that is not finished, or has no scores, is named and left out. One whose files are damaged
    is refused: the table would silently be of fewer seeds.

    Args:
      folders: of runs, or of folders of runs.
      checkpoint: "best" or "last".
      names: labels, one a row, in the order in which their first runs are given; by default
        what tells rows apart.

    Returns:
      The rows, and the folders that were left out.

    Raises:
      UserError: no scored run; a damaged one; two of one configuration and seed, or of one
        configuration and other training cases; or runs, of those that segment or of those that do
        not, of different data, classes or scored cases; names that do not fit the rows.
    """
    folders, scored, left_out = find_runs(folders), [], []
    for folder in folders:
        run, reason = open_run(folder), "it has no scores.json yet"
        if (folder / "scores.json").exists():
            entry, both = read_scores(folder, checkpoint)
            reason = "its scores are of an unfinished training"
        if is_done(folder):
            splits = read_splits(folder / "splits.json")
            seed, drawn = run.config.seed, annotation_of(run)
            scored.append(Scored(run, seed, entry, splits, _origin(run), both, drawn))
        else:
            left_out.append(folder)
            _log.warning("%s is left out: %s", folder, reason)
    if not scored:
        raise UserError(
            "none of the runs is finished and scored; python -m mijax.main --workdir RUN goes on "
            "with one, python -m mijax.evaluate --workdir RUN scores one"
        )
    for pretraining in (False, True):
        alike = [one for one in scored if ("measures" in one.entry) == pretraining]
        for one, other in itertools.combinations(alike, 2):
            check_comparable(one, other)
    rows = _group(scored)
    return (given_labels(rows, names, folders) if names else rows), left_out


def settings(config):
    """A configuration as a flat dict, less what differs between the runs of a row.

    Without a teacher its values are no settings, nor is where no weights came from.
    """
    return _settings(json.loads(config.to_json_best_effort()))


def _settings(tree):
    found = {key: value for key, value in flat(tree) if key not in _OF_A_RUN}
    for key in ("init_from", "data.annotation.file", "data.annotation.empty_is_unlabelled"):
        if not found.get(key):
            found.pop(key, None)
    if not found.get("teacher.decay"):
        found = {key: value for key, value in found.items() if not key.startswith("teacher.")}
    return found


def _origin(run):
    if not run.config.init_from:
        return None
    origin = run.info().get("init_from")
    if not origin:
        raise UserError(
            f"{run.folder / 'info.json'} does not say what {run.config.init_from} was, which the "
            "run began with, as it is of an earlier version or was damaged; leave the run out"
        )
    return tuples(origin)


def _group(scored):
    groups = {}
    for one in scored:
        key = json.dumps(_row([one]).settings, sort_keys=True)
        groups.setdefault(key, []).append(one)
    rows = []
    for runs in groups.values():
        runs.sort(key=_seeds)
        for one, other in itertools.pairwise(runs):
            if _learned_from(one) != _learned_from(other):
                raise UserError(
                    f"{one.run.folder} and {other.run.folder} differ in their training cases, or "
                    "what is annotated of them, not in the seed alone; leave one of them out"
                )
            if _seeds(one) == _seeds(other):
                raise UserError(
                    f"{one.run.folder} and {other.run.folder} are the same configuration with "
                    f"the same seed {one.seed}; give one of them"
                )
        rows.append(_row(runs))
    rows = [_row(row.runs, full=True) if _is_the_bound(row, rows) else row for row in rows]
    rows.sort(key=lambda row: (row.declared.place, row.base))
    labels = short_labels(rows)
    return [row._replace(label=label) for row, label in zip(rows, labels, strict=True)]


def _learned_from(one):
    """Labelled and unlabelled cases, and what was annotated."""
    annotation = one.annotation and one.annotation.of(one.splits.labelled)
    return {*one.splits.labelled}, {*one.splits.unlabelled}, annotation


def _is_the_bound(row, rows):
    """Whether a supervised row has all labels that there are, where images without one remain.

    It asked for all, another supervised one had a part of them, and no other row as many.
    """
    config, (labelled, _) = row.config, row.labels
    asked = row.kind == PARTIAL and not config.data.splits.labelled and not config.grow_from
    others = [other for other in rows if other is not row]
    return (
        asked
        and any(other.kind == PARTIAL and other.labels[0] < labelled for other in others)
        and not any(other.labels[0] >= labelled for other in others)
    )


def _seeds(one):
    """Its own and that of the run that its weights came from."""
    return one.seed, (one.origin or one.run.config)["seed"]


def _row(runs, *, full=None):
    config, first = runs[0].run.config.to_dict(), runs[0]
    if full is None:
        _, unlabelled, annotation = _learned_from(first)
        full = not unlabelled and not (annotation and annotation.partial)
    base = name_of(config, full, first.origin)
    return Row(base, base, row_of(config, full).title, tuple(runs), full)
