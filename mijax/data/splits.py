"""Splits by patient: drawn from a seed, checked, written and read."""

from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mijax.data.text import composed, is_plain, read_given, unknown_case
from mijax.data.volume import Case
from mijax.errors import UserError
from mijax.files import write_json


class Splits(NamedTuple):
    """Case names by role; no patient has two roles. Sorted within each."""

    labelled: tuple[str, ...]
    unlabelled: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]


def draw_splits(
    cases: Sequence[Case],
    *,
    labelled: int,
    validation: int,
    test: int,
    seed: int,
    complete: bool = True,
) -> Splits:
    """Deals patients to roles: test first, then validation, then labelled, the rest unlabelled.

    The order makes two promises: ``labelled`` changes neither test nor validation, and the
    labelled sets of one seed are nested. A patient of whom any scan lacks a label is unlabelled,
    and adding such patients does not change the draw.

    Args:
      cases: all cases.
      labelled: patients to learn from with labels; 0 for all that remain.
      validation: patients, at least 1.
      test: patients, may be 0.
      seed: of the draw.
      complete: whether to train with; else, where no case has a label, test and validation are
        drawn from all patients, and the rest is unlabelled.

    Raises:
      UserError: a negative number, an empty split, more patients asked for than there are, or no
        label at all.
    """
    if not complete and not any(case.labelled for case in cases):
        count = len({case.patient for case in cases})
        if validation + test >= count:
            raise UserError(
                f"there are {count} patients, and {validation} for validation and {test} for test "
                "leave none; lower --config.data.splits.validation or --config.data.splits.test"
            )
        cases = [case._replace(labelled=True) for case in cases]
        drawn = draw_splits(cases, labelled=0, validation=validation, test=test, seed=seed)
        return drawn._replace(labelled=(), unlabelled=drawn.labelled)
    numbers = {"labelled": labelled, "validation": validation, "test": test, "seed": seed}
    for name, number in numbers.items():
        if number < 0:
            raise UserError(f"data.splits.{name}={number}: must not be negative")
    if validation == 0:
        raise UserError("data.splits.validation=0 is an empty split; ask for at least 1")
    patients = sorted(complete_patients(cases))
    if not patients:
        raise UserError(
            "no case has a label; python -m mijax.select chooses whom to annotate first"
        )
    asked = test + validation + max(labelled, 1)
    if asked > len(patients):
        can_be = {"labelled": labelled > 1, "validation": validation > 1, "test": test > 0}
        lower = " or ".join(f"--config.data.splits.{name}" for name, can in can_be.items() if can)
        raise UserError(
            f"{asked} labelled patients are asked for ({test} test, {validation} validation, "
            f"{max(labelled, 1)} labelled), but there are {len(patients)}; "
            + (f"lower {lower}, or annotate more" if lower else "annotate more")
        )
    drawn = [patients[i] for i in np.random.default_rng(seed).permutation(len(patients))]
    first = test + validation
    last = first + labelled if labelled else len(drawn)
    role = dict.fromkeys((case.patient for case in cases), "unlabelled")
    role |= dict.fromkeys(drawn[:test], "test")
    role |= dict.fromkeys(drawn[test:first], "validation")
    role |= dict.fromkeys(drawn[first:last], "labelled")
    names = {field: [] for field in Splits._fields}
    for case in cases:
        names[role[case.patient]].append(case.name)
    return Splits(**{field: tuple(sorted(found)) for field, found in names.items()})


def complete_patients(cases: Sequence[Case]) -> set[str]:
    """The patients of whom every scan has a label."""
    return {case.patient for case in cases} - {c.patient for c in cases if not c.labelled}


def count_patients(names: Collection[str], cases: Sequence[Case]) -> int:
    """How many patients the cases of these names are of, as ``draw_splits`` counts them."""
    return len({case.patient for case in cases if case.name in names})


def all_labelled(splits: Splits, cases: Sequence[Case]) -> Splits:
    """The splits with all labels that there are: of an unlabelled case, if its patient's all have.

    That is ``draw_splits`` with ``labelled=0`` for splits that were drawn.
    """
    complete = complete_patients(cases)
    more = {case.name for case in cases if case.patient in complete} & {*splits.unlabelled}
    return splits._replace(
        labelled=tuple(sorted({*splits.labelled, *more})),
        unlabelled=tuple(name for name in splits.unlabelled if name not in more),
    )


def check_splits(splits: Splits, cases: Sequence[Case], *, complete: bool = True) -> None:
    """Refuses splits that would leak, or that do not fit the data set.

    Args:
      splits: the case names by role.
      cases: of the data set.
      complete: whether to train with; False where the labels are yet to be drawn.

    Raises:
      UserError: an unknown case, a case or patient in two splits; and, of complete ones, a case
        without a label where one is needed, or no labelled or validation case at all.
    """
    by_name = {case.name: case for case in cases}
    for name, number in Counter(name for names in splits for name in names).items():
        if name not in by_name:
            raise UserError(f"splits: {unknown_case(name, by_name)}")
        if number > 1:
            where = [field for field, names in splits._asdict().items() if name in names]
            raise UserError(
                f"splits: case {name} is there {number} times, in {' and '.join(where)}"
            )
    role = {}
    for field, names in splits._asdict().items():
        for name in names:
            patient = by_name[name].patient
            if role.setdefault(patient, field) != field:
                raise UserError(f"splits: patient {patient} is in {role[patient]} and in {field}")
            if complete and field != "unlabelled" and not by_name[name].labelled:
                raise UserError(f"splits: case {name} in {field} has no label")
    for field in ("labelled", "validation") if complete else ():
        if not getattr(splits, field):
            raise UserError(f"splits: {field} is an empty split; it needs at least one case")


def read_splits(path, cases: Sequence[Case] | None = None, *, complete: bool = True) -> Splits:
    """Splits from a JSON file of four lists of case names, in whatever Unicode form.

    Args:
      path: of the file.
      cases: of the data set that they have to fit, see ``check_splits``; None for any.
      complete: as of ``check_splits``.

    Raises:
      UserError: unreadable, of another form, or as ``check_splits`` does.
    """
    path = Path(path)
    content = read_given(path, "splits")
    if not isinstance(content, dict) or set(content) != set(Splits._fields):
        raise UserError(f"{path}: must be an object with the keys {', '.join(Splits._fields)}")
    for field, names in content.items():
        if not isinstance(names, list) or not all(map(_is_name, names)):
            raise UserError(f'{path}: "{field}" must be a list of case names')
    splits = Splits(**{field: tuple(map(composed, names)) for field, names in content.items()})
    if cases is not None:
        try:
            check_splits(splits, cases, complete=complete)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error
    return splits


def _is_name(value) -> bool:
    return isinstance(value, str) and is_plain(value) and len(value) <= 255


def write_splits(path, splits: Splits) -> None:
    """Writes splits as JSON, in one piece."""
    write_json(path, splits._asdict())
