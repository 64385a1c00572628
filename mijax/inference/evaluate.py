"""The scores of a run."""

import contextlib
import logging

from mijax import parallel
from mijax.data import read_splits
from mijax.errors import UserError
from mijax.files import write_json
from mijax.inference.predictor import Predictor
from mijax.inference.scores import is_whole, partly_annotated
from mijax.inference.scoring import make_scoring
from mijax.inference.signals import shape
from mijax.inference.trust import FILE, learn, read_trust
from mijax.progress import doing
from mijax.runs.annotation import annotation_of
from mijax.runs.growth import splits_before
from mijax.runs.info import check_names, check_roles, fingerprint
from mijax.runs.leak import check_leak
from mijax.runs.method import make_method
from mijax.runs.source import open_data

_ANNOTATED = 50  # labelled cases, at most, whose volumes are taken
_log = logging.getLogger("mijax")


def evaluate(run, *, largest_component=False, mirror=False, nsd_tolerance=None):
    """Scores the last and the best checkpoint of a run and writes its trust.json and scores.json.

    Cases are those of the test split, or of the validation split where there is no test, as
    in the paper.

    Args:
      run: ``runs.folder.Run``, trained.
      largest_component: see ``volumes.segment``.
      mirror: likewise.
      nsd_tolerance: of the NSD in mm, for all classes or by class, see ``tolerance.tolerances``.

    Returns:
      What is in scores.json: by checkpoint ("last", "best") its ``step``, the ``split``, the
      ``info.fingerprint`` of that (``data``), the patient of each case, the options
      ``largest_component`` and ``mirror``, and what ``scores.score`` returns; of a method that
      learns without labels its ``measures`` instead of the last three.

    Raises:
      UserError: if the run has no sound checkpoint, its data, their classes or splits are not as
        they were, a label is gone, the weights that it began with have seen its cases, or it has
        no label maps that the options could be for.
    """
    source = open_data(run.config, annotation_of(run))
    examination = make_method(run.config).examination
    path = run.folder / "splits.json"
    splits = splits_before(path, source.cases, complete=not examination)
    best = Predictor(run)
    if not examination:
        check_names(run, source.classes)
    split = "test" if splits.test else "validation"
    names = getattr(splits, split)
    volumes = [source.volume(name) for name in names]
    patients = {case.name: case.patient for case in source.cases if case.name in names}
    check_roles(run, read_splits(path))  # with those unlabelled ones that were taken out
    check_leak(run, splits, source.cases)
    if not examination and (line := partly_annotated(volumes, source.classes)):
        _log.info("%s cases: %s", split, line)
    scoring = make_scoring(best.network, examination)
    about = {"split": split, "data": fingerprint(volumes)}
    scores, by_step = {}, {}
    for name in ("last", "best"):
        predictor = best.at(name)
        if predictor.step not in by_step:
            by_step[predictor.step] = scoring.test(
                predictor.weights,
                volumes,
                source.classes,
                patients,
                largest_component=largest_component,
                mirror=mirror,
                nsd_tolerance=nsd_tolerance,
            )
        scores[name] = {"step": predictor.step, **about, **by_step[predictor.step]}
    if (step := scores["last"]["step"]) < run.config.steps:
        _log.warning("scored at step %d of %d: not finished", step, run.config.steps)
    if best.segments:
        settle_trust(best, source, splits)
    if parallel.is_first():  # last, since a run that has its scores is done
        write_json(run.folder / "scores.json", scores)
    return scores


def settle_trust(best, source, splits):
    """Writes trust.json of a run, unless it has that of checkpoint and validation cases already.

    Args:
      best: ``Predictor`` of the best checkpoint.
      source: ``data.Source`` of the run.
      splits: of the run; validation cases are predicted, of labelled ones the label map is read.
    """
    path, classes = best.run.folder / FILE, source.classes
    validation = [source.volume(name) for name in splits.validation]
    about = {"step": best.step, "data": fingerprint(validation)}
    with contextlib.suppress(UserError):
        if about.items() <= read_trust(best.run).items():
            return
    some = splits.labelled[:: -(-len(splits.labelled) // _ANNOTATED) or 1]
    annotated = [
        shape(volume.label, volume.affine, classes=len(classes))
        for volume in filter(is_whole, map(source.volume, some))
    ]
    with doing("learning from the validation cases what to trust"):
        patients = {case.name: case.patient for case in source.cases}
        known = learn(best.look(validation), validation, annotated, classes, patients)
    if parallel.is_first():
        write_json(path, about | known)
