"""The training slices of a run: cut from its volumes, and fed to its steps."""

import contextlib
import itertools

import jax
import numpy as np

from mijax import parallel
from mijax.data import slice_shape
from mijax.errors import UserError
from mijax.experiment import slice_volume
from mijax.methods import Unlabelled
from mijax.sampling import TrainingSet, counts_of
from mijax.scores import shown_classes
from mijax.stream import fits, stream


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
            "set config.data.labelled_cases to fewer patients than there are (0 takes all)"
        )
    return labelled, unlabelled


def check_slices(splits, geometry, config, method):
    """Refuses training slices that exceed ``data.size``, before any voxel is read.

    Args:
      splits: ``data.Splits``.
      geometry: (case name) -> ``data.Geometry``, from headers alone.
      config: of the run.
      method: ``methods.Method``.

    Raises:
      UserError: if there are such, or as ``divide``.
    """
    labelled, unlabelled = divide(splits, method, config.method.name)
    names, data = [*labelled, *(unlabelled if method.unlabelled else ())], config.data
    if config.get("outer", {}).get("weights"):
        names += splits.validation
    shapes = {}
    for name in names:
        with contextlib.suppress(UserError):  # a bad header, told with all that are
            shape, _, affine = geometry(name)
            shapes[name] = shape, affine
    pixels = {
        name: slice_shape(name, *place, spacing=data.spacing, plane=data.plane)
        for name, place in shapes.items()
    }
    size = tuple(data.size)
    larger = [name for name, hw in pixels.items() if hw[0] > size[0] or hw[1] > size[1]]
    if larger and data.fit == "pad":
        most = np.max([pixels[name] for name in larger], axis=0)
        raise UserError(
            f"slices of {len(larger)} of {len(names)} training cases exceed data.size "
            f"{size[0]}×{size[1]}: up to {most[0]}×{most[1]}, {larger[0]} the first; raise "
            "data.size or use data.fit=resize or crop"
        )


def load_training_set(source, splits, config, experiment):
    """Training slices on the host, labels only of the labelled cases.

    This is the gate where the labels of unlabelled cases are dropped. Those of the validation
    cases are let through where weights learn from them.

    Raises:
      UserError: if the method needs unlabelled cases and there are none.
    """
    labelled, unlabelled = divide(splits, experiment.method, config.method.name)

    def slices_of(cases):
        cuts = [slice_volume(source.volume(name), config.data) for name in cases]
        if not cuts:
            return None, None
        return np.concatenate([c.image for c in cuts]), np.concatenate([c.label for c in cuts])

    image, label = slices_of(labelled)
    held_out = slices_of(splits.validation) if experiment.outer else None
    others = None
    if experiment.method.unlabelled:
        volumes = (source.volume(name)._replace(label=None) for name in unlabelled)
        images = [slice_volume(volume, config.data).image for volume in volumes]
        others = Unlabelled(
            image=np.concatenate(images),
            position=np.concatenate([np.linspace(0, 1, len(i), dtype=np.float32) for i in images]),
            volume=np.repeat(np.arange(len(images), dtype=np.int32), [len(i) for i in images]),
        )
    return TrainingSet(image, label, others, held_out)


def check_classes(label, validation, classes, *, tell):
    """Tells which classes are in none of the training labels, or of the validation volumes.

    Args:
      label: (n, h, w) of the ``TrainingSet``.
      validation: list of ``data.Volume``.
      classes: names, background first.
      tell: called with a line about each.

    Raises:
      UserError: if the validation volumes show no class at all: nothing could be scored.
    """
    scored = shown_classes((volume.label for volume in validation), classes)
    if not scored:
        raise UserError(
            "the validation cases show no class, so that no checkpoint can be the best; choose "
            "others by config.data.splits or config.data.split_seed"
        )
    for cases, shown, then in (
        ("labelled", shown_classes([label], classes), "it cannot be learned"),
        ("validation", scored, "it has no part in the validation DSC"),
    ):
        for name in classes[1:]:
            if name not in shown:
                tell(f"no {cases} case shows {name}: {then}")


def feed(training_set, key, calls, config, experiment):
    """What each call of the train step takes: the whole set on the device, or slices in time.

    They stream as ``config.stream`` says, or, where that is not set, if the set does not fit.

    Args:
      training_set: ``TrainingSet`` of arrays of the host.
      key: of the ``TrainState``.
      calls: list of (step, number of steps).
      config: of the run.
      experiment: ``Experiment``.

    Returns:
      ``counts`` of ``step.make_train_step``, and an iterator of ``TrainingSet``.
    """
    streams, mesh = config.get("stream"), experiment.mesh
    if streams is None:
        streams = not fits(training_set, mesh.local_devices[0])
    if not streams:
        return None, itertools.repeat(jax.device_put(training_set, parallel.replicated(mesh)))
    rows = stream(training_set, key, calls, mesh=mesh, batches=experiment.batches)
    return counts_of(training_set), rows
