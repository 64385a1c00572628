"""Texts that others wrote: names and JSON, refused where one line of a message cannot show them."""

import json
import math
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from mijax.errors import UserError

_LARGEST = 2**26  # bytes of a JSON file; a list of a million cases has half of it
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Whether a text has neither line breaks nor control characters nor bytes beside UTF-8."""
    return _UNFIT.search(text) is None


def composed(name: str) -> str:
    """A name in Unicode's normal form C, in which ä is one character.

    A Mac's files may have it as two, a and ¨: names of cases and classes are compared in this form.
    """
    return unicodedata.normalize("NFC", name)


def distinct(name: str) -> str:
    """A file's name so that letters that look alike can be told apart: ASCII and escapes."""
    return name if name.isascii() else ascii(name)


def is_number(word: str) -> bool:
    """Whether a word of a header is a finite number."""
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def climbs(name: str) -> bool:
    """Whether a file that a text names may lie outside the folder it is relative to."""
    parts = re.split(r"[/\\]", name)
    return ".." in parts or (len(parts) > 1 and parts[0] == "") or parts[0].endswith(":")


def read_given(path: Path, what: str):
    """The content of a JSON file that the user gave as ``what``, "splits" say.

    Raises:
      UserError: see ``read_json``.
    """
    try:
        return read_json(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as {what} ({error})") from error


def unknown_case(name: str, cases: Iterable[str]) -> str:
    """What is said of a name that is none of these cases."""
    near = next((case for case in cases if name.startswith(f"{case}.")), None)
    hint = f"; names have no ending: {near}" if near else ""
    return f"case {name[:255]} is not in the data set{hint}"


def read_json(path: Path):
    """The content of a JSON file.

    Raises:
      OSError: cannot be read, or is not a file.
      ValueError: not JSON, too large, nested too deeply, or an object with a key twice.
    """
    size = path.stat().st_size
    if not path.is_file():
        raise OSError("not a file")
    if size > _LARGEST:
        raise ValueError(f"{size} bytes are too many")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_object)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _object(pairs: list[tuple[str, object]]) -> dict:
    content = {}
    for key, value in pairs:
        if key in content:
            raise ValueError(f"the key {key[:80]!a} is there twice")
        content[key] = value
    return content
