"""The stored voxels of MetaImage and NRRD, counted before SimpleITK reads them."""

import zlib
from pathlib import Path

from mijax.errors import UserError

ZLIB, GZIP = 15, 31  # framings of a stream, as zlib numbers them
_CHUNK = 2**20


def check_voxels(
    path: Path,
    offset: int,
    needed: int,
    *,
    packed: int | None,
    more: bool,
    length: int | None = None,
) -> None:
    """Refuses damaged voxels: SimpleITK may return noise, and no error.

    Args:
      path: the file that they are in.
      offset: bytes before them.
      needed: bytes that the header announces.
      packed: the framing of their stream, or None where they are stored as they are.
      more: whether the file may hold more, which the header says where to skip.
      length: bytes of the stream by the header, beyond which SimpleITK reads none.

    Raises:
      UserError: the voxels are missing, damaged, or not as many as the header says.
    """
    if packed is None:
        size = path.stat().st_size - offset
    elif more:
        size = needed
    else:
        size = _inflated_size(path, offset, needed, packed, length)
    if size < needed or (size > needed and not more):
        raise UserError(f"{path}: {size} bytes of voxels instead of {needed}; copy it again")


def _inflated_size(path: Path, offset: int, most: int, framing: int, length: int | None) -> int:
    """Bytes that a stream expands to, without holding more than a chunk of them."""
    inflate, size = zlib.decompressobj(framing), 0
    end = path.stat().st_size if length is None else offset + length
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := inflate.unconsumed_tail or (
                not inflate.eof and file.read(min(_CHUNK, end - file.tell()))
            ):
                size += len(inflate.decompress(chunk, _CHUNK))
                if size > most:
                    raise UserError(
                        f"{path}: more than the {most} bytes of voxels that its header announces; "
                        "copy it again"
                    )
        size += len(inflate.flush())
    except zlib.error as error:
        raise UserError(f"{path}: damaged ({error}); copy it again") from error
    if not inflate.eof:
        raise UserError(f"{path}: truncated; copy it again")
    return size
