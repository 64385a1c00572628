"""Figures of what the networks see: joint distributions, marginals, clusters."""

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from mijax.report.figures import LINE, wrapped

_LEAST = 1e-4  # probabilities below share a colour


def joint_distributions(joints, classes):
    """3 × 3 displacements of k × k heat maps a row, in %, on one logarithmic scale."""
    columns = min(3, len(joints))
    lines = -(-len(joints) // columns)
    size = 3.4
    figure = Figure(figsize=(size * columns + 0.6, (size + 0.35) * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    k = len(classes)
    for ax, (label, joint, information) in zip(axes, joints, strict=False):
        # Blocks with an empty row and column between them.
        tiles = np.full((3 * k + 2, 3 * k + 2), np.nan)
        for i in range(3):
            for j in range(3):
                top, left = i * (k + 1), j * (k + 1)
                tiles[top : top + k, left : left + k] = joint[i, j]
        shown = _heat(ax, tiles)
        if k <= 4:
            _numbers(ax, tiles, fontsize={2: 8, 3: 6.5}.get(k, 5))
        ax.set_title(f"{wrapped(label, 42)}\nI = {information:.3f} nats", fontsize=8)
        middles = [i * (k + 1) + (k - 1) / 2 for i in range(3)]
        ax.set_xticks(middles, ["dx −1", "0", "+1"])
        ax.set_yticks(middles, ["dy −1", "0", "+1"])
        ax.tick_params(length=0, labelsize=6.5)
    for ax in axes[len(joints) :]:
        ax.remove()
    _bar(figure, shown, axes[: len(joints)])
    return figure


def marginals(joints, classes):
    """P of each class, of the image and of its transformed copy, a line a row.

    Of many classes columns are narrow: their names stand upright, and numbers are left out.
    """
    middle = [joint.joint[1, 1] for joint in joints]
    values = np.array([[joint.sum(1), joint.sum(0)] for joint in middle])  # (rows, 2, k)
    k = len(classes)
    labels = [wrapped(joint.label, 42) for joint in joints]
    each = max(0.3, 0.12 + LINE * (1 + max(label.count("\n") for label in labels)))
    inch = max(LINE, min(0.75, 9 / k))  # a class across
    narrow, longest = inch < 0.3, max(map(len, classes))
    below = 0.9 + 0.06 * longest * narrow
    figure = Figure(
        figsize=(2.4 + 2 * max(inch * k, 1.6), below + each * len(joints)), layout="constrained"
    )
    axes = figure.subplots(1, 2, sharey=True)
    for ax, part, title in zip(axes, range(2), ("f(x)", "T⁻¹ f(T x)"), strict=True):
        _heat(ax, values[:, part])
        if not narrow:
            _numbers(ax, values[:, part], fontsize=7)
        ax.set_title(title)
        ax.set_xticks(
            range(k), classes, rotation=90 if narrow else 30 if longest > 8 * inch / 0.75 else 0
        )
        ax.tick_params(length=0)
    axes[0].set_yticks(range(len(joints)), labels)
    return figure


def cluster_maps(found):
    """Slices, and under them the clusters of each row; the slices again where it sees others."""
    lines, before = [], None
    for row in found:
        if before is None or not np.array_equal(row.images, before):
            low, high = np.percentile(row.images, [0.5, 99.5])
            grey = np.clip((row.images - low) / max(high - low, 1e-6), 0, 1)
            lines.append((row, "Image", colormaps["gray"](grey)))
        before = row.images
        text = f"{row.label}: {len(np.unique(row.maps))} of {row.count} clusters"
        lines.append((row, text, _coloured(row.maps, row.images)))
    columns = len(found[0].images)
    heights = [
        max(w / h / aspect for h, w, aspect in [(*row.images.shape[1:], a) for a in row.aspect])
        for row, *_ in lines
    ]
    width = 2.5
    figure = Figure(figsize=(width * columns + 0.4, width * sum(heights)), layout="constrained")
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for (row, text, pictures), line, height in zip(lines, axes, heights, strict=True):
        for ax, picture, aspect in zip(line, pictures, row.aspect, strict=True):
            ax.imshow(turned(picture), aspect=1 / aspect, interpolation="nearest")
            ax.grid(False)
            ax.set(xticks=[], yticks=[])
            ax.spines[:].set_visible(False)
        line[0].set_ylabel(wrapped(text, int(13 * width * height)))
    return figure


def _coloured(maps, images):
    """Colours (n, h, w, 4) of cluster maps: clusters of like intensity have like ones."""
    clusters, index, counts = np.unique(maps, return_inverse=True, return_counts=True)
    index = index.reshape(maps.shape)
    order = (np.bincount(index.ravel(), images.ravel()) / counts).argsort()
    # Those that fill the picture are further apart than those of a few pixels.
    share = np.sqrt(counts[order])
    places = np.empty(len(clusters))
    places[order] = (share.cumsum() - share / 2) / share.sum()
    return colormaps["turbo"](0.03 + 0.94 * places)[index]


def turned(image):
    """(h, w, …) in RAS+ order as radiologists look at it: anterior or superior up, right left."""
    return image.swapaxes(0, 1)[::-1, ::-1]


def _heat(ax, values):
    ax.grid(False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    clipped = np.where(np.isnan(values), np.nan, np.maximum(values, _LEAST))
    return ax.imshow(clipped, cmap="cividis", norm=LogNorm(_LEAST, 1), aspect="auto")


def _numbers(ax, values, *, fontsize):
    for (i, j), value in np.ndenumerate(values):
        if not np.isnan(value):
            percents = 100 * value
            text = f"{percents:.0f}" if percents >= 9.95 else f"{percents:.1f}"
            colour = "black" if value > 0.03 else "white"
            ax.text(j, i, text, ha="center", va="center", fontsize=fontsize, color=colour)


def _bar(figure, shown, axes):
    bar = figure.colorbar(shown, ax=list(axes), fraction=0.03, pad=0.01)
    bar.set_ticks([1e-4, 1e-3, 1e-2, 1e-1, 1], labels=["≤ 0.01", "0.1", "1", "10", "100"])
    bar.set_label("probability (%)")
    bar.outline.set_visible(False)
