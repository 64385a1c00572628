"""A run that goes on with more labels: on the validation and test cases of the run before it."""

import copy
import logging
from pathlib import Path
from typing import NamedTuple

from mijax.data import all_labelled, check_splits, read_annotation, read_splits
from mijax.errors import UserError, quoted
from mijax.files import read_json
from mijax.runs.folder import ANNOTATION, absolute, is_done, open_run

_log = logging.getLogger("mijax")


class Ancestor(NamedTuple):
    """A run that another has grown from.

    Attributes:
      folder: of it, as it was then.
      labelled: number of its labelled cases.
      scores: {checkpoint: mean DSC}, of those of its scores.json; {} where it had none.
      terms: {checkpoint: by what they compare, see ``terms_of``}; {} where not noted.
    """

    folder: str
    labelled: int
    scores: dict[str, float]
    terms: dict[str, dict] = {}  # noqa: RUF012


def grown_config(folder, *, splits="", annotation="", weights=True):
    """The configuration of a run that goes on with the cases of another.

    Args:
      folder: of that run.
      splits: file that says who is labelled now; "" for all that have labels by then.
      annotation: file that says which part of the labels counts; "" for that of the run before.
      weights: whether to begin with its weights, classifier included; else as it began itself.

    Raises:
      UserError: if there is no run, it is not done, or there is no such file.
    """
    origin = open_run(folder)
    if not is_done(origin.folder):
        raise UserError(
            f"{folder} is not finished and scored; python -m mijax.main --workdir {quoted(folder)} "
            "goes on with it"
        )
    if splits:
        read_splits(splits)
    if annotation:
        read_annotation(annotation)
    config = copy.deepcopy(origin.config)
    config.grow_from = str(origin.folder.resolve())
    config.data.splits.file = absolute(splits)
    config.init_from = config.grow_from if weights else _first_weights(origin.config)
    before = Path(config.grow_from, ANNOTATION)
    if annotation or before.exists():
        config.data.annotation.file = absolute(annotation or before)
    return config


def _first_weights(config):
    """``config.init_from`` of the first of the runs that one has grown from with its weights."""
    while config.init_from and config.init_from == config.grow_from:
        config = open_run(config.grow_from).config
    return config.init_from


def grown_splits(folder, cases, *, file="", annotation=""):
    """The splits of a run that goes on with the cases of another, and with more labels.

    Validation and test stay as they are. All others are training cases, new ones as well, but for
    new scans of patients who are held out, and for those without a label of patients who had some:
    these are left out.

    Args:
      folder: of the run before.
      cases: of the data set as it is now.
      file: splits that say who is labelled; "" for all that have labels.
      annotation: file that says which part of the labels counts; "" for all of them.

    Raises:
      UserError: cases that are no longer there, unlabelled ones aside, a file that holds out
        others, and no new label, nor another part of those that there were.
    """
    try:
        before = splits_before(Path(folder) / "splits.json", cases)
    except UserError as error:
        raise UserError(f"config.grow_from: {error}") from error
    held_out = {*before.validation, *before.test}
    if file:
        splits = read_splits(file, cases)
        _check_follows(file, splits, before, folder)
        splits = splits._replace(validation=before.validation, test=before.test)  # in their order
    else:
        cases = _taken(before, cases)
        others = {case.name for case in cases} - {*before.labelled, *held_out}
        splits = all_labelled(before._replace(unlabelled=tuple(sorted(others))), cases)
        check_splits(splits, cases)
    added = len(set(splits.labelled) - set(before.labelled))
    if not added and (read_annotation(annotation) if annotation else {}) == _annotation(folder):
        raise UserError(
            f"config.grow_from: no training case has got a label since {folder}, which has "
            f"{len(before.labelled)}"
        )
    _log.info("grown from %s: %d labelled cases and %d more", folder, len(before.labelled), added)
    return splits


