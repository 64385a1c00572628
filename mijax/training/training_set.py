"""The training slices of a run: which cases they are of, checked, and cut from the volumes."""

import contextlib
import logging

import numpy as np

from mijax.data import slice_flags, slice_shape
from mijax.errors import UserError
from mijax.inference.scores import shown_classes
from mijax.methods import Unlabelled
from mijax.runs.source import slice_volume
from mijax.training.batches import TrainingSet

_log = logging.getLogger("mijax")


def divide(splits, method, name):
    """Labelled and unlabelled cases for a method, by name.

    Raises:
      UserError: if the method needs unlabelled cases and there are none.
    """
    labelled, unlabelled = splits.labelled, splits.unlabelled
    if method.examination:  # learns from images alone
        labelled, unlabelled = (), (*labelled, *unlabelled)
    if method.unlabelled and not unlabelled:
        raise UserError(
            f"method {name} learns from unlabelled cases and there are none; "
            "set config.data.splits.labelled to fewer patients than there are (0 takes all)"
        )
    return labelled, unlabelled


def refuse_without_size(config, found):
    """Refuses a configuration without a size of slices, with one that the headers propose.

    Args:
      config: of the run.
      found: ``data.Recipe``.

    Raises:
      UserError: in any case.
    """
    geometries, slices = {}, config.data.slices
    for case in found.cases:
        with contextlib.suppress(UserError):  # a bad header, told when there is a size
            geometries[case.name] = found.geometry(case.name)
    advice = []
    if geometries:
        flags = slice_flags(geometries, plane=slices.plane, spacing=slices.spacing)
        advice.append(f"{flags} holds every slice of {len(geometries)} cases whole")
    if found.builder:  # a folder of files
        advice.append(f"python -m mijax.inspect {config.data.source.dir} describes them")
    raise UserError("; ".join(["no config.data.slices.size is given", *advice]))


def check_slices(splits, geometry, config, method):
    """Refuses training slices that exceed ``data.slices.size``, before any voxel is read.

    Args:
      splits: ``data.Splits``.
      geometry: (case name) -> ``data.Geometry``, from headers alone.
      config: of the run.
      method: ``methods.Method``.

    Raises:
      UserError: if there are such, or as ``divide``.
    """
    labelled, unlabelled = divide(splits, method, config.method.name)
    names = [*labelled, *(unlabelled if method.unlabelled else ())]
    slices = config.data.slices
    if config.hypergradient.weights:
        names += splits.validation
    shapes = {}
    for name in names:
        with contextlib.suppress(UserError):  # a bad header, told with all that are
            shape, _, affine = geometry(name)
            shapes[name] = shape, affine
    pixels = {
        name: slice_shape(name, *place, spacing=slices.spacing, plane=slices.plane)
        for name, place in shapes.items()
    }
    size = tuple(slices.size)
    larger = [name for name, hw in pixels.items() if hw[0] > size[0] or hw[1] > size[1]]
    if larger and slices.fit == "pad":
        most = np.max([pixels[name] for name in larger], axis=0)
        raise UserError(
            f"slices of {len(larger)} of {len(names)} training cases exceed data.slices.size "
            f"{size[0]}×{size[1]}: up to {most[0]}×{most[1]}, {larger[0]} the first; raise "
            "data.slices.size or use data.slices.fit=resize or crop"
        )


def load_training_set(source, splits, config, method):
    """Training slices on the host, labels only of the labelled cases.

    This is the gate where the labels of unlabelled cases are dropped. Those of the validation
    cases are let through where weights learn from them.

    Raises:
      UserError: if the method needs unlabelled cases and there are none.
    """
    labelled, unlabelled = divide(splits, method, config.method.name)

    def slices_of(cases):
        cuts = [slice_volume(source.volume(name), config.data.slices) for name in cases]
        if not cuts:
            return None, None
        return np.concatenate([c.image for c in cuts]), np.concatenate([c.label for c in cuts])

    image, label = slices_of(labelled)
    held_out = slices_of(splits.validation) if config.hypergradient.weights else None
    others = None
    if method.unlabelled:
        volumes = (source.volume(name)._replace(label=None) for name in unlabelled)
        images = [slice_volume(volume, config.data.slices).image for volume in volumes]
        others = Unlabelled(
            image=np.concatenate(images),
            position=np.concatenate([np.linspace(0, 1, len(i), dtype=np.float32) for i in images]),
            volume=np.repeat(np.arange(len(images), dtype=np.int32), [len(i) for i in images]),
        )
    return TrainingSet(image, label, others, held_out)


def check_classes(label, validation, classes):
    """Logs which classes are in none of the training labels, or of the validation volumes.

    Args:
      label: (n, h, w) of the ``TrainingSet``.
      validation: list of ``data.Volume``.
      classes: names, background first.

    Raises:
      UserError: if the validation volumes show no class at all: nothing could be scored.
    """
    scored = shown_classes((volume.label for volume in validation), classes)
    if not scored:
        raise UserError(
            "the validation cases show no class, so that no checkpoint can be the best; choose "
            "others by config.data.splits.file or config.data.splits.seed"
        )
    for cases, shown, then in (
        ("labelled", shown_classes([label], classes), "it cannot be learned"),
        ("validation", scored, "it has no part in the validation DSC"),
    ):
        for name in classes[1:]:
            if name not in shown:
                _log.warning("no %s case shows %s: %s", cases, name, then)
