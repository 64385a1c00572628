"""What tells rows apart: the settings in which they differ, and short labels made of those."""

import json
import os

from mijax.errors import UserError

_ORIGIN = "init_from.method.name"


def short_labels(rows):
    """The label of each row: its base, and the values that few rows of that base have.

    A value that more than half of them share is left out, so that the usual one has the base
    alone; no two labels are the same.

    Args:
      rows: of ``runs.Row``; no two have the same settings.
    """
    labels = [row.base for row in rows]
    for base in set(labels):
        places = [i for i, row in enumerate(rows) if row.base == base]
        found = differences([rows[i] for i in places])
        for name, values in zip(_short_keys(found), found.values(), strict=True):
            texts = [_text(value) for value in values]
            for i, text in zip(places, texts, strict=True):
                if 2 * texts.count(text) <= len(texts):
                    labels[i] += f", {name}={text}"
    return labels


def given_labels(rows, names, folders):
    """Rows with labels of the user's.

    Args:
      rows: of ``runs.Row``.
      names: texts, one a row, in the order in which the rows are among ``folders``.
      folders: of all runs, as they were given.

    Raises:
      UserError: not one for each row; two alike, or one that cannot be shown.
    """
    given = sorted(
        range(len(rows)), key=lambda i: min(folders.index(one.run.folder) for one in rows[i].runs)
    )
    if len(names) != len(rows):
        labels = "; ".join(rows[i].label for i in given)
        raise UserError(
            f"--names takes one name for each row, not {len(names)}; the rows are, in this order: "
            f"{labels}"
        )
    for name in names:
        if not name.strip() or not name.isprintable() or names.count(name) > 1:
            raise UserError(f"--names: {name!r} is empty, there twice or not printable")
    chosen = dict(zip(given, names, strict=True))
    return [row._replace(label=chosen[i]) for i, row in enumerate(rows)]


def differences(rows):
    """Settings in which rows differ: ``{key: [value of each row, None where it has none]}``.

    Of paths it is what is left behind the folder that all of them are in.

    What one row was pre-trained with is no difference from rows that were not, but for the
    method.
    """
    settings = [row.settings for row in rows]
    keys = dict.fromkeys(key for each in settings for key in each)
    found = {}
    for key in keys:
        within = key.startswith("init_from.") and key != _ORIGIN
        values = {json.dumps(each.get(key)) for each in settings if _ORIGIN in each or not within}
        if len(values) > 1:
            found[key] = _within([each.get(key) for each in settings])
    return found


def _short_keys(keys):
    """The last parts of dotted keys, as many as it takes to tell them apart."""

    def ending(key, length):
        return ".".join(key.split(".")[-length:])

    found = []
    for key in keys:
        length = 1
        while sum(ending(other, length) == ending(key, length) for other in keys) > 1:
            length += 1
        found.append(ending(key, length))
    return found


def _within(values):
    """The values, paths among them as they are from the folder that all of these are in."""
    paths = [value for value in values if isinstance(value, str) and os.path.isabs(value)]
    shared = os.path.commonpath(map(os.path.dirname, paths)) if paths else ""
    return [os.path.relpath(value, shared) if value in paths else value for value in values]


def _text(value):
    """A value as a flag has it, without blanks, at which a label is broken into lines."""
    if value is None:
        return "absent"
    if isinstance(value, list | tuple):
        return f"({','.join(map(_text, value))})"
    return str(value)
