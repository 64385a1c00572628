"""What the networks of a report see: label maps and doubts of its cases, joint distributions."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mijax.errors import UserError
from mijax.inference import Predictor
from mijax.inference.network import patch_of
from mijax.inference.scores import OPTIONS, without_gaps
from mijax.inference.trust import read_trust, trust
from mijax.report.excerpts import make_excerpt
from mijax.report.joints import row_joint, true_joint, validation_slices
from mijax.report.values import case_means
from mijax.runs.annotation import annotation_of
from mijax.runs.source import flat_slices, open_data


class Maps(NamedTuple):
    """What a network saw in a case, each (x, y, z) uint8 and compressed, see ``unpacked``.

    Attributes:
      labels: classes, 0 the background.
      disagreement: of the voices, in percent (``inference.trust``).
    """

    labels: bytes
    disagreement: bytes


class Predictions(NamedTuple):
    """What the first seed of each row saw.

    Attributes:
      classes: names, background first.
      excerpts: ``excerpts.Excerpt`` of the best, the median and the worst case.
      joints: of ``joints.Joint``; the first is that of the true labels.
      notes: about what could not be had of a row.
      maps: ``{case: Maps}`` of each row, or None for a row without a network.
      estimates: ``{label of row: {case: Estimate}}`` of the rows whose first run has a calibration.
      volume: ``name -> data.Volume``.
    """

    classes: tuple[str, ...]
    excerpts: list
    joints: list
    notes: list
    maps: list
    estimates: dict
    volume: Callable


def predict(rows, *, data_dir, cases):
    """``Predictions`` of the first seed of each row.

    Every case is predicted once, with voices. In memory are the label maps of all cases and rows,
    compressed, and a volume or two.

    Args:
      rows: of ``runs.Row``.
      data_dir: folder of the data where it moved since, or None.
      cases: see ``spread``.

    Raises:
      UserError, OSError: if the data cannot be had.
    """
    first = rows[0].runs[0].run
    source, names = source_of(first, data_dir), spread(rows, cases=cases)
    images, truth = validation_slices(source, first)
    joints, notes, seen, estimates = [true_joint(truth)], [], [], {}
    for row in rows:
        try:
            predictor = scored_predictor(row.runs[0])
            of_row = source_for(row.runs[0].run, source, first, data_dir)
        except UserError as error:
            notes.append(f"{row.label} is missing here: {error}")
            seen.append(None)
            continue
        try:
            known = read_trust(row.runs[0].run)
        except UserError as error:
            notes.append(f"{row.label} is missing among the estimated DSC: {error}")
            known = {"calibration": None}
        found, trusted = _look(row.runs[0], predictor, of_row, names, known)
        seen.append(found)
        if trusted and known["step"] != predictor.step:
            notes.append(
                f"{row.label}: the estimated DSC were learned with the checkpoint of step "
                f"{known['step']}, and the label maps are of step {predictor.step}"
            )
        if trusted:
            estimates[row.label] = trusted
        if _images(row.runs[0].run) == _images(first):
            joints.append(row_joint(row.label, predictor, images))
        else:
            notes.append(
                f"{row.label} is missing among the joint distributions: its images are others"
            )
    means, slices = [case_means(row) for row in rows], flat_slices(first.config.data.patches)
    excerpts = []
    for title, name in choose_cases(rows).items():
        volume = without_gaps(source.volume(name))
        labels = [found and unpacked(found[name].labels, volume.label.shape) for found in seen]
        dsc = [mean[name] for mean in means]
        excerpts.append(make_excerpt(title, volume, slices, labels, dsc))
    return Predictions(source.classes, excerpts, joints, notes, seen, estimates, source.volume)


def _look(one, predictor, source, names, known):
    """``{case: Maps}`` by a ``runs.Scored``, and ``{case: Estimate}``, empty if uncalibrated."""
    affines, maps, estimates = {}, {}, {}

    def volumes():
        for name in names:
            volume = source.volume(name)
            affines[name] = volume.affine
            yield volume

    options = {name: one.entry.get(name, False) for name in OPTIONS}
    looks = predictor.look(volumes(), disagreement=True, **options)
    for name, seen in zip(names, looks, strict=True):
        percent = (100 * seen.disagreement).round().astype(np.uint8)
        maps[name] = Maps(packed(seen.labels), packed(percent))
        if known["calibration"] is not None:
            estimates[name] = trust(known, seen, affines[name], source.classes).mean
    return maps, estimates


def packed(values):
    """An array of uint8 as few bytes."""
    return zlib.compress(np.ascontiguousarray(values).data, 1)


def unpacked(values, shape):
    """The array of that shape that ``packed`` made the bytes of."""
    return np.frombuffer(zlib.decompress(values), np.uint8).reshape(shape)


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


def spread(rows, *, cases):
    """So many of the cases with a score, evenly from the worst to the best by mean DSC over rows.

    The best, the median and the worst, of which there are pictures, are among them.

    Args:
      rows: of ``runs.Row``.
      cases: how many; all where there are no more, or of 0.
    """
    order = best_first(rows)[::-1]
    count = min(cases, len(order)) or len(order)
    middle = len(order) // 2  # the median, counted from the other end
    places = {*np.linspace(0, len(order) - 1, count).round().astype(int).tolist(), middle}
    return [order[place] for place in sorted(places | {len(order) - 1})]


def source_of(run, data_dir):
    """The ``Source`` of a run, from ``data_dir`` unless that is None."""
    config = run.config.copy_and_resolve_references()
    if data_dir is not None:
        config.data.source.dir = data_dir
    return open_data(config, annotation_of(run))


def source_for(run, source, first, data_dir):
    """The ``source`` of the first run, or its own if one alone is without bias fields."""
    kept = [one.config.data.patches.bias_correction for one in (run, first)]
    return source if kept[0] == kept[1] else source_of(run, data_dir)


def _images(run):
    """What the images that a network sees hang on."""
    return run.config.data.patches.to_dict(), patch_of(run.config)


def scored_predictor(one):
    """``Predictor`` of the checkpoint that a ``runs.Scored`` is of.

    Raises:
      UserError: if it is gone or damaged.
    """
    return Predictor(one.run, checkpoint=one.entry["step"])