def splits_before(file, cases, *, complete=True):
    """The splits of a run, without its unlabelled cases that are no longer in the data set.

    Raises:
      UserError: as ``data.read_splits`` and ``check_splits``; so if another case is gone.
    """
    before, names = read_splits(file), {case.name for case in cases}
    gone = [name for name in before.unlabelled if name not in names]
    before = before._replace(unlabelled=tuple(n for n in before.unlabelled if n in names))
    try:
        check_splits(before, cases, complete=complete)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if gone:
        _log.info("%d unlabelled case(s) of %s are gone (%s, …)", len(gone), file, gone[0])
    return before


def check_annotation_follows(folder, now):
    """Refuses another annotation of the cases that are held out than in the run before.

    Args:
      folder: of that run.
      now: {case: ``data.Drawn``}, or None where no file says it.

    Raises:
      UserError: for that, and for no file where there was one.
    """
    before, then = read_splits(Path(folder) / "splits.json"), _annotation(folder)
    if then and now is None:
        raise UserError(
            f"config.grow_from: {folder} was annotated in part; give --config.data.annotation.file="
            f"{quoted(Path(folder, ANNOTATION))}, or a file that says what of it is annotated now "
            "({}: all)"
        )
    held_out = {*before.validation, *before.test}
    if changed := sorted(name for name in held_out if (now or {}).get(name) != then.get(name)):
        raise UserError(
            f"config.grow_from: case {changed[0]} is held out, and its annotation is of another "
            f"part than in {folder}, so that scores do not compare"
        )


def _taken(before, cases):
    """The cases without those new ones that would give a patient a second role."""
    patients = {case.name: case.patient for case in cases}
    held_out = {patients[name] for name in (*before.validation, *before.test)}
    labelled = {patients[name] for name in before.labelled}
    new = [case for case in cases if all(case.name not in names for names in before)]
    for whose, out in (
        ("of validation or test patients", [c for c in new if c.patient in held_out]),
        (
            "without a label, of labelled patients,",
            [c for c in new if c.patient in labelled and not c.labelled],
        ),
    ):
        if out:
            _log.warning("%d new scan(s) %s are left out (%s, …)", len(out), whose, out[0].name)
            cases = [case for case in cases if case not in out]
    return cases


def _annotation(folder):
    """{case: ``data.Drawn``} of a run; of one that was annotated whole, {}."""
    path = Path(folder) / ANNOTATION
    return read_annotation(path) if path.exists() else {}


def _check_follows(file, splits, before, folder):
    for role in ("validation", "test"):
        if set(getattr(splits, role)) != set(getattr(before, role)):
            raise UserError(
                f"{file}: has other {role} cases than {folder}, so that scores do not compare"
            )
    if gone := sorted(set(before.labelled) - set(splits.labelled)):
        raise UserError(
            f"{file}: {len(gone)} case(s) are not labelled that {folder} has so ({gone[0]}, …)"
        )


def lineage(run):
    """``Ancestor`` of each run that a run has grown from, the first of them first."""
    if not run.config.grow_from:
        return []
    parent = open_run(run.config.grow_from)
    labelled = len(read_splits(parent.folder / "splits.json").labelled)
    entries, path = {}, parent.folder / "scores.json"
    if path.exists():
        entries = {k: e for k, e in read_json(path).items() if e.get("mean_dsc") is not None}
    scores = {k: e["mean_dsc"] for k, e in entries.items()}
    terms = {k: terms_of(e) for k, e in entries.items()}
    return [*noted_lineage(parent), Ancestor(str(parent.folder), labelled, scores, terms)]


def terms_of(entry):
    """By what an entry of scores.json compares: the annotated volumes, and how they were scored."""
    return {key: entry[key] for key in ("data", "largest_component", "mirror") if key in entry}


def noted_lineage(run):
    """The same as it was when the run began, of its info.json: those runs may be gone."""
    return [Ancestor(*entry.values()) for entry in run.info().get("lineage", [])]
