"""What images, label maps and frames look like, in two and in three dimensions."""

import jax.numpy as jnp
import numpy as np


def check_images(images):
    """The images as an array; raises ValueError for what is no batch of floats with channels."""
    images = jnp.asarray(images)
    if images.ndim not in (4, 5):
        raise ValueError(f"images are (b, h, w, c) or (b, d, h, w, c), not {images.shape}")
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(f"images are floats, not {images.dtype}; see warp_labels for labels")
    return images


def check_labels(labels):
    """Raises ValueError for what is no batch of label maps."""
    if jnp.ndim(labels) not in (3, 4) or not jnp.issubdtype(labels.dtype, jnp.integer):
        given = f"{jnp.shape(labels)} {labels.dtype}"
        raise ValueError(f"labels are (b, h, w) or (b, d, h, w) integers, not {given}")


def check_frame(shape, dims=None):
    """The shape as a tuple; raises ValueError for what is not two or three numbers, or ``dims``."""
    wanted = {2: "(height, width)", 3: "(depth, height, width)"}
    wanted = wanted if dims is None else {dims: wanted[dims]}
    if np.ndim(shape) != 1 or len(shape) not in wanted:
        raise ValueError(f"a shape is {' or '.join(wanted.values())}, not {shape}")
    return tuple(shape)


def wide(x):
    """``x`` in float32, or in float64 if it is."""
    x = jnp.asarray(x)
    return x.astype(jnp.float64 if x.dtype == jnp.float64 else jnp.float32)
