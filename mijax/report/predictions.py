"""What the networks of a report see: label maps of chosen cases, and joint distributions."""

from typing import NamedTuple

import jax
import numpy as np

from mijax.data import UNLABELLED, read_splits
from mijax.errors import UserError
from mijax.inference import Predictor
from mijax.inference.batching import predict_stacks
from mijax.inference.network import patch_of
from mijax.inference.scores import OPTIONS, without_gaps
from mijax.losses import joint_distribution, mutual_information
from mijax.report.values import case_means
from mijax.runs.annotation import annotation_of
from mijax.runs.source import flat_slices, open_data, slice_volume
from mijax.transforms import sample_view

_SLICES = 16  # of the joint distribution, from a few validation cases
_CASES = 4


class Excerpt(NamedTuple):
    """A few slices of a case, as the network sees them; images and label maps are (n, h, w).

    Attributes:
      title: why the case was chosen.
      case: its name.
      axis: of RAS+ that the slices lie across.
      numbers: of the slices in the file, from 1.
      count: of all slices of the case.
      image: (n, h, w).
      truth: label maps of the annotator.
      labels: label maps of each row, or None for a row without a network.
      dsc: of the whole case, of each row.
      pixel: millimetres of a pixel along h and along w.
    """

    title: str
    case: str
    axis: int
    numbers: list
    count: int
    image: np.ndarray
    truth: np.ndarray
    labels: list
    dsc: list
    pixel: tuple[float, float]


class Joint(NamedTuple):
    """(3, 3, k, k) joint distribution of a row, and its mean mutual information in nats."""

    label: str
    joint: np.ndarray
    information: float


class Predictions(NamedTuple):
    """Excerpts of cases and joint distributions, and notes about rows that could not be had.

    The first joint distribution is that of the true labels.
    """

    classes: tuple[str, ...]
    excerpts: list
    joints: list
    notes: list


def predict(rows, *, data_dir):
    """``Predictions`` of the first seed of each row.

    Args:
      rows: of ``runs.Row``.
      data_dir: folder of the data where it moved since, or None.

    Raises:
      UserError, OSError: if the data cannot be had.
    """
    config = rows[0].runs[0].run.config
    source, slices = source_of(rows[0].runs[0].run, data_dir), flat_slices(config.data.slices)
    chosen = choose_cases(rows)
    volumes = [without_gaps(source.volume(name)) for name in chosen.values()]
    cuts = [slice_volume(volume, slices) for volume in volumes]
    places = [choose_slices(cut.label) for cut in cuts]
    images, truth = _validation_slices(source, rows[0].runs[0].run)
    labels, notes = [], []
    joints = [Joint("True labels", *jax.device_get(jax.jit(_joint)(truth, truth)))]
    for row in rows:
        try:
            predictor = scored_predictor(row.runs[0])
        except UserError as error:
            notes.append(f"{row.label} is missing here: {error}")
            labels.append([None] * len(volumes))
            continue
        options = {name: row.runs[0].entry.get(name, False) for name in OPTIONS}
        maps = predictor.segment(volumes, **options)
        labels.append(
            [
                slice_volume(thinned(volume, found, cut.grid, some), slices).label
                for (found, _), volume, cut, some in zip(maps, volumes, cuts, places, strict=True)
            ]
        )
        joints.append(_row_joint(row.label, predictor, images))
    means = [case_means(row) for row in rows]
    excerpts = [
        Excerpt(
            title=title,
            case=name,
            axis=cut.grid.axis,
            numbers=[1 + index for index in native_slices(cut.grid, some)],
            count=len(cut.image),
            image=cut.image[some, ..., 0],
            truth=cut.label[some],
            labels=[row_labels[i] for row_labels in labels],
            dsc=[mean[name] for mean in means],
            pixel=pixel_size(volumes[i], cut.grid),
        )
        for i, ((title, name), cut, some) in enumerate(
            zip(chosen.items(), cuts, places, strict=True)
        )
    ]
    return Predictions(source.classes, excerpts, joints, notes)


def best_first(rows):
    """Names of the cases by mean DSC over all rows, the best first.

    Those of which a class has no score come in only where there are no others.
    """
    means = [case_means(row) for row in rows]
    order = {name: -np.mean([mean[name] for mean in means]) for name in means[0]}
    return sorted([n for n in order if not np.isnan(order[n])] or order, key=order.get)


