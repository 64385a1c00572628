"""The training slices of a run: which cases they are of, checked, and cut from the volumes."""

import contextlib
import itertools
import logging

import numpy as np

from mijax.data import UNLABELLED, slice_shape
from mijax.data.patches import slice_volume
from mijax.data.slices import pixel_size
from mijax.errors import UserError, times
from mijax.inference.scores import partly_annotated, shown_classes
from mijax.methods import Unlabelled
from mijax.training.batches import UNCROPPED, TrainingSet
from mijax.training.gaps import coded
from mijax.training.ragged import arrays_of, packed

_SHAPING = ("spacing", "plane", "dims", "depth_spacing")  # what the pixels of an image hang on
_OBLONG = 1.1  # sides of a pixel that is told of
_PLACES = 60  # of structures in an image, that crops are centred on
_log = logging.getLogger("mijax")


def divide(splits, method):
    """Labelled and unlabelled cases for a method, by name."""
    if method.examination:  # learns from images alone
        return (), (*splits.labelled, *splits.unlabelled)
    return splits.labelled, splits.unlabelled


def _no_unlabelled(name):
    return UserError(
        f"method {name} learns from unlabelled cases and there are none; "
        "set config.data.splits.labelled to fewer patients than there are (0 takes all)"
    )


def check_slices(splits, found, config, method, annotation):
    """Refuses training slices that exceed ``data.patches.size``, before any voxel is read.

    Those that have pixels that are not square are told of.

    Args:
      splits: ``data.Splits``.
      found: ``data.Recipe``.
      config: of the run.
      method: ``methods.Method``.
      annotation: ``data.Annotation``.

    Raises:
      UserError: if there are such; or if the method needs unlabelled cases and there are none,
        nor can a labelled one have a part that is not.
    """
    labelled, unlabelled = divide(splits, method)
    if method.unlabelled and not (unlabelled or found.gaps or annotation.of(labelled).partial):
        raise _no_unlabelled(config.method.name)
    names = [*labelled, *(unlabelled if method.unlabelled else ())]
    slices = config.data.patches
    if config.hypergradient.weights:
        names += splits.validation
    shapes = {}
    for name in names:
        with contextlib.suppress(UserError):  # a bad header, told with all that are
            shape, _, affine = found.geometry(name)
            shapes[name] = shape, affine
    _tell_of_aspect(shapes, slices)
    options = {key: slices[key] for key in _SHAPING}
    pixels = {name: slice_shape(name, *place, **options) for name, place in shapes.items()}
    size = tuple(slices.size)
    larger = [name for name, shape in pixels.items() if np.greater(shape, size).any()]
    if larger and slices.fit == "pad":
        most = np.max([pixels[name] for name in larger], axis=0)
        raise UserError(
            f"{'slices' if slices.dims == 2 else 'volumes'} of {len(larger)} of {len(names)} "
            f"training cases exceed data.patches.size {times(size)}: up to {times(most)}, "
            f"{larger[0]} the first; raise --config.data.patches.size or use "
            "--config.data.patches.fit=resize"
            + (" or crop" if slices.dims == 2 else ", crop, or whole")
        )


def _tell_of_aspect(shapes, slices):
    """Logs that slices have pixels that are not square: they are turned as if they were."""
    if slices.spacing or slices.fit == "resize":
        return
    sizes = {name: pixel_size(affine, plane=slices.plane) for name, (_, affine) in shapes.items()}
    oblong = [name for name, mm in sizes.items() if max(mm) > _OBLONG * min(mm)]
    if oblong:
        _log.warning(
            "slices of %d of %d training cases have pixels that are not square, of %s the first: "
            "what rotates or shears them takes them for square; --config.data.patches.spacing "
            "makes them so",
            len(oblong),
            len(shapes),
            f"{oblong[0]} ({times(f'{mm:.3g}' for mm in sizes[oblong[0]])} mm)",
        )


