"""The splits of a run: given or drawn once, and written into its folder."""

import contextlib
import logging

from mijax import parallel
from mijax.data import (
    Splits,
    all_labelled,
    check_splits,
    count_patients,
    draw_splits,
    read_splits,
    write_splits,
)
from mijax.errors import UserError, quoted
from mijax.runs.folder import settled
from mijax.runs.growth import grown_splits
from mijax.runs.method import make_method

_log = logging.getLogger("mijax")


def settle_splits(run, cases):
    """The splits of a run: of its splits.json, or else given, drawn or grown, and written there.

    See ``folder.settled`` for which of them holds.

    Raises:
      UserError: if they are not disjoint by patient, do not fit the cases, or leave labels aside
        where the configuration asks for all of them.
    """
    path, data = run.folder / "splits.json", run.config.data
    kept = settled(run, path.name, data.splits.file, lambda file: _in_order(read_splits(file)))
    if run.config.grow_from and not kept:
        splits = grown_splits(
            run.config.grow_from,
            cases,
            file=data.splits.file,
            annotation=data.annotation.file,
        )
        _write(path, splits)
        return splits
    complete = not make_method(run.config).examination
    splits = choose_splits(data, cases, given=kept, complete=complete)
    if run.config.grow_from and not data.splits.file:
        more = len(all_labelled(splits, cases).labelled) - len(splits.labelled)
        if more:
            _log.warning(
                "%d training case(s) have got labels since %s began and are unlabelled in it: "
                "--grow %s --workdir NEW takes them in", more, run.folder, quoted(run.folder)
            )  # fmt: skip
    elif kept and not data.splits.file and not run.begun:
        _tell_of_others(run, splits, data, cases, complete)
    if not kept:
        left = set(splits.unlabelled) - set(all_labelled(splits, cases).unlabelled)
        if complete and left and data.splits.file and not data.splits.labelled:
            patients = count_patients(splits.labelled, cases)
            raise UserError(
                f"config.data.splits.labelled=0 asks for all labels, but {data.splits.file} leaves "
                f"{len(left)} case(s) unlabelled that have some ({min(left)}, …); if that is "
                f"meant, give --config.data.splits.labelled={patients}"
            )
        splits = _in_order(splits)
        _write(path, splits)
    return splits


def _tell_of_others(run, splits, data, cases, complete):
    """Logs that a start that was cut off left other splits than those that would be drawn now."""
    with contextlib.suppress(UserError):  # where no such draw can be made now
        if _in_order(choose_splits(data, cases, complete=complete)) != _in_order(splits):
            _log.warning(
                "%s is left from an earlier start, and used; from the data as they are now other "
                "splits would be drawn: remove it for these", run.folder / "splits.json",
            )  # fmt: skip


def _write(path, splits):
    if parallel.is_first():  # which takes back what it has written where a start fails
        write_splits(path, splits)


def _in_order(splits):
    """Sorted, as those that are drawn: a fingerprint of volumes depends on their order."""
    return Splits(*(tuple(sorted(names)) for names in splits))


def choose_splits(data, cases, *, given=None, complete=True):
    """The splits of a file, ``given`` or that of ``config.data``, or else drawn as that says.

    Args:
      data: ``config.data``.
      cases: of the data set.
      given: file of splits.
      complete: as of ``check_splits``; False of a method that learns without labels.

    Raises:
      UserError: if they are not disjoint by patient, or do not fit the cases.
    """
    if file := given or data.splits.file:
        splits = read_splits(file, cases, complete=complete)
        if not splits.validation:
            raise UserError(f"{file}: splits: validation is an empty split")
        return splits
    splits = draw_splits(
        cases,
        labelled=data.splits.labelled,
        validation=data.splits.validation,
        test=data.splits.test,
        seed=data.splits.seed,
        complete=complete,
    )
    check_splits(splits, cases, complete=complete)
    return splits
