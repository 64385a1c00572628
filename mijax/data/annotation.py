"""Which part of its labels a data set has: slices that were annotated, classes that were drawn.

A JSON object says it of the cases that were annotated in part; of others all counts:

    {"case_01": {"slices": [0, 4, 8]}, "case_02": {"classes": ["liver"]}}

"slices" are those across ``config.data.patches.plane`` in the order of the file, from 0; voxels of
the others are ``UNLABELLED``. "classes" are those that were drawn: what is background there may be
of any other class.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel import orientations

from mijax.data.slices import PLANES
from mijax.data.text import composed, is_plain, read_given, unknown_case
from mijax.data.volume import UNLABELLED, Case, Geometry, Volume
from mijax.errors import UserError
from mijax.files import write_json


class Drawn(NamedTuple):
    """What was annotated of a case: indices of slices, names of classes; None for all."""

    slices: tuple[int, ...] | None = None
    classes: tuple[str, ...] | None = None


class Annotation(NamedTuple):
    """What was annotated of a data set.

    Attributes:
      cases: ``Drawn`` by case; one that is not there was annotated whole.
      plane: of the slices, "axial", "coronal" or "sagittal".
      empty_is_unlabelled: whether nobody annotated a slice that is background all over.
    """

    cases: Mapping[str, Drawn]
    plane: str = "axial"
    empty_is_unlabelled: bool = False

    @property
    def partial(self) -> bool:
        """Whether anything is left out."""
        return bool(self.cases) or self.empty_is_unlabelled

    def of(self, names: Sequence[str]) -> "Annotation":
        """What was annotated of some cases; the plane is nothing where no slices are named."""
        cases = {name: self.cases[name] for name in names if name in self.cases}
        sliced = self.empty_is_unlabelled or any(d.slices is not None for d in cases.values())
        return self._replace(cases=cases, plane=self.plane if sliced else "axial")

    def undrawn(self, classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """The different sets of classes, by index, that nobody drew in some case."""
        return tuple(sorted({_undrawn(drawn, classes) for drawn in self.cases.values()} - {()}))

    def restrict(self, volume: Volume, classes: Sequence[str]) -> Volume:
        """The volume with the part of its label that counts.

        Args:
          volume: of any case; without a label it stays as it is.
          classes: names, background first.

        Raises:
          UserError: the label has a class that was not drawn, or a slice is not there.
        """
        if volume.label is None or not self.partial:
            return volume
        drawn, axis = self.cases.get(volume.name, Drawn()), across(volume.affine, self.plane)
        _check_slices(volume.name, drawn, volume.label.shape[axis])
        undrawn = _undrawn(drawn, classes)
        if extra := [classes[i] for i in undrawn if (volume.label == i).any()]:
            raise UserError(
                f"annotation: the label of case {volume.name} has {extra[0]}, which is none of the "
                "classes that were drawn in it"
            )
        slices = np.moveaxis(volume.label, axis, 0)
        hidden = np.zeros(len(slices), bool)
        if drawn.slices is not None:
            hidden[:] = True
            hidden[list(drawn.slices)] = False
        if self.empty_is_unlabelled:
            hidden |= ~slices.any((1, 2))
        if hidden.any():
            slices = slices.copy()
            slices[hidden] = UNLABELLED
        return volume._replace(label=np.moveaxis(slices, 0, axis), undrawn=undrawn)


def read_annotation(path) -> dict[str, Drawn]:
    """``Drawn`` by case from a JSON file; names in whatever Unicode form.

    Raises:
      UserError: unreadable, or of another form.
    """
    path = Path(path)
    content = read_given(path, "an annotation")
    if not isinstance(content, dict) or not all(map(is_plain, content)):
        raise UserError(f"{path}: must be an object that has the names of cases for keys")
    return {composed(name): _drawn(entry, name, path) for name, entry in content.items()}


def write_annotation(path, drawn: Mapping[str, Drawn]) -> None:
    """Writes it as JSON, in one piece."""
    content = {
        name: {key: value for key, value in one._asdict().items() if value is not None}
        for name, one in drawn.items()
    }
    write_json(path, content)


def check_annotation(
    drawn: Mapping[str, Drawn],
    cases: Sequence[Case],
    *,
    classes: Sequence[str],
    plane: str,
    geometry: Callable[[str], Geometry],
) -> None:
    """Refuses what does not fit a data set, from headers alone.

    Args:
      drawn: by case.
      cases: of the data set.
      classes: their names, background first.
      plane: of the slices.
      geometry: (case name) -> ``Geometry``.

    Raises:
      UserError: a case or a class that there is not, a case without a label, or a slice that a
        case does not have.
    """
    labelled = {case.name: case.labelled for case in cases}
    for name, one in drawn.items():
        if name not in labelled:
            raise UserError(f"annotation: {unknown_case(name, labelled)}")
        if not labelled[name]:
            raise UserError(f"annotation: case {name} has no label; take it out")
        for class_name in one.classes or ():
            if class_name not in classes:
                raise UserError(
                    f"annotation: case {name} has class {class_name[:80]!a}, which is none of "
                    f"{', '.join(classes)}"
                )
        if one.slices:
            try:
                shape, _, affine = geometry(name)
            except UserError:  # a bad header, told with all that are
                continue
            _check_slices(name, one, shape[across(affine, plane)])


def across(affine: np.ndarray, plane: str) -> int:
    """The axis of a volume as it came that is cut across."""
    ras = [int(axis) for axis, _ in orientations.io_orientation(affine)]
    return ras.index(PLANES.index(plane))


def _check_slices(name: str, drawn: Drawn, count: int) -> None:
    for index in drawn.slices or ():
        if index >= count:
            raise UserError(
                f"annotation: case {name} has no slice {index}; its {count} slices are 0 to "
                f"{count - 1}"
            )


def _drawn(entry, name: str, path: Path) -> Drawn:
    if not isinstance(entry, dict) or not entry or not entry.keys() <= set(Drawn._fields):
        raise UserError(
            f'{path}: case {name[:80]} must be an object with "slices", "classes" or both'
        )
    slices, classes = entry.get("slices", []), entry.get("classes", [""])
    if not isinstance(slices, list) or not all(type(i) is int and 0 <= i < 2**31 for i in slices):
        raise UserError(f'{path}: "slices" of case {name[:80]} must be a list of numbers from 0 on')
    texts = isinstance(classes, list) and all(isinstance(c, str) and is_plain(c) for c in classes)
    if not texts or not classes:
        raise UserError(f'{path}: "classes" of case {name[:80]} must be a list of class names')
    return Drawn(
        tuple(slices) if "slices" in entry else None,
        tuple(map(composed, classes)) if "classes" in entry else None,
    )


def _undrawn(drawn: Drawn, classes: Sequence[str]) -> tuple[int, ...]:
    if drawn.classes is None:
        return ()
    return tuple(i for i, name in enumerate(classes) if i and name not in drawn.classes)
