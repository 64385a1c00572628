"""The values of a DICOM stack, decoded and scaled."""

import itertools
import math
from pathlib import Path

import numpy as np

from mijax.data.formats.dicom.headers import quiet, reason_of
from mijax.data.formats.dicom.stack import Stack
from mijax.data.formats.header import check_header
from mijax.errors import UserError


def read_stack(stack: Stack) -> tuple[np.ndarray, np.ndarray]:
    """The volume of a stack.

    Stored values are read as so many bits as are used, MONOCHROME1 is inverted as ITK does, and
    each slice has its own RescaleSlope and RescaleIntercept.

    Returns:
      (x, y, z) float32, finite, and the (4, 4) affine to millimetres, RAS+.

    Raises:
      UserError: too large, damaged, compressed so that no decoder is installed, or not finite.
    """
    name = stack.parent / stack.name
    check_header(name, stack.shape, 4 * math.prod(stack.shape), stack.affine)
    values = np.empty(stack.shape, np.float32)
    slices = [(frame.path, z) for z, frame in enumerate(stack.frames)]
    for path, group in itertools.groupby(slices, key=lambda one: one[0]):
        here = [z for _, z in group]
        pixels = _pixels(path, [stack.frames[z].index for z in here])
        for z, stored in zip(here, pixels, strict=True):
            frame = stack.frames[z]
            if stored.shape != frame.size:
                raise UserError(f"{path}: pixels of shape {stored.shape}, not {frame.size}")
            with np.errstate(over="ignore"):  # what overflows is found by the next line
                scaled = stored.T.astype(np.float64) * frame.slope + frame.intercept
                values[..., z] = scaled
            if not np.isfinite(values[..., z]).all():
                raise UserError(f"{path}: values that are NaN or infinite; export it again")
    return values, stack.affine


def _pixels(path: Path, indices: list[int]):
    """Yields the stored values of some frames of a file, (rows, columns)."""
    import pydicom
    from pydicom.pixels import iter_pixels

    try:
        with quiet():
            header = pydicom.Dataset()
            options = {"raw": True, "decoding_plugin": _plugin(path)}
            for stored in iter_pixels(path, ds_out=header, indices=indices, **options):
                yield _used_bits(stored, header)
    except UserError:
        raise
    except Exception as error:  # of damaged files pydicom and its decoders raise nearly anything
        raise UserError(
            f"{path}: its pixels cannot be read ({reason_of(error)}); copy it again"
        ) from error


def _plugin(path: Path) -> str:
    """The decoder of pydicom's for a file; any, "", where it does not matter.

    GDCM ends the process at JPEG-LS that is larger by its header than it is, and cuts what is
    smaller; at JPEG of more than 16 bits it ends it as well.

    Raises:
      UserError: compressed pixels that nothing installed can decode.
      ValueError: a JPEG of bits that no JPEG has.
    """
    import pydicom
    from pydicom.pixels import get_decoder

    header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["BitsAllocated"])
    syntax = header.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise UserError(
            f"{path}: pixels as {syntax.name[:60]!a} are not read; decompress the series, by "
            "gdcmconv --raw or dcmdjpeg"
        ) from None
    if not decoder.is_available:
        lacking = "; ".join(" ".join(text.split()) for text in decoder.missing_dependencies)
        raise UserError(
            f"{path}: no decoder of {syntax.name} is installed ({lacking}); install one of them, "
            "or decompress the series by gdcmconv --raw or dcmdjpeg"
        )
    if syntax.is_encapsulated and syntax != pydicom.uid.RLELossless:
        bits = header.get("BitsAllocated", 0)
        if bits not in (8, 16):
            raise ValueError(f"{bits} bits allocated")
    return "pyjpegls" if "pyjpegls" in decoder.available_plugins else ""


def _used_bits(stored: np.ndarray, header) -> np.ndarray:
    """The BitsStored up to HighBit alone, with their sign; those of MONOCHROME1 inverted."""
    if stored.dtype.kind not in "iu":
        return stored
    bits = 8 * stored.dtype.itemsize
    used = int(header.get("BitsStored", bits))
    high = int(header.get("HighBit", used - 1))
    if not 0 < used <= high + 1 <= bits:
        raise ValueError(f"{used} bits up to bit {high} of {bits}")
    stored = stored << (bits - 1 - high) >> (bits - used)  # of signed ones the sign goes along
    if header.PhotometricInterpretation != "MONOCHROME1":
        return stored
    signed = stored.dtype.kind == "i"
    return ~stored if signed else np.asarray(2**used - 1, stored.dtype) - stored
