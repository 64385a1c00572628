"""What is in a data set: grids of all cases, intensities and classes of some."""

import numpy as np

from mijax.data import complete_patients
from mijax.data.survey import LEVELS, grids, look, propose_window
from mijax.errors import UserError

_LOOKED_AT = 12  # cases whose voxels are read


def fingerprint(recipe, labelled):
    """Fingerprint of a data set.

    Args:
      recipe: ``data.Recipe``.
      labelled: names of the cases to learn from with labels; no others' are looked at.

    Returns:
      A dict for JSON. Axes are x, y, z in the order of RAS+, ``least``, ``median``, ``most`` are
      over the cases, ``mm`` is of a voxel and ``extent`` the mm of a whole volume, shares are of
      the annotated voxels of the labelled cases that were looked at, and ``window`` is that of a
      CT, in Hounsfield units, or None.

    Raises:
      UserError: for a file that cannot be read.
    """
    geometries = {case.name: recipe.geometry(case.name) for case in recipe.cases}
    if not geometries:
        raise UserError("there is no case to plan for")
    seen = grids(geometries.values())
    learned = [case for case in recipe.cases if case.name in labelled]
    looks, counts, voxels = [], *np.zeros((2, len(recipe.classes)))
    for case in _spread(learned or recipe.cases):
        volume = recipe.read(case.name)
        found = look(volume if learned else volume._replace(label=None), len(recipe.classes))
        looks.append(found)
        if found.counts is not None:
            drawn = ~np.isin(np.arange(len(recipe.classes)), volume.undrawn)
            counts += found.counts[:-1]
            voxels += found.counts[:-1].sum() * drawn
    share = counts / np.maximum(voxels, 1)
    levels = np.median([found.levels for found in looks], axis=0)
    return {
        "cases": len(recipe.cases),
        "labelled": sum(case.labelled for case in recipe.cases),
        "labelled_patients": len(complete_patients(recipe.cases)),
        "channels": recipe.channels,
        "classes": list(recipe.classes),
        "voxels": _summary(seen.shape),
        "mm": _summary(seen.spacing),
        "extent": _summary(seen.shape * seen.spacing),
        "axes": {code: seen.axcodes.count(code) for code in sorted(set(seen.axcodes))},
        "levels": [dict(zip(map(str, LEVELS), row, strict=True)) for row in levels.tolist()],
        "share": dict(zip(recipe.classes, share.tolist(), strict=True)),
        "window": propose_window(looks, recipe.modalities),
    }


def _spread(cases):
    """Some of the cases, evenly over all."""
    count = min(_LOOKED_AT, len(cases))
    return [cases[i] for i in np.linspace(0, len(cases) - 1, count).round().astype(int)]


def _summary(values):
    found = {"least": values.min(0), "median": np.median(values, 0), "most": values.max(0)}
    return {name: row.tolist() for name, row in found.items()}