def choose_cases(rows):
    """The best, the median and the worst of ``best_first``, by title; fewer of few cases."""
    order = best_first(rows)
    places = {"Best case": 0, "Median case": (len(order) - 1) // 2, "Worst case": len(order) - 1}
    chosen = {}
    for title, place in places.items():
        if order[place] not in chosen.values():
            chosen[title] = order[place]
    return chosen


def choose_slices(label):
    """Three slices at a quarter, half and three quarters of the annotated ones; fewer of few."""
    found = np.flatnonzero((label > 0).any((1, 2)))
    found = found if len(found) else np.arange(len(label))
    return list(dict.fromkeys(int(found[len(found) * i // 4]) for i in (1, 2, 3)))


def native_slices(grid, places):
    """Where slices lie along their axis of the volume as it came."""
    axis = [ras for ras, _ in grid.orientation].index(grid.axis)
    forward = grid.orientation[axis][1] > 0
    return [place if forward else grid.shape[axis] - 1 - place for place in places]


def thinned(volume, label, grid, places):
    """The volume that is some slices alone of a volume, in order, with another label map."""
    axis = [ras for ras, _ in grid.orientation].index(grid.axis)
    indices = sorted(native_slices(grid, places))
    image, label = (values.take(indices, axis) for values in (volume.image, label))
    return volume._replace(image=image, label=label)


def source_of(run, data_dir):
    """The ``Source`` of a run, from ``data_dir`` unless that is None."""
    config = run.config.copy_and_resolve_references()
    if data_dir is not None:
        config.data.source.dir = data_dir
    return open_data(config, annotation_of(run))


def scored_predictor(one):
    """``Predictor`` of the checkpoint that a ``runs.Scored`` is of.

    Raises:
      UserError: if it is gone or damaged.
    """
    return Predictor(one.run, checkpoint=one.entry["step"])


def _validation_slices(source, run):
    """Some slices (n, h, w, c) with foreground, and their true labels as (n, h, w, k).

    Of a network of 3-D images the middle window (d, h, w, c) of each volume.
    """
    names = read_splits(run.folder / "splits.json").validation[:_CASES]
    images, labels, patch = [], [], patch_of(run.config)
    for name in names:
        cut = slice_volume(source.volume(name), run.config.data.slices, patch=patch)
        if patch is not None:
            middle = [
                slice((n - m) // 2, (n + m) // 2)
                for n, m in zip(cut.label.shape[1:], patch, strict=True)
            ]
            images.append(cut.image[:, *middle])
            labels.append(cut.label[:, *middle])
            continue
        found = np.flatnonzero(((cut.label > 0) & (cut.label != UNLABELLED)).any((1, 2)))
        count = min(-(-_SLICES // len(names)), len(found))
        picked = found[np.linspace(0, len(found) - 1, count).round().astype(int)]
        images.append(cut.image[picked])
        labels.append(cut.label[picked])
    # Pixels that nobody annotated are of no class, and count in no joint distribution.
    truth = np.eye(UNLABELLED + 1, len(source.classes), dtype=np.float32)[np.concatenate(labels)]
    return np.concatenate(images), truth


def _row_joint(label, predictor, images):
    """``Joint`` of p = f(x) and p̃ = T⁻¹ f(T x), with one T an image, the same in every row."""
    network, stacks = predictor.network, [images, np.asarray(_transform(images))]
    probs = predict_stacks(network.predict, predictor.weights, stacks, batch=network.batch)
    return Joint(label, *jax.device_get(_compare(*probs)))


def _view(count, dims):
    """T of each of some images, from the pool of the paper."""
    ranges = {"rotation": 30.0, "shear": 5.0, "scale": (0.8, 1.25), "flip": True}
    return sample_view(jax.random.key(0), count, dims=dims, **ranges)


@jax.jit  # else every operation is compiled for itself
def _transform(images):
    return _view(len(images), images.ndim - 2).apply(images)


@jax.jit
def _compare(probs, transformed):
    view = _view(len(probs), probs.ndim - 2)
    return _joint(probs, view.restore(transformed), view.mask(probs.shape[1:-1]))


def _joint(p, q, mask=None):
    joint = joint_distribution(p, q, radius=1, mask=mask)
    of_neighbours = joint if p.ndim == 4 else joint[1]  # within a plane
    return of_neighbours, mutual_information(joint).mean()


def pixel_size(volume, grid):
    """Millimetres of a pixel of its slices along h and along w."""
    millimetres = volume.spacing[np.argsort([axis for axis, _ in grid.orientation])]
    in_plane = [mm for axis, mm in enumerate(millimetres) if axis != grid.axis]
    h, w = (mm * n / m for mm, n, m in zip(in_plane, grid.native, grid.size, strict=True))
    return float(h), float(w)
