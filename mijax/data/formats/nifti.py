"""NIfTI: a header judged before any voxel is read, and the places that it gives a volume."""

import contextlib
import gzip
import logging
import math
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling

from mijax.data.formats.header import (
    check_header,
    check_kind,
    is_regular,
    tell_of_size,
    volume_shape,
)
from mijax.errors import UserError, lines_of

NIFTI = (".nii.gz", ".nii")
_BEFORE = 2**26  # bytes before the voxels: the header and its extensions, which nibabel holds
_PART = 2**24  # bytes of voxels that are read at once
_DEFLATE = 1032  # times that deflate can shrink a stream, and no more
_MILLIMETRES = {1: 1e3, 3: 1e-3}  # by xyzt_units: metre, micron; ITK takes all others for mm
_SILENT = logging.Logger("nibabel", logging.CRITICAL + 1)  # it names no file
_UNREADABLE = (
    OSError,
    EOFError,
    ValueError,
    OverflowError,
    zlib.error,
    nib.filebasedimages.ImageFileError,
    nib.spatialimages.HeaderDataError,
)


def read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads the header, then as many bytes as it announces and one more, which must not be there.

    That one makes gzip check its checksum. Header extensions are passed over.

    Returns:
      (x, y, z) or (x, y, z, c), and the affine of its sform or else its qform, in millimetres.

    Raises:
      UserError: see ``imagefile.read_image``.
    """
    with _readable(path) as file:
        header, shape, affine = _sound_header(path, file)
        size, at = _announced(path, file, header), 0
        voxels = bytearray(size)
        for part in _parts(path, file, size):
            voxels[at : at + len(part)] = part
            at += len(part)
        values = np.frombuffer(voxels, header.get_data_dtype()).reshape(shape, order="F")
        return apply_read_scaling(values, *header.get_slope_inter()), affine


def check_nifti(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of ``read_nifti``, and its errors, at any size; holds no voxels."""
    with _readable(path) as file:
        header, shape, affine = _sound_header(path, file, largest=math.inf)
        for _ in _parts(path, file, _announced(path, file, header)):
            pass
        return shape, affine


def read_nifti_header(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Shape and affine of ``read_nifti``, and its errors, but for those of the voxels."""
    with _readable(path) as file:
        return _sound_header(path, file)[1:]


def _announced(path: Path, file, header) -> int:
    """Bytes of voxels by a header, to whose start the file is moved, where it can hold them."""
    size = math.prod(header.get_data_shape()) * header.get_data_dtype().itemsize
    start = header.get_data_offset() or header.single_vox_offset
    length = path.stat().st_size * (_DEFLATE if _is_packed(path) else 1)
    if not header.sizeof_hdr <= start <= length - size:
        raise EOFError(f"{size} bytes of voxels at {start} are announced")
    file.seek(start)
    return size


def _parts(path: Path, file, size: int):
    """Yields the voxels, and refuses fewer or more bytes of them than are announced."""
    found = 0
    while found < size:
        part = file.read(min(size - found, _PART))
        if not part:
            raise EOFError(f"{found} bytes of voxels instead of {size}")
        yield part
        found += len(part)
    if file.read(1):
        raise UserError(
            f"{path}: more than the {size} bytes of voxels that its header announces; copy it again"
        )


@contextlib.contextmanager
def _readable(path: Path):
    """The open file; what goes wrong with it, and is no ``UserError`` yet, becomes one."""
    try:
        with _open(path) as file, np.errstate(all="ignore"):
            yield file
    except _UNREADABLE as error:
        plain = "if it is not compressed, rename it to .nii, else "
        advice = f"{plain * isinstance(error, gzip.BadGzipFile)}copy it again"
        raise UserError(
            f"{path}: truncated or not NIfTI ({lines_of(error)[0]}); {advice}"
        ) from error


def _sound_header(path: Path, file, **limits):
    """The header at the start of a file, the shape of the volume, and its affine, all judged."""
    header, unknown = _read_header(file)
    dtype, shape = header.get_data_dtype(), header.get_data_shape()
    affine = _millimetres(header) @ np.asarray(header.get_best_affine(), np.float64)
    check_kind(path, dtype)
    check_header(path, volume_shape(shape), math.prod(shape) * dtype.itemsize, affine, **limits)
    if not np.isfinite(header["pixdim"][1:4]).all() or np.isinf(header["scl_slope"]):
        raise UserError(f"{path}: NaN or infinity in pixdim or scl_slope; repair the header")
    if header.get_data_offset() > _BEFORE:
        raise UserError(f"{path}: more than {_BEFORE} bytes before the voxels; repair the header")
    if unknown and not header["sform_code"]:
        tell_of_size(path, unknown)
    return header, volume_shape(shape), affine


def nifti_header(path: Path) -> nib.Nifti1Header:
    """The header of a sound file, without its extensions, which may be damaged."""
    with _open(path) as file, np.errstate(all="ignore"):
        return _read_header(file)[0]


def nifti_affines(path: Path) -> dict[str, np.ndarray]:
    """Every place that the header of a sound file gives its voxels, by the name of the form.

    Programs differ in which form they go by: nibabel, and so mijax, by the sform where there is
    one, ITK as a rule by the qform. Where there is neither, by the voxel sizes alone.

    Returns:
      (4, 4) affines to millimetres, RAS+; the first is that of ``read_nifti``.
    """
    header, affines = nifti_header(path), {}
    if header["sform_code"]:
        affines["sform"] = header.get_sform()
    if header["qform_code"]:
        with contextlib.suppress(ValueError, nib.spatialimages.HeaderDataError):  # no rotation
            affines["qform"] = header.get_qform()
    if not affines:
        affines["pixdim"] = header.get_base_affine()
        x, y, z = header["pixdim"][1:4].astype(float)
        affines["pixdim as ITK reads it"] = np.diag([-x, -y, z, 1.0])
    return {name: _millimetres(header) @ a for name, a in affines.items() if is_regular(a)}


def _open(path: Path):
    return gzip.open(path) if _is_packed(path) else path.open("rb")


def _is_packed(path: Path) -> bool:
    return path.name.lower().endswith(".gz")


def _read_header(file) -> tuple[nib.Nifti1Header, str]:
    """The header at the start of a single file; and of "xyz" the axes without a voxel size."""
    content = file.read(nib.Nifti2Header.sizeof_hdr)
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(content):
            header = kind(content[: kind.sizeof_hdr], check=False)
            sizes = zip("xyz", header["pixdim"][1:4], strict=True)
            unknown = "".join(axis for axis, size in sizes if size == 0)
            header.check_fix(_SILENT)  # makes sizes of 0 those of 1
            return header, unknown
    raise ValueError("no such header")


def _millimetres(header: nib.Nifti1Header) -> np.ndarray:
    """(4, 4) from the header's own unit of length to millimetres."""
    scale = _MILLIMETRES.get(int(header["xyzt_units"]) & 7, 1.0)
    return np.diag([scale, scale, scale, 1.0])
