"""MetaImage: its header and voxels judged before SimpleITK, which may abort at a bad header."""

import re
from pathlib import Path

from mijax.data.formats.fields import add_field, bad_field, check_forms, open_header, voxels_beside
from mijax.data.formats.header import tell_of_size
from mijax.data.formats.voxels import ZLIB, check_voxels
from mijax.data.text import is_number
from mijax.errors import UserError, tell

METAIMAGE = (".mha", ".mhd")
_HEADER = 2**16  # bytes of a header
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
    "DimSize": r"\d{1,9}(\s+\d{1,9})*",
    "ElementType": r"MET_U?(CHAR|SHORT|INT|LONG|LONG_LONG|FLOAT|DOUBLE)(_ARRAY)?",
    "ElementNumberOfChannels": r"[1-9]\d{0,3}",
    "HeaderSize": r"-1|\d{1,9}",
    "CompressedDataSize": r"\d{1,15}",
}
_MILLIMETRES = ("mm", "?", "")
_SCALING = {"ElementToIntensityFunctionSlope": 1, "ElementToIntensityFunctionOffset": 0}  # of none


def metaimage_voxels(path: Path) -> Path:
    """The file of an image's voxels: that of its header, or the one that this names.

    Raises:
      UserError: that one is not there, outside the header's folder, or one of several.
    """
    name = _header(path)[0].get("ElementDataFile", "")
    if name in ("", "LOCAL", "Local", "local"):  # none, or in the file of the header
        return path
    return voxels_beside(path, "ElementDataFile", name)


def check_metaimage(path: Path) -> None:
    """Refuses a header whose values are not what its keys ask for, or would not count.

    Raises:
      RuntimeError: it is no header of an image.
      UserError: names the line.
    """
    fields = _header(path)[0]
    if not fields.keys() >= {"NDims", "DimSize", "ElementType", "ElementDataFile"}:
        raise RuntimeError("no MetaImage")
    check_forms(path, fields, _FORMS)
    axes = int(fields["NDims"])
    if axes != 3:
        raise UserError(f"{path}: {axes} axes; a volume (x, y, z) is needed")
    keys = list(fields)
    for key, power in _NUMBERS.items():
        if key in fields:
            words = fields[key].split()
            known = keys.index("NDims") < keys.index(key)
            if len(words) != axes**power or not all(map(is_number, words)) or not known:
                raise bad_field(path, key, fields[key])
    _check_ignored(path, fields)
    if not fields.keys() & {"ElementSpacing", "ElementSize"}:
        tell_of_size(path)
    if not fields.keys() & {"TransformMatrix", "Rotation", "Orientation"}:
        tell(f"{path}: no TransformMatrix; its axes are taken as LPS, which is a guess")
    metaimage_voxels(path)


def _check_ignored(path: Path, fields: dict[str, str]) -> None:
    """Refuses units and a scaling, which ITK passes over: lengths and values would be wrong."""
    unit = fields.get("DistanceUnits", "")
    if unit.lower() not in _MILLIMETRES:
        raise UserError(f"{path}: a length in {unit[:80]!a}; save it in mm")
    for key, none in _SCALING.items():
        value = fields.get(key, str(none))
        if not is_number(value):
            raise bad_field(path, key, value)
        if float(value) != none:
            raise UserError(f"{path}: {key} {value}; save it with its values scaled by it")


def _header(path: Path) -> tuple[dict[str, str], int]:
    """Fields of a header, and its length in bytes."""
    fields = {}
    with open_header(path) as file:
        while file.tell() < _HEADER and (line := file.readline(_HEADER)):
            text = line.decode(errors="replace").strip()
            key, value = ([part.strip() for part in re.split("[=:]", text, maxsplit=1)] + [""])[:2]
            add_field(path, fields, key, value, line=line)
            if key == "ElementDataFile":  # always the last
                break
        return fields, file.tell()


def check_metaimage_voxels(path: Path, needed: int) -> None:
    """Refuses a MetaImage whose voxels are not the ``needed`` bytes; see ``check_voxels``."""
    header, offset = _header(path)
    voxels = metaimage_voxels(path)
    offset = offset if voxels == path else 0
    packed = header.get("CompressedData", "")[:1] in ("T", "t", "1")
    announced, skipped = (int(header.get(k, 0)) for k in ("CompressedDataSize", "HeaderSize"))
    # Of each of these SimpleITK returns noise.
    if packed and offset and not announced:
        raise UserError(f"{path}: compressed, and no CompressedDataSize; save it again")
    if packed and skipped:
        raise UserError(f"{path}: compressed, and HeaderSize is not 0; save it again")
    if 0 < skipped < offset:
        raise UserError(f"{path}: HeaderSize {skipped} ends within the header; save it again")
    check_voxels(
        voxels,
        offset,
        needed,
        packed=ZLIB if packed else None,
        more=skipped != 0,  # than voxels, in the same file
        length=announced or None,
    )
