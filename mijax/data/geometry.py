"""Shape and place of volumes from the headers of their files, before any voxel is read."""

import gzip
import math
from pathlib import Path

import nibabel as nib
import numpy as np

from mijax.data.imagefile import (
    _UNREADABLE,
    NIFTI,
    _check_header,
    _first_line,
    _itk_bytes,
    _nifti_header,
    has_ending,
    itk_affine,
    itk_header,
)
from mijax.data.layout import Entry
from mijax.data.metaimage import METAIMAGE, check_header
from mijax.data.volume import Geometry
from mijax.errors import UserError


def file_geometry(path: Path) -> Geometry:
    """What the header of an image file says.

    Raises:
      UserError: unreadable, or of nothing that could be a volume, as ``imagefile.read_image``.
    """
    shape, affine = _nifti(path) if has_ending(path, NIFTI) else _itk(path)
    return Geometry(tuple(shape[:3]), math.prod(shape[3:]), affine)


def entry_geometry(entry: Entry, *, channels: int) -> Geometry:
    """That of a case, with the checks of its files that need no voxel.

    Raises:
      UserError: the first file whose header is bad, or says another shape or number of channels.
    """
    per_file = channels // len(entry.images)
    first = file_geometry(entry.images[0])
    for path in (*entry.images, entry.label):
        if path is None:
            continue
        shape, found, _ = file_geometry(path)
        if path != entry.label and found != per_file:
            raise UserError(f"{path}: {found} channels; {per_file} needed")
        if shape != first.shape:
            other = f"{entry.images[0].parent.name}/{entry.images[0].name}"
            raise UserError(f"{path}: shape {shape}, but {other} has {first.shape}")
    return first._replace(channels=channels)


def _nifti(path: Path):
    try:
        with gzip.open(path) if has_ending(path, (".gz",)) else path.open("rb") as file:
            header = _nifti_header(file.read(nib.Nifti2Header.sizeof_hdr))
        with np.errstate(all="ignore"):
            shape = header.get_data_shape()
            affine = np.asarray(header.get_best_affine(), np.float64)
            _check_header(path, shape, math.prod(shape) * header.get_data_dtype().itemsize, affine)
    except _UNREADABLE as error:
        raise UserError(
            f"{path}: truncated or not NIfTI ({_first_line(error)}); copy it again"
        ) from error
    return shape, affine


def _itk(path: Path):
    try:
        if has_ending(path, METAIMAGE):
            check_header(path)
        header = itk_header(path)
        if header.GetDimension() != 3:
            raise UserError(f"{path}: {header.GetDimension()} axes; a volume (x, y, z) is needed")
        _check_header(path, header.GetSize(), _itk_bytes(header), itk_affine(header))
    except (OSError, RuntimeError) as error:
        raise UserError(f"{path}: SimpleITK cannot read it; copy or convert it again") from error
    return (*header.GetSize(), header.GetNumberOfComponents()), itk_affine(header)
