"""A zip file from outside, unpacked under names of our own and within limits."""

import stat
import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from mijax.data.text import climbs
from mijax.errors import UserError

MEMBERS = 10_000  # files of an archive
_DIRECTORY = 400 * MEMBERS  # bytes of its list of files
_CHUNK = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class TooLarge(UserError):
    """More than the server takes."""


def unpack(file, folder: Path, *, most_bytes: int) -> None:
    """Writes the files of an archive to 000000.dcm, 000001.dcm, …; none of their names is used.

    Hidden files are passed over, and what macOS adds.

    Args:
      file: open, seekable.
      folder: an empty one.
      most_bytes: of all files, as they are unpacked. What the archive says of that is not trusted.

    Raises:
      TooLarge: too many files, or bytes.
      UserError: damaged, encrypted, of other methods than store and deflate, or with a name that
        leads out of the folder, or a link.
    """
    reader = _Frugal(file, _DIRECTORY)
    try:
        with zipfile.ZipFile(reader) as archive:
            reader.left = None
            members = [member for member in archive.infolist() if not member.is_dir()]
            if len(members) > MEMBERS:
                raise _too_many()
            for number, member in enumerate(members, 1):
                _check(member, f"zip: file {number}")
            left = most_bytes
            for number, member in enumerate(filter(_is_shown, members)):
                path = folder / f"{number:06}.dcm"
                left -= _write(archive, member, path, most_bytes=left)
    except _DAMAGED as error:
        raise UserError("zip: damaged, or not a zip file; make it again") from error


def _write(archive, member, path: Path, *, most_bytes: int) -> int:
    count = 0
    with archive.open(member) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            count += len(chunk)
            if count > most_bytes:
                raise TooLarge("zip: its files are larger than the server takes")
            target.write(chunk)
    return count


def _check(member: zipfile.ZipInfo, what: str) -> None:
    """Refuses a member, which is not named: names may be those of patients."""
    if climbs(member.filename):
        raise UserError(f"{what} has a name that leads out of its folder")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise UserError(f"{what} is a link, or no plain file")
    if member.flag_bits & 1:
        raise UserError("zip: encrypted")
    if member.compress_type not in _METHODS:
        raise UserError("zip: compressed by another method than deflate")


def _is_shown(member: zipfile.ZipInfo) -> bool:
    parts = PurePosixPath(member.filename).parts
    return not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _too_many() -> TooLarge:
    return TooLarge(f"zip: more than {MEMBERS} files")


class _Frugal:
    """A file that gives no more than so many bytes: ``zipfile`` reads a list of any length."""

    def __init__(self, file, left: int | None):
        self._file, self.left = file, left

    def read(self, size=-1):
        if self.left is None:
            return self._file.read(size)
        content = self._file.read(size if 0 <= size <= self.left else self.left + 1)
        self.left -= len(content)
        if self.left < 0:
            raise _too_many()
        return content

    def __getattr__(self, name):
        return getattr(self._file, name)
