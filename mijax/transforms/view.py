"""An invertible random transformation of unlabelled images, there and back."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from mijax.transforms.affine import inverse_affine, sample_affine
from mijax.transforms.checks import check_frame
from mijax.transforms.warp import EDGE, GATHER_LIMIT, coverage, validity, warp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class View:
    """One transformation T an image, as matrices of ``warp``.

    It applies to the images and to feature maps of a lower resolution alike. A pytree of its
    matrices: jitted functions take and return it, and compile anew where its other attributes
    are others.

    Attributes:
      matrix: (b, n + 1, n + 1), of T.
      inverse: (b, n + 1, n + 1), of T⁻¹.
      norms: bounds of the absolute row sums of the two; within the limit of ``warp``, ``restore``
        and ``apply`` gather their gradients.
      frame: the shape whose pixels the matrices count; None if they count those of every shape.
      in_plane: whether T keeps slices of a volume slices (see ``warp``).
    """

    matrix: jax.Array
    inverse: jax.Array
    norms: tuple[float, float] = dataclasses.field(metadata={"static": True})
    frame: tuple[int, ...] | None = dataclasses.field(metadata={"static": True})
    in_plane: bool = dataclasses.field(metadata={"static": True})

    def apply(self, images):
        """T of (b, *space, c) images, features or probability maps."""
        matrix, inverse, (_, gathered) = self._matrices(images.shape[1:-1])
        inverse = inverse if gathered else None
        return warp(images, matrix, inverse=inverse, in_plane=self.in_plane)

    def restore(self, probs):
        """T⁻¹ of (b, *space, k) probability maps; probabilities, since warped logits are none."""
        matrix, inverse, (gathered, _) = self._matrices(probs.shape[1:-1])
        matrix = matrix if gathered else None
        return warp(probs, inverse, inverse=matrix, in_plane=self.in_plane)

    def mask(self, shape):
        """(b, *shape) validity of ``restore(f(apply(x)))``: 0 or 1."""
        return validity(*self._matrices(shape)[:2], shape)

    def inside(self, shape):
        """(b, *shape) validity of ``apply(x)``: 0 or 1."""
        return (coverage(self._matrices(shape)[0], shape) > 1 - EDGE).astype(jnp.float32)

    def _matrices(self, shape):
        """T and T⁻¹ in pixels of a map of this shape, and whether each is within the limit."""
        shape = check_frame(shape, self.matrix.shape[-1] - 1)
        matrices, stretch = (self.matrix, self.inverse), 1.0
        if self.frame not in (None, shape):
            zoom = np.divide(shape, self.frame)  # Z M Z⁻¹, each axis by its own
            factor = np.outer([*zoom, 1.0], [*(1 / zoom), 1.0])[None]
            matrices = [m * jnp.asarray(factor, m.dtype) for m in matrices]
            turned = _turned(zoom, self.in_plane)
            stretch = turned.max() / turned.min()
        return *matrices, [norm * stretch <= GATHER_LIMIT for norm in self.norms]


def sample_view(
    key,
    count,
    *,
    rotation=0.0,
    shear=0.0,
    scale=(1.0, 1.0),
    flip=0.0,
    translation=0.0,
    spacing=None,
    shape=None,
    dims=2,
):
    """Draws ``count`` transformations.

    Args:
      key, count, rotation, shear, scale, flip, spacing: see ``sample_affine``, in 3-D as well.
      translation: uniform in ± this part of each side of the frame; of height and width alone
        where one number of ``rotation`` keeps slices slices.
      shape: of that frame, (h, w) or (d, h, w), needed with a translation. It lets maps whose axes
        are pooled by different factors turn as the frame does.
      dims: spatial axes where no ``shape`` shows them.

    Returns:
      ``View``.

    Raises:
      ValueError: for a range that is not one, or a translation without ``shape``.

    >>> images = jax.random.uniform(jax.random.key(0), (4, 8, 8, 1))
    >>> view = sample_view(jax.random.key(1), len(images), flip=0.5)
    >>> bool((view.restore(view.apply(images)) == images).all())  # flips are exact
    True
    >>> view = sample_view(jax.random.key(1), len(images), rotation=30.0)
    >>> view.mask((8, 8))[0, [0, 4], [0, 4]]  # turning takes the corner out, not the centre
    Array([0., 1.], dtype=float32)
    """
    if np.ndim(translation):
        raise ValueError(f"translation is one part of the sides of the frame, not {translation}")
    if translation and shape is None:
        raise ValueError("a translation needs the shape of the frame")
    if shape is not None:
        shape = check_frame(shape)
        dims = len(shape)
    ranges = {"rotation": rotation, "shear": shear, "scale": scale, "flip": flip}
    in_plane = np.ndim(rotation) == 0
    pixels = None
    if translation:
        pixels = [translation * n for n in shape]
        pixels = [0.0, *pixels[1:]] if in_plane and dims == 3 else pixels
    matrix = sample_affine(key, count, **ranges, translation=pixels, spacing=spacing, dims=dims)
    spacing = np.ones(dims) if spacing is None else np.float64(spacing)
    bound = _norm(rotation, shear, _turned(spacing, in_plane))
    norms = bound / scale[0], bound * scale[1]
    return View(matrix, inverse_affine(matrix), norms, shape, in_plane)


def _turned(by_axis, in_plane):
    """Of numbers by axis, those of the axes that a view turns."""
    return by_axis[-2:] if in_plane else by_axis


def _norm(rotation, shear, spacing):
    """A bound of ‖D⁻¹ R H S F D‖∞ and of that of the inverse, but for the scale.

    Norms multiply. That of the shear is 1 + ρ tan, and that of one turn at most |cos| + ρ |sin|,
    with the largest ratio ρ of the two sides of a pixel in its plane. A row of R has length 1, so
    that however many turns there are, Σ_j |R_ij| D_j / D_i ≤ ‖D‖₂ / D_i: √n with equal sides.
    """
    turn = 1.0
    for axis, angle in enumerate(np.ravel(rotation)):
        sides = np.delete(spacing, axis) if len(spacing) == 3 else spacing
        ratio = max(sides) / min(sides)
        angle = min(math.radians(angle), math.atan(ratio))
        turn *= math.cos(angle) + ratio * math.sin(angle)
    turn = min(turn, np.linalg.norm(spacing) / min(spacing))
    return float(turn * (1 + spacing[-1] / spacing[-2] * math.tan(math.radians(shear))))
