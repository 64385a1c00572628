"""Which patients to annotate next: those that stand for the others, or that a run disputes."""

import copy
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mijax.data import check_slice_options, read_splits, write_splits
from mijax.data.patches import slice_options, slice_volume
from mijax.data.survey import grids
from mijax.data.volume import Geometry
from mijax.errors import UserError
from mijax.files import writing_to
from mijax.progress import doing
from mijax.runs.source import flat_slices, index_data, prepare_data
from mijax.selection.candidates import Candidates, find_candidates
from mijax.selection.choice import (
    coverage,
    disputed,
    followers,
    pairwise,
    random_coverages,
    representatives,
)
from mijax.selection.embedding import describe, standardised
from mijax.selection.kept import kept
from mijax.selection.picture import draw
from mijax.selection.words import write_list


class Selection(NamedTuple):
    """The patients to annotate next.

    Attributes:
      candidates: ``Candidates`` that they are of.
      chosen: their patients, the most useful first.
      stands_for: {chosen: the patients that are nearest to it, nearest first}.
      distances: (p, p) between all training patients.
      disagreement: {patient: from 0 to 1}; empty where no run was asked.
      coverage: mean distance of a training patient to its nearest that has labels or is chosen.
      random: (1000,) the same for as many patients at random.
    """

    candidates: Candidates
    chosen: list[str]
    stands_for: dict[str, list[str]]
    distances: np.ndarray
    disagreement: dict[str, float]
    coverage: float
    random: np.ndarray


def select_first(config, *, count, output, features=None):
    """Chooses patients by their images alone, and writes the choice.

    Args:
      config: of a run, for its data.
      count: of patients.
      output: folder for selection.csv, selection.png and splits.json. What is computed case by
        case is kept in its folder ``embeddings``.
      features: folder of a run whose network embeds the slices, preprocessed as it was trained;
        by default a plain descriptor of them.

    Returns:
      ``Selection``.

    Raises:
      UserError: for a count or splits that there are not, files that cannot be read, a run that
        does not fit, or an output that cannot be written.
    """
    predictor = None
    if features:
        predictor = _predictor(features)
        config = copy.deepcopy(config)
        config.data.patches = predictor.run.config.data.patches
    return _select(config, count=count, output=output, predictor=predictor)


def select_next(run, *, count, output):
    """Chooses the patients that a run disputes most and that are far from what has labels.

    Args:
      run: ``runs.folder.Run``; its unlabelled cases are chosen from, and its labelled ones have
        labels.
      count, output: see ``select_first``.

    Returns:
      ``Selection``.

    Raises:
      UserError: as ``select_first``, and for a run that learned without labels.
    """
    predictor = _predictor(run)
    predictor.check_segments()
    return _select(
        run.config,
        count=count,
        output=output,
        predictor=predictor,
        splits=run.folder / "splits.json",
    )


def _select(config, *, count, output, predictor, splits=None):
    """``splits`` is the file of a run that is asked how far its predictions disagree, or None."""
    check_slice_options(**slice_options(config.data.patches))
    found = index_data(config)
    candidates = find_candidates(config.data, found.cases, count=count, given=splits)
    if predictor:
        from mijax.selection import network  # takes a second to import

        network.check_channels(predictor, found.channels)
    output, names = Path(output), [n for scans in candidates.scans.values() for n in scans]
    _make(output, splits or config.data.splits.file)
    source = prepare_data(config, found)
    key = {"data": found.key, "slices": config.data.patches.to_dict()}

    def of_cases(make, what, **more):
        def made(missing):
            return make(source.volume(name) for name in missing)

        return kept(names, made, folder=output / "embeddings", what=what, key=key | more)

    if predictor is None:
        rows = of_cases(
            lambda volumes: (describe_volume(v, config.data.patches) for v in volumes),
            "describing",
            by="image, axes in order",
        )
    else:
        weights = network.identity(predictor)
        rows = of_cases(
            lambda volumes: network.features(predictor, volumes), "embedding", by=weights
        )
    embedding = standardised([_of_patient(rows, scans) for scans in candidates.scans.values()])
    distances, given = pairwise(embedding), candidates.index(candidates.labelled)
    disagreement = {}
    if splits is None:
        places = representatives(distances, count, given=given)
    else:
        values = of_cases(
            lambda volumes: ({"value": x} for x in network.disagreement(predictor, volumes)),
            "comparing predictions",
            agreement=weights,
        )
        disagreement = {
            patient: float(np.mean([values[name]["value"] for name in scans]))
            for patient, scans in candidates.scans.items()
        }
        places = disputed(distances, np.array([*disagreement.values()]), count, given=given)
    near = followers(distances, places, given=given)
    patients = candidates.patients
    selection = Selection(
        candidates=candidates,
        chosen=[patients[i] for i in places],
        stands_for={patients[i]: [patients[j] for j in near[i]] for i in places},
        distances=distances,
        disagreement=disagreement,
        coverage=coverage(distances, [*given, *places]),
        random=random_coverages(distances, count, given=given),
    )
    splits_after = candidates.chosen(selection.chosen)
    _check_same(output / "splits.json", splits_after)
    with doing(f"writing {output}"):
        write_list(output / "selection.csv", selection)
        draw(
            output / "selection.png",
            selection,
            lambda name: _slices(source.volume(name), config.data.patches),
        )
        write_splits(output / "splits.json", splits_after)
    return selection


def describe_volume(volume, patches):
    """``embedding.describe`` of a volume, as ``config.data.patches`` has its slices."""
    image = _slices(volume, patches)
    *shape, channels = volume.image.shape
    grid = grids([Geometry(tuple(shape), channels, volume.affine)])
    return describe(image, *grid.shape * grid.spacing)


def _of_patient(rows, scans):
    """The mean over the scans of a patient, of each block."""
    return {block: np.mean([rows[n][block] for n in scans], axis=0) for block in rows[scans[0]]}


def _slices(volume, patches):
    return slice_volume(volume._replace(label=None), flat_slices(patches), multiple=1).image


def _predictor(run):
    from mijax.inference import Predictor  # takes a second to import

    return Predictor(run)


def _check_same(path, splits):
    """Refuses to write other splits over those of an earlier choice: a run may go by them."""
    if not path.exists():
        return
    try:
        same = read_splits(path) == splits
    except UserError:
        same = False
    if not same:
        raise UserError(f"{path} is there and says otherwise; choose another --output")


def _make(output, splits):
    """The folder; not one whose own splits would be lost, a run or that of the ``splits``."""
    path = output / "splits.json"
    if (output / "config.json").exists():
        raise UserError(f"{output} is a run; choose another --output")
    if splits and path.resolve() == Path(splits).resolve():
        raise UserError(f"{path} is read, and would be written; choose another --output")
    with writing_to(output):
        output.mkdir(parents=True, exist_ok=True)
