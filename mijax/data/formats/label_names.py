"""Names and colours of the classes, as the editors of masks read them."""

from collections.abc import Sequence
from pathlib import Path

from mijax.files import write_atomically

LABEL_NAMES = "label_names.txt"  # of ITK-SNAP
_COLOURS = (  # Okabe and Ito's, told apart by people of every colour vision
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66),
    (0, 114, 178), (213, 94, 0), (204, 121, 167),
)  # fmt: skip


def colour_of(label: int) -> tuple[int, int, int]:
    """Red, green and blue, 0 to 255, of a label from 1 on."""
    return _COLOURS[(label - 1) % len(_COLOURS)]


def write_label_names(folder: Path, classes: Sequence[str]) -> tuple[Path, Path]:
    """Writes label_names.txt for ITK-SNAP and label_names.ctbl for 3D Slicer.

    Args:
      folder: to write to; files that are there are written anew.
      classes: names, the index is the label value and the first is the background.

    Returns:
      Their paths.
    """
    colours = [(0, 0, 0), *map(colour_of, range(1, len(classes)))]
    rows = list(enumerate(zip(classes, colours, strict=True)))
    # ITK-SNAP: index, red, green, blue, opacity, whether it is shown, also in 3-D, the name.
    snap = [
        f'{i} {r} {g} {b} {i > 0:d} {i > 0:d} {i > 0:d} "{name.replace(chr(34), chr(39))}"'
        for i, (name, (r, g, b)) in rows
    ]
    # 3D Slicer: index, name in one word, red, green, blue, opacity.
    slicer = [
        f"{i} {'_'.join(name.split())} {r} {g} {b} {255 * (i > 0)}" for i, (name, (r, g, b)) in rows
    ]
    paths = folder / LABEL_NAMES, (folder / LABEL_NAMES).with_suffix(".ctbl")
    for path, lines in zip(paths, (snap, slicer), strict=True):
        write_atomically(path, "\n".join(["# of mijax", *lines]) + "\n")
    return paths
