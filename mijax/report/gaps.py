"""The gap to full supervision, and the baselines that a row is held against."""

from mijax.methods import FULL, PARTIAL

_TINY = 1e-12


def competitors(rows):
    """Indices of the rows that are held against each other.

    Not full supervision, which is the bound, unless there is nothing else.
    """
    return [i for i, row in enumerate(rows) if row.kind != FULL] or list(range(len(rows)))


def gaps_closed(rows, cells):
    """(method − partial) / (full − partial) of each row, against the fitting baselines."""
    gaps = []
    for row, cell in zip(rows, cells, strict=True):
        full, partial = (baseline(row, rows, base) for base in (FULL, PARTIAL))
        gap = None
        if row.kind != FULL and row.base != PARTIAL and None not in (full, partial, cell.mean):
            width = cells[full].mean - cells[partial].mean
            gap = (cell.mean - cells[partial].mean) / width if width > _TINY else None
        gaps.append(gap)
    return gaps


def baseline(row, rows, base):
    """Index of the baseline trained like the row: the only one, or the one of equal settings.

    With ``base`` PARTIAL it had the very same labels, of as much of each case.
    """

    def shared(other):
        ours = ("method.", "teacher.", "init_from.", "data.splits.labelled", "data.splits.file")
        return {k: v for k, v in other.settings.items() if not k.startswith(ours)}

    found = [
        i
        for i, other in enumerate(rows)
        if other.base == base and (base == FULL or other.labels == row.labels)
    ]
    equal = [i for i in found if shared(rows[i]) == shared(row)]
    chosen = equal or found
    return chosen[0] if len(chosen) == 1 else None
