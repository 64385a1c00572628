"""Who may be chosen: the patients of the training cases, and which of them have labels."""

import logging
from typing import NamedTuple

from mijax.data import Splits, all_labelled, draw_splits, read_splits
from mijax.errors import UserError
from mijax.runs.growth import splits_before

_log = logging.getLogger("mijax")


class Candidates(NamedTuple):
    """The training patients, sorted, and who of them may be chosen.

    Attributes:
      splits: the roles before the choice.
      scans: {patient: its case names}, of all training patients.
      labelled: those that have labels already, or were chosen before.
      bare: validation and test cases without a label, which are to be annotated as well.
      drawn: whether these were drawn at random; else a file says them.
      spare: unlabelled cases that have labels: they were set aside on purpose.
    """

    splits: Splits
    scans: dict[str, tuple[str, ...]]
    labelled: tuple[str, ...]
    bare: frozenset[str]
    drawn: bool
    spare: frozenset[str]

    @property
    def set_aside(self):
        """Whether all training patients have labels."""
        return self.spare.issuperset(self.splits.unlabelled)

    @property
    def patients(self):
        """All of them."""
        return list(self.scans)

    def index(self, patients):
        """Places of some patients among all."""
        places = {patient: i for i, patient in enumerate(self.scans)}
        return [places[patient] for patient in patients]

    def chosen(self, patients):
        """The splits when these have labels, too."""
        names = {name for patient in patients for name in self.scans[patient]}
        return self.splits._replace(
            labelled=tuple(sorted({*self.splits.labelled, *names})),
            unlabelled=tuple(n for n in self.splits.unlabelled if n not in names),
        )


def find_candidates(data, cases, *, count, given=None):
    """The ``Candidates`` of a data set.

    With a splits file they are its training cases, and it alone says who is labelled; with that of
    a run labels count that came since, unless all have some, which were then set aside. Without one
    validation and test are those that a training of this configuration would draw. Where no case
    has a label they are drawn from all patients, and have to be annotated as well.

    Args:
      data: ``config.data``.
      cases: of the data set.
      count: how many patients shall be chosen.
      given: the splits file of a run, in the place of that of ``data``.

    Raises:
      UserError: a count that there is not, or splits that do not fit the cases.
    """
    if count < 1:
        raise UserError(f"--count={count}: must be at least 1")
    splits = _of_run(given, cases) if given else _splits(data, cases)
    by_name = {case.name: case for case in cases}
    scans = {}
    for name in sorted((*splits.labelled, *splits.unlabelled)):
        scans.setdefault(by_name[name].patient, []).append(name)
    scans = {patient: tuple(scans[patient]) for patient in sorted(scans)}
    labelled = sorted({by_name[name].patient for name in splits.labelled})
    left = len(scans) - len(labelled)
    if not left:
        advice = (
            "; a file of splits (--config.data.splits.file) that has them as "
            '"unlabelled" chooses as if they were not'
        )
        raise UserError(
            f"all {len(scans)} training patients are labelled already{advice * (not given)}"
        )
    if count > left:
        raise UserError(
            f"--count={count}, but there are {left} training patients without labels; lower it"
        )
    held_out = (*splits.validation, *splits.test)
    return Candidates(
        splits,
        scans,
        tuple(labelled),
        bare=frozenset(name for name in held_out if not by_name[name].labelled),
        drawn=not (given or data.splits.file),
        spare=frozenset(splits.unlabelled) - {*all_labelled(splits, cases).unlabelled},
    )


def _of_run(file, cases):
    splits = splits_before(file, cases)
    now = all_labelled(splits, cases)
    if not now.unlabelled:
        return splits
    if more := len(now.labelled) - len(splits.labelled):
        _log.info("%d case(s) have labels that the run did not learn from: they count", more)
    return now


def _splits(data, cases):
    if data.splits.file:
        return read_splits(data.splits.file, cases, complete=False)
    drawn = {
        "validation": data.splits.validation,
        "test": data.splits.test,
        "seed": data.splits.seed,
    }
    try:
        return draw_splits(cases, labelled=0, complete=False, **drawn)
    except UserError as error:
        if not any(case.labelled for case in cases):
            raise
        raise UserError(
            f'{error}; or give --config.data.splits.file, whose "labelled" and "validation" '
            "may be empty here"
        ) from error