def load_training_set(source, splits, config, method, cropping=UNCROPPED):
    """Training slices on the host, labels only of the labelled cases.

    This is the gate where the labels of unlabelled cases are dropped. Those of the validation
    cases are let through where weights learn from them. Of a labelled case the slices without
    an annotated pixel are left out, and those with another pixel are unlabelled ones as well:
    their images alone, behind those of the unlabelled cases. Of 3-D images that patches are cut
    from, ``Ragged`` arrays.

    Raises:
      UserError: if the method needs unlabelled slices and there are none, or if no labelled slice
        has an annotated pixel.
    """
    labelled, unlabelled = divide(splits, method)
    slices, held_out, others, foreground = config.data.patches, None, None, None
    image, label, partly = _labelled_slices(source, labelled, slices)
    if config.hypergradient.weights:
        held_out = _labelled_slices(source, splits.validation, slices)[:2]
        held_out = tuple(_joined(part, cropping) for part in held_out)
    if method.unlabelled:
        volumes = (source.volume(name)._replace(label=None) for name in unlabelled)
        images = [slice_volume(volume, slices).image for volume in volumes]
        positions = [_positions(image) for image in images]
        images += [image for image, _ in partly]
        positions += [position for _, position in partly]
        if not images:
            raise _no_unlabelled(config.method.name)
        others = Unlabelled(
            image=_joined(images, cropping),
            position=np.concatenate(positions),
            volume=np.repeat(np.arange(len(images), dtype=np.int32), [len(i) for i in images]),
        )
    if partly:
        _log.info(
            "labelled cases: %d %s have labels; %d have none in some pixel%s",
            sum(map(len, label)),
            "volumes" if config.data.patches.dims == 3 else "slices",
            sum(len(image) for image, _ in partly),
            ", and join the unlabelled ones" * method.unlabelled,
        )
    if label and cropping.foreground:
        maps = itertools.chain(*label)
        foreground = foreground_places(maps, len(source.classes), seed=config.seed)
    return TrainingSet(
        _joined(image, cropping), _joined(label, cropping), others, held_out, foreground
    )


def _joined(stacks, cropping):
    """Stacks of images (n, *space, …) as one, or, of whole volumes, as ``Ragged``."""
    if not stacks:
        return None
    if cropping.patch is None:
        return np.concatenate(stacks)
    return packed([one for stack in stacks for one in stack], box=cropping.box)


def foreground_places(label, classes, *, seed):
    """Places of voxels of structures in label maps, for each as many of every class it shows.

    Args:
      label: n arrays (*space) of labels.
      classes: number of them.
      seed: of the draw.

    Returns:
      (n, 60, number of axes) int32; of an image without any structure anywhere.
    """
    draw, places = np.random.default_rng(seed), []
    for one in label:
        shown = [np.flatnonzero(one == value) for value in range(1, classes)]
        shown = [found for found in shown if len(found)] or [np.arange(one.size)]
        flat = [draw.choice(shown[i % len(shown)]) for i in range(_PLACES)]
        places.append(np.stack(np.unravel_index(flat, one.shape), -1))
    return np.array(places, np.int32)


def _labelled_slices(source, cases, slices):
    """Images (n, *space, c) and labels (n, *space) of the slices with an annotated pixel, by case.

    Labels are as ``gaps`` has them. And, of each case that has some, the images and positions of
    the slices that have another pixel.
    """
    images, labels, partly = [], [], []
    for name in cases:
        volume = source.volume(name)
        if volume.undrawn:
            volume = coded(volume, source.undrawn, source.classes)
        cut = slice_volume(volume, slices)
        shown = cut.label[:, *cut.inside]
        pixels = tuple(range(1, shown.ndim))
        kept = (shown != UNLABELLED).any(pixels)
        some = (shown >= len(source.classes)).any(pixels)
        images.append(cut.image if kept.all() else cut.image[kept])
        labels.append(cut.label if kept.all() else cut.label[kept])
        if some.any():
            partly.append((cut.image[some], _positions(cut.image)[some]))
    if images and not any(map(len, images)):
        raise UserError(
            f"no slice of {len(cases)} cases has an annotated pixel, {cases[0]} the first of them"
        )
    return images, labels, partly


def _positions(images):
    """(n,) where the slices of a volume lie in it, see ``methods.Unlabelled``."""
    return np.linspace(0, 1, len(images), dtype=np.float32)


def check_classes(label, validation, classes):
    """Logs which classes are in none of the training labels, or of the validation volumes.

    And which of these were annotated in part.

    Args:
      label: of the ``TrainingSet``.
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
    if line := partly_annotated(validation, classes):
        _log.info("validation cases: %s", line)
    for cases, shown, then in (
        ("labelled", shown_classes(arrays_of(label), classes), "it cannot be learned"),
        ("validation", scored, "it has no part in the validation DSC"),
    ):
        for name in classes[1:]:
            if name not in shown:
                _log.warning("no %s case shows %s: %s", cases, name, then)
