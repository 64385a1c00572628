"""MetaImage: its header and voxels judged before SimpleITK, which may abort at a bad header."""

import math
import re
import zlib
from pathlib import Path

from mijax.data.text import climbs, is_plain
from mijax.errors import UserError

METAIMAGE = (".mha", ".mhd")
_HEADER = 2**16  # bytes of a header
_LINE = 1000  # and of one of its lines
_CHUNK = 2**20
_NUMBERS = {  # how many, for n axes, in powers of n
    "DimSize": 1,
    "ElementSpacing": 1,
    "ElementSize": 1,
    "Offset": 1,
    "Position": 1,
    "Origin": 1,
    "CenterOfRotation": 1,
    "TransformMatrix": 2,
    "Rotation": 2,
    "Orientation": 2,
}
_FORMS = {
    "NDims": r"[1-9]",
    "DimSize": r"(\d{1,9}\s*)+",
    "ElementType": r"MET_U?(CHAR|SHORT|INT|LONG|LONG_LONG|FLOAT|DOUBLE)(_ARRAY)?",
    "ElementNumberOfChannels": r"[1-9]\d{0,3}",
    "HeaderSize": r"-1|\d{1,9}",
    "CompressedDataSize": r"\d{1,15}",
}


def files_of(path: Path) -> tuple[Path, ...]:
    """An image's file, and after a MetaImage header that of its voxels, if it names one.

    Raises:
      UserError: that one is not there, outside the header's folder, or one of several.
    """
    if not path.name.lower().endswith(METAIMAGE):
        return (path,)
    name = _header(path)[0].get("ElementDataFile", "")
    if name in ("", "LOCAL"):  # none, or in the file of the header
        return (path,)
    if name.split()[0] == "LIST" or "%" in name:
        raise UserError(f"{path}: its voxels are in several files; convert it to one")
    if climbs(name) or not is_plain(name) or len(name) > 255:
        raise UserError(
            f"{path}: ElementDataFile {name[:80]!a} is not a file beside it; repair the header"
        )
    voxels = path.parent / name
    if not voxels.is_file():
        raise UserError(f"{path}: the file of its voxels, {name}, is missing; put it beside it")
    return path, voxels


def check_header(path: Path) -> None:
    """Refuses a header whose numbers are not what its keys ask for.

    Raises:
      RuntimeError: it is no header of an image.
      UserError: names the line.
    """
    fields = _header(path)[0]
    if not fields.keys() >= {"NDims", "DimSize", "ElementType", "ElementDataFile"}:
        raise RuntimeError("no MetaImage")
    for key, form in _FORMS.items():
        if key in fields and not re.fullmatch(form, fields[key], re.ASCII):
            raise _bad(path, key, fields[key])
    axes = int(fields["NDims"])
    if axes != 3:
        raise UserError(f"{path}: {axes} axes; a volume (x, y, z) is needed")
    keys = list(fields)
    for key, power in _NUMBERS.items():
        if key in fields:
            numbers = [_number(word) for word in fields[key].split()]
            known = keys.index("NDims") < keys.index(key)
            if len(numbers) != axes**power or not all(map(math.isfinite, numbers)) or not known:
                raise _bad(path, key, fields[key])
    files_of(path)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _bad(path: Path, key: str, value: str) -> UserError:
    return UserError(f"{path}: {key[:80]!a} cannot be {value[:80]!a}; repair the header")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a header, and its length in bytes."""
    fields = {}
    if not path.is_file():
        raise UserError(f"{path}: not a file, or a link to nothing; copy it again")
    with path.open("rb") as file:
        while file.tell() < _HEADER and (line := file.readline(_HEADER)):
            text = line.decode(errors="replace").strip()
            key, value = ([part.strip() for part in re.split("[=:]", text, maxsplit=1)] + [""])[:2]
            if key in fields or not is_plain(text.replace("\t", " ")) or len(line) > _LINE:
                raise _bad(path, key, value)
            fields[key] = value
            if key == "ElementDataFile":  # always the last
                break
        return fields, file.tell()


def check_voxels(path: Path, needed: int) -> None:
    """Refuses a MetaImage with damaged voxels: SimpleITK may return noise, and no error.

    Raises:
      UserError: the voxels are missing, damaged, or not as many as the header says.
    """
    header, offset = _header(path)
    voxels = files_of(path)[-1]
    offset = offset if voxels == path else 0
    more = "HeaderSize" in header  # than voxels, in the same file
    if header.get("CompressedData", "").lower() != "true":
        size = voxels.stat().st_size - offset
    elif more:
        size = needed
    else:
        size = _inflated_size(voxels, offset, needed)
    if size < needed or (size > needed and not more):
        raise UserError(f"{voxels}: {size} bytes of voxels instead of {needed}; copy it again")


def _inflated_size(path: Path, offset: int, most: int) -> int:
    """Bytes that a stream expands to, without holding more than a chunk of them."""
    inflate, size = zlib.decompressobj(), 0
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := inflate.unconsumed_tail or (not inflate.eof and file.read(_CHUNK)):
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
