"""How far two surfaces may be apart and count as the same in the NSD, in mm by class."""

import math

from mijax.data.text import composed
from mijax.errors import UserError

DEFAULT = 2.0  # mm; of the order of what people who draw the same structure differ by


def tolerances(given, classes):
    """``{class: mm}`` of the foreground classes.

    Args:
      given: one number for all, or ``{class: mm}``; of others, and of None, ``DEFAULT``.
      classes: names, background first.

    Raises:
      UserError: for what is no such class, or no number of millimetres.
    """
    by_class = given if isinstance(given, dict) else {}
    for name in by_class:
        if name not in classes[1:]:
            known = ", ".join(classes[1:])
            raise UserError(f"nsd_tolerance: {name!r} is none of the classes {known}")
    rest = DEFAULT if given is None or isinstance(given, dict) else given
    found = {name: by_class.get(name, rest) for name in classes[1:]}
    for mm in found.values():
        if not (0 <= mm < math.inf):
            raise UserError(f"nsd_tolerance: {mm} is no number of millimetres from 0 on")
    return {name: float(mm) for name, mm in found.items()}


def read_tolerances(texts):
    """What a flag says: one number, or CLASS=MM of some classes; None where it says nothing.

    Raises:
      UserError: for anything else.
    """
    try:
        if not any("=" in text for text in texts):
            (mm,) = texts or [None]
            return mm and float(mm)
        pairs = (text.rsplit("=", 1) for text in texts)
        found = [(composed(name), float(mm)) for name, mm in pairs]
        if len(dict(found)) < len(found):
            raise ValueError("a class is there twice")
        return dict(found)
    except ValueError as error:
        raise UserError(
            f"--nsd_tolerance={','.join(texts)} is neither a number of millimetres nor CLASS=MM of "
            "some classes, each once, with a comma between them"
        ) from error


def in_words(by_class):
    """``2 mm``, or ``RV 2 mm, LV 1.5 mm`` where they differ."""
    if len(set(by_class.values())) == 1:
        return f"{next(iter(by_class.values())):g} mm"
    return ", ".join(f"{name} {mm:g} mm" for name, mm in by_class.items())
