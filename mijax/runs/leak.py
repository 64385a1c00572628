"""Whether the weights that a run began with have seen what the run holds back."""

from pathlib import Path

from mijax.data import read_splits
from mijax.errors import UserError, tell
from mijax.runs.folder import open_run
from mijax.runs.source import same_volumes


def check_leak(run, splits, cases):
    """Refuses ``config.init_from`` of a run that has seen what is held back.

    That run, or one that its weights came from, was trained on patients of validation or test
    cases, or its best checkpoint chosen by those of test cases. Where its data lie in another
    folder, names alone are no proof: then, and where it is gone, that is told (``Notice``).

    Args:
      run: ``Run`` that begins, or began, with them.
      splits: of it.
      cases: of its data, all of them.

    Raises:
      UserError: if it has.
    """
    patients = {case.name: case.patient for case in cases}
    for origin, its in _origins(run):
        learned = {patients.get(name, name) for name in (*its.labelled, *its.unlabelled)}
        chosen = learned | {patients.get(name, name) for name in its.validation}
        seen = [name for name in splits.validation if patients[name] in learned]
        seen += [name for name in splits.test if patients[name] in chosen]
        if not seen:
            continue
        line = (
            f"config.init_from: {origin.folder} was trained or validated on the patients of "
            f"{len(seen)} of the validation and test cases of this run ({min(seen)}, …)"
        )
        if same_volumes(origin.config.data.source, run.config.data.source):
            raise UserError(f"{line}; give both the same splits")
        tell(
            f"{line}, by the names of cases in another folder; if they are the same, the scores "
            "are worth nothing"
        )


def _origins(run):
    """Yields the runs that weights came from, one after another, each with its splits."""
    known, folder = set(), run.config.init_from
    while folder and (path := Path(folder).resolve()) not in known:
        known.add(path)
        try:
            origin, its = open_run(folder), read_splits(path / "splits.json")
        except UserError as error:
            tell(f"config.init_from: what {folder} was trained on is not known ({error})")
            return
        yield origin, its
        folder = origin.config.init_from
