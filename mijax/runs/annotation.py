"""The annotation of a run: given once, and written into its folder."""

from mijax import parallel
from mijax.data import Annotation, check_annotation, read_annotation, write_annotation
from mijax.errors import UserError
from mijax.runs.folder import ANNOTATION, settled
from mijax.runs.growth import check_annotation_follows


def settle_annotation(run, found):
    """The ``data.Annotation`` of a run: of its annotation.json, or else of the file it names.

    That is checked, and written there; see ``folder.settled`` for which of them holds.

    Args:
      run: ``runs.folder.Run``.
      found: ``data.Recipe``.

    Raises:
      UserError: if it does not fit the data, or the run that this one has grown from.
    """
    path, data = run.folder / ANNOTATION, run.config.data
    kept = settled(run, ANNOTATION, data.annotation.file, read_annotation)
    drawn = None
    if file := kept or data.annotation.file:
        drawn = read_annotation(file)
        try:
            check_annotation(
                drawn,
                found.cases,
                classes=found.classes,
                plane=data.patches.plane,
                geometry=found.geometry,
            )
        except UserError as error:
            raise UserError(f"{file}: {error}") from error
    if run.config.grow_from and not run.begun:
        check_annotation_follows(run.config.grow_from, drawn)
    if drawn is not None and not kept and parallel.is_first():
        write_annotation(path, drawn)
    return annotation_in(file, data)


def annotation_of(run):
    """The ``data.Annotation`` of a run that is settled; of an older one that has none, all."""
    path = run.folder / ANNOTATION
    return annotation_in(path if path.exists() else None, run.config.data)


def annotation_in(file, data):
    """The ``data.Annotation`` that a file and a configuration's ``data`` say; of no file, all."""
    return Annotation(
        read_annotation(file) if file else {},
        plane=data.patches.plane,
        empty_is_unlabelled=data.annotation.empty_is_unlabelled,
    )
