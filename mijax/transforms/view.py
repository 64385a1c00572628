"""An invertible random transformation of unlabelled images, there and back."""

import math
from typing import NamedTuple

import jax

from mijax.transforms.affine import inverse_affine, sample_affine
from mijax.transforms.warp import GATHER_LIMIT, validity, warp


class View(NamedTuple):
    """One transformation T an image, as matrices of ``warp``.

    Attributes:
      matrix: (b, 3, 3), of T.
      inverse: (b, 3, 3), of T⁻¹.
      gathered: whether ``restore`` may gather its gradient (see ``warp``).
    """

    matrix: jax.Array
    inverse: jax.Array
    gathered: bool

    def apply(self, images):
        """T of (b, h, w, c) images or probability maps."""
        return warp(images, self.matrix)

    def restore(self, probs):
        """T⁻¹ of (b, h, w, k) probability maps; probabilities, since warped logits are none."""
        return warp(probs, self.inverse, inverse=self.matrix if self.gathered else None)

    def mask(self, shape):
        """(b, h, w) validity of ``restore(f(apply(x)))``, for shape (h, w)."""
        return validity(self.matrix, self.inverse, shape)


def sample_view(key, count, *, rotation=0.0, shear=0.0, scale=(1.0, 1.0), flip=False):
    """Draws ``count`` transformations; arguments and errors as of ``sample_affine``."""
    matrix = sample_affine(key, count, rotation=rotation, shear=shear, scale=scale, flip=flip)
    # ‖F⁻¹S⁻¹H⁻¹R⁻¹‖∞ is at most (1/scale) · (1 + tan shear) · max(|cos| + |sin|).
    turn = math.sqrt(2) * math.sin(math.radians(min(rotation, 45.0) + 45.0))
    bound = turn * (1 + math.tan(math.radians(shear))) / scale[0]
    return View(matrix, inverse_affine(matrix), bound <= GATHER_LIMIT)
