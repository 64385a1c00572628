"""How a network is scored: as one that segments, or as one that learned without labels."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from mijax.errors import UserError
from mijax.inference.contours import contours
from mijax.inference.scores import mean_dsc, score
from mijax.inference.volumes import even_slices, segment

_PICTURES = 4  # of validation cases, each time
_BATCHES = 4  # of slices that a method without labels is measured on


class Scoring(NamedTuple):
    """What training, evaluation and reports ask of a network.

    Attributes:
      ranks: name of the value of the log by which checkpoints are ranked.
      validate: ``(weights, volumes, classes) -> (score, values, pictures)``: what ranks the
        checkpoint, the higher the better; floats for the log by name; pictures (h, w, 3) by name.
      test: ``(weights, volumes, classes, patients, *, largest_component, mirror,
        nsd_tolerance) -> dict``, what scores.json has of a checkpoint; ``patients`` is the patient
        of each case.
      clusters: ``(weights, images) -> (b, h, w)`` cluster of each pixel, jitted; or None.
      count: of the clusters.
    """

    ranks: str
    validate: Callable
    test: Callable
    clusters: Callable | None = None
    count: int = 0


def make_scoring(network, examination):
    """The ``Scoring`` of a network.

    Args:
      network: ``network.Network``.
      examination: of its method, see ``methods.Examination``; None for one that segments.
    """
    return _of_measures(network, examination) if examination else _of_label_maps(network)


def _of_label_maps(network):
    def validate(weights, volumes, classes):
        pictures = {}

        def predictions():
            maps = segment(network, weights, volumes)
            for (labels, _), volume in zip(maps, volumes, strict=True):
                if len(pictures) < _PICTURES:
                    picture = contours(volume, labels, plane=network.slices.plane)
                    pictures[f"validation/{volume.name}"] = picture
                yield labels

        mean, by_class = mean_dsc(predictions(), volumes, classes)
        values = {f"validation_dsc_percent/{name}": 100 * dsc for name, dsc in by_class.items()}
        return mean, {"validation_dsc_percent": 100 * mean, **values}, pictures

    def test(weights, volumes, classes, patients, *, nsd_tolerance=None, **options):
        maps = segment(network, weights, volumes, confidence=True, **options)
        found = score(maps, volumes, classes, nsd_tolerance=nsd_tolerance)
        return {"patients": patients, **options, **found}

    return Scoring("validation_dsc_percent", validate, test)


def _of_measures(network, examination):
    @network.jit
    def measure(weights, images):
        features, key = network.features(weights), jax.random.key(0)
        return examination.measures(weights["params"], images, features=features, key=key)

    def clusters(weights, images):
        features = network.features(weights)
        return examination.clusters(weights["params"], images, features=features)

    def measures(weights, volumes):
        """Means over batches of slices of some volumes, as floats by name."""
        images = even_slices(volumes, network.slices, count=_BATCHES * network.batch)
        found = [jax.device_get(measure(weights, x)) for x in np.split(images, _BATCHES)]
        return {name: float(np.mean([f[name] for f in found])) for name in found[0]}

    def validate(weights, volumes, classes):
        found = measures(weights, volumes)
        return found[examination.score], {f"validation_{k}": v for k, v in found.items()}, {}

    def test(weights, volumes, classes, patients, **options):
        if any(options.values()):
            raise UserError(
                "the run learned without labels and segments nothing: --largest_component, "
                "--mirror and --nsd_tolerance are for label maps"
            )
        return {"measures": measures(weights, volumes)}

    return Scoring(
        ranks=f"validation_{examination.score}",
        validate=validate,
        test=test,
        clusters=examination.clusters and network.jit(clusters),
        count=examination.count,
    )
