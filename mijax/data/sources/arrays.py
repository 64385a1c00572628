"""A data set in one .npz file: volumes that are arrays already, read without TFDS.

classes        (k,) text, the background first
cases          (n,) text, names
patients       (n,) text, the patient of each case
image/CASE     (x, y, z) or (x, y, z, c), real numbers
label/CASE     (x, y, z), whole numbers below k, 255 in voxels that nobody annotated; absent where
               nobody annotated any
affine/CASE    (4, 4), voxel index to millimetres, RAS+
"""

import contextlib
import lzma
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mijax.data.volume import UNLABELLED, Case, Geometry, Recipe, Volume
from mijax.errors import UserError
from mijax.files import in_one_piece

_DAMAGED = (
    KeyError, IndexError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error,
    lzma.LZMAError,
)  # fmt: skip


def write_arrays(
    path: Path, volumes: Iterable[tuple[Case, Volume]], *, classes: Sequence[str]
) -> None:
    """Writes a data set as one file, images in the type that they have, compressed by LZMA.

    Args:
      path: of the file, which is replaced in one piece: the volumes may be read from it.
      volumes: each case with its volume.
      classes: names, the background first.

    Raises:
      UserError: if it cannot be written there.
    """
    cases = []
    with in_one_piece(path) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_LZMA) as archive:

        def write(name, values):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.asarray(values), allow_pickle=False)

        for case, volume in volumes:
            cases.append(case)
            write(f"image/{case.name}", volume.image)
            write(f"affine/{case.name}", volume.affine)
            if volume.label is not None:
                write(f"label/{case.name}", volume.label)
        write("classes", np.array(classes, dtype=str))
        write("cases", np.array([case.name for case in cases], dtype=str))
        write("patients", np.array([case.patient for case in cases], dtype=str))


def arrays_recipe(path: str) -> Recipe:
    """The recipe of such a file. It needs no preparing: its ``builder`` is None.

    Raises:
      UserError: no such file, or not one of these arrays.
    """
    if not path:
        raise UserError("no file of arrays given; pass --config.data.source.dir=FILE.npz")
    file = Path(path).expanduser()
    if not file.is_file():
        raise UserError(f"{file}: no such file; the source 'arrays' reads one .npz file")
    if not zipfile.is_zipfile(file):
        raise UserError(f"{file}: not a data set of arrays, or truncated; write it anew")
    try:
        with np.load(file, allow_pickle=False) as content:
            classes, names, patients = (
                tuple(map(str, content[key])) for key in ("classes", "cases", "patients")
            )
            cases = tuple(
                Case(name, patient, f"label/{name}" in content)
                for name, patient in sorted(zip(names, patients, strict=True))
            )
            channels = _shape(content, cases[0].name)[3]
        if len(classes) > UNLABELLED:
            raise ValueError(f"{len(classes)} classes, and {UNLABELLED} at most are possible")
    except _DAMAGED as error:
        raise UserError(f"{file}: not a data set of arrays ({error}); write it anew") from error

    def geometry(name: str) -> Geometry:
        with _of_case(file, name) as content:
            shape, affine = _shape(content, name), np.asarray(content[f"affine/{name}"], float)
        if shape[3] != channels:
            raise UserError(f"{file}: case {name} has {shape[3]} channels, others {channels}")
        if affine.shape != (4, 4) or not np.isfinite(affine).all() or not np.linalg.det(affine):
            raise UserError(f"{file}: the affine of case {name} is no invertible (4, 4) matrix")
        return Geometry(shape[:3], channels, affine)

    def read(name: str) -> Volume:
        shape, _, affine = geometry(name)
        with _of_case(file, name) as content:
            image, label = content[f"image/{name}"].astype(np.float32), content.get(f"label/{name}")
        if not np.isfinite(image).all():
            raise UserError(f"{file}: the image of case {name} is not finite")
        if label is not None:
            wrong = set(np.unique(label).tolist()) - {*range(len(classes)), UNLABELLED}
            if label.shape != shape or wrong:
                raise UserError(
                    f"{file}: the label of case {name} has another shape than its image, or "
                    f"values that are none of the {len(classes)} classes, nor {UNLABELLED}"
                )
            label = label.astype(np.uint8)
        return Volume(name, image.reshape(*shape, channels), label, affine)

    key = f"{file.resolve()}-{file.stat().st_size}-{file.stat().st_mtime_ns}"
    return Recipe(None, key, classes, channels, cases, geometry, read, gaps=True)


@contextlib.contextmanager
def _of_case(file: Path, name: str):
    """The content of the file, to read that case."""
    try:
        with np.load(file, allow_pickle=False) as content:
            yield content
    except _DAMAGED as error:
        raise UserError(f"{file}: case {name} cannot be read ({error})") from error


def _shape(content, name: str) -> tuple[int, ...]:
    """(x, y, z, c) of an image, from its header alone."""
    with content.zip.open(f"image/{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        of_1_0, of_2_0 = np.lib.format.read_array_header_1_0, np.lib.format.read_array_header_2_0
        shape = (of_1_0 if version == (1, 0) else of_2_0)(file)[0]
    if len(shape) not in (3, 4):
        raise ValueError(f"image/{name} has shape {shape}")
    return shape if len(shape) == 4 else (*shape, 1)
