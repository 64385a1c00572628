"""Boxes that one image pastes into another: CutMix."""

import jax
import jax.numpy as jnp
import numpy as np

from mijax.transforms.checks import check_frame


def sample_boxes(key, count, shape, *, area=(0.02, 0.4), aspect=(0.3, 1 / 0.3), probability=1.0):
    """Random boxes inside a frame, one an image, as masks.

    Area and aspects are uniform in their ranges, and so is the place. A side that exceeds the
    frame is cut to it, where the authors of UniMatch draw again.

    Args:
      key: PRNG key.
      count: b.
      shape: (h, w) or (d, h, w) of the frame.
      area: (low, high), part of the frame: of its volume in 3-D.
      aspect: (low, high), height over width of the box in units of those of the frame. In 3-D, a
        second one is drawn: depth over the geometric mean of height and width.
      probability: of a box; an image without one has an empty mask.

    Returns:
      (b, *shape) float32, 1 in the box and 0 elsewhere.

    Raises:
      ValueError: for a range that is not one.

    Reference: Yun et al., CutMix, ICCV 2019; Yang et al., UniMatch, CVPR 2023.
    """
    check_boxes(area=area, aspect=aspect, probability=probability)
    area_key, aspect_key, place_key, present_key = jax.random.split(key, 4)
    part = jax.random.uniform(area_key, (count,), jnp.float32, minval=area[0], maxval=area[1])
    shape = check_frame(shape)
    draws = (count,) if len(shape) == 2 else (count, 2)
    ratio = jax.random.uniform(aspect_key, draws, jnp.float32, minval=aspect[0], maxval=aspect[1])
    if len(shape) == 3:
        ratio, depth = ratio.T
        mean = jnp.cbrt(part / depth)  # of height and width
        part = mean**2
    sides = jnp.sqrt(part[:, None] * jnp.stack([ratio, 1 / ratio], -1))
    if len(shape) == 3:
        sides = jnp.concatenate([(depth * mean)[:, None], sides], -1)
    boxes = place_boxes(place_key, sides, shape)
    one_each = (count, *[1] * len(shape))
    present = jax.random.bernoulli(present_key, jnp.float32(probability), one_each)
    return jnp.where(present, boxes, 0.0)


def place_boxes(key, sides, shape):
    """Boxes of given sides, each at a random place of the frame that holds it whole.

    Args:
      key: PRNG key.
      sides: (b, 2) or (b, 3), as parts of those of the frame; cut to 1, and down to whole pixels.
      shape: (h, w) or (d, h, w) of the frame.

    Returns:
      (b, *shape) float32, 1 in the box and 0 elsewhere.

    Raises:
      ValueError: for sides or a frame of another shape.
    """
    sides, frame = jnp.asarray(sides, jnp.float32), np.array([check_frame(shape)], np.int32)
    if sides.ndim != 2 or sides.shape[1] != len(shape):
        raise ValueError(f"sides are (b, {len(shape)}), not {sides.shape}")
    # A side of 2/3 of 96 pixels is 64 pixels, though 2/3 · 96 is 63.999996.
    lengths = jnp.floor(sides * np.float32(frame) + 1e-4).astype(jnp.int32)
    lengths = jnp.clip(lengths, 0, frame)
    first = jax.random.randint(key, lengths.shape, 0, frame - lengths + 1, jnp.int32)
    inside, axes = True, range(1, len(shape) + 1)
    for axis, n in zip(axes, shape, strict=True):
        pixel = np.arange(n, dtype=np.int32)[None]
        start, end = first[:, axis - 1, None], (first + lengths)[:, axis - 1, None]
        line = (pixel >= start) & (pixel < end)
        inside &= jnp.expand_dims(line, [a for a in axes if a != axis])
    return inside.astype(jnp.float32)


def paste(boxes, images, others):
    """The others inside the boxes, the images outside: both (b, *space) or (b, *space, k).

    What is pasted may be images, labels, confidences or probabilities; a NaN of the side that is
    not taken is not taken. One box, (1, *space), does for all of them.

    Raises:
      ValueError: for images and others of two shapes, or boxes that are not theirs.
    """
    if images.shape != others.shape:
        raise ValueError(f"images and others of one shape, not {images.shape}, {others.shape}")
    ndim = boxes.ndim if boxes.ndim in (3, 4) else images.ndim - 1
    space = images.shape[:ndim]
    if images.ndim not in (ndim, ndim + 1) or boxes.shape not in (space, (1, *space[1:])):
        raise ValueError(f"images {images.shape} have boxes {space}, not {boxes.shape}")
    inside = boxes > 0
    return jnp.where(inside[..., None] if images.ndim > inside.ndim else inside, others, images)


def check_boxes(*, area, aspect, probability):
    """Raises ValueError where ``sample_boxes`` could not draw from these ranges."""
    if np.shape(area) != (2,) or not 0 <= area[0] <= area[1] <= 1:
        raise ValueError(f"area is (low, high) with 0 <= low <= high <= 1, not {area}")
    if np.shape(aspect) != (2,) or not 0 < aspect[0] <= aspect[1]:
        raise ValueError(f"aspect is (low, high) with 0 < low <= high, not {aspect}")
    if not 0 <= probability <= 1:
        raise ValueError(f"probability is between 0 and 1, not {probability}")
