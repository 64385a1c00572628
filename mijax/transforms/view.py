"""An invertible random transformation of unlabelled images, there and back."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mijax.transforms.affine import inverse_affine, sample_affine
from mijax.transforms.warp import EDGE, GATHER_LIMIT, check_frame, coverage, validity, warp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """One transformation T an image, as matrices of ``warp``.

    It applies to the images and to feature maps of a lower resolution alike. A pytree of its
    matrices: jitted functions take and return it, and compile anew where ``gathered`` or
    ``height`` is another one.

    Attributes:
      matrix: (b, 3, 3), of T.
      inverse: (b, 3, 3), of T⁻¹.
      gathered: whether ``apply`` and ``restore`` may gather their gradients (see ``warp``).
      height: pixels of the frame whose pixels the translations count; None without translations.
    """

    matrix: jax.Array
    inverse: jax.Array
    gathered: tuple[bool, bool] = dataclasses.field(metadata={"static": True})
    height: int | None = dataclasses.field(metadata={"static": True})

    def apply(self, images):
        """T of (b, h, w, c) images, features or probability maps."""
        matrix, inverse = self._matrices(images.shape[1])
        return warp(images, matrix, inverse=inverse if self.gathered[0] else None)

    def restore(self, probs):
        """T⁻¹ of (b, h, w, k) probability maps; probabilities, since warped logits are none."""
        matrix, inverse = self._matrices(probs.shape[1])
        return warp(probs, inverse, inverse=matrix if self.gathered[1] else None)

    def mask(self, shape):
        """(b, h, w) validity of ``restore(f(apply(x)))``, for shape (h, w): 0 or 1."""
        return validity(*self._matrices(shape[0]), shape)

    def inside(self, shape):
        """(b, h, w) validity of ``apply(x)``, for shape (h, w): 0 or 1."""
        return (coverage(self._matrices(shape[0])[0], shape) > 1 - EDGE).astype(jnp.float32)

    def _matrices(self, height):
        if self.height in (None, height):
            return self.matrix, self.inverse
        factor = jnp.ones((1, 3, 3), self.matrix.dtype).at[:, :2, 2].set(height / self.height)
        return self.matrix * factor, self.inverse * factor


def sample_view(
    key,
    count,
    *,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=False,
    translation=0.0,
    shape=None,
):
    """Draws ``count`` transformations.

    Args:
      key, count, rotation, shear, scale, flip: see ``sample_affine``.
      translation: uniform in ± this part of the frame's height and width.
      shape: (h, w) of that frame, needed with a translation.

    Returns:
      ``View``.

    Raises:
      ValueError: for a range that is not one, or a translation without ``shape``.

    >>> images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    >>> view = sample_view(jax.random.key(1), len(images), flip=True)
    >>> bool((view.restore(view.apply(images)) == images).all())  # flips are exact
    True
    >>> view = sample_view(jax.random.key(1), len(images), rotation=30.0)
    >>> view.mask((8, 8))[0, [0, 4], [0, 4]]  # turning takes the corner out, not the centre
    Array([0., 1.], dtype=float32)
    """
    if np.ndim(translation):
        raise ValueError(f"translation is one part of height and width, not {translation}")
    if translation and shape is None:
        raise ValueError("a translation needs the shape of the frame")
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    pixels = tuple(translation * n for n in check_frame(shape)) if translation else (0.0, 0.0)
    matrix = sample_affine(key, count, **ranges, translation=pixels)
    # The norms ‖·‖∞ of RHSF and of its inverse are at most (1 + tan shear) · max(|cos| + |sin|)
    # times the scale, or over it.
    turn = math.sqrt(2) * math.sin(math.radians(min(rotation, 45.0) + 45.0))
    bound = turn * (1 + math.tan(math.radians(shear)))
    gathered = bound * scale[1] <= GATHER_LIMIT, bound / scale[0] <= GATHER_LIMIT
    return View(matrix, inverse_affine(matrix), gathered, shape[0] if translation else None)
