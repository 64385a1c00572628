"""Convolutions of 2×2 blocks of pixels: a grid half as fine, with four times the channels.

The channels of a block are those of its pixels, one after another: upper left, upper right, lower
left, lower right.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax

# (offset of the block, row in it, row of the result in its block, tap): 1 where a 3-tap kernel sees
# that row with that tap.
_SEES = np.array(
    [
        [[[2 * (d - 1) + s - p + 1 == a for a in range(3)] for p in (0, 1)] for s in (0, 1)]
        for d in range(3)
    ],
    np.float32,
)


class UpConv(nn.Module):
    """Nearest-neighbour upsampling ×2 and then a 3×3 convolution, zero-padded, no bias.

    Computed on the small image, where no copy is upsampled: each of its pixels becomes a block,
    by a 2×2 convolution each. The same result to rounding, and the same parameter, as ``nn.Conv``
    after ``repeat``.

    Attributes:
      features: channels of the result, o.
      dtype: of the result; the kernel is float32.
      kernel_init: initialiser of the kernel (3, 3, c, o).
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        """(b, h, w, c) -> (b, h, w, 4 · o)."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        x = x.astype(self.dtype)
        taps = [[tap.astype(self.dtype) for tap in row] for row in _taps(kernel)]
        # A CPU is fastest with the fewest multiplications, all others with the fewest programs.
        return lax.platform_dependent(x, taps, cpu=_one_by_one, default=_at_once)


class BlockConv(nn.Module):
    """A 3×3 convolution, zero-padded, no bias, of images in blocks.

    One of blocks with four times the channels, in and out, most of whose taps are 0: for TPUs,
    whose lanes a few channels leave empty. The same result to rounding, and the same parameter, as
    ``nn.Conv`` of the pixels. Attributes as of ``UpConv``.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, *images):
        """(b, h, w, 4 · c_i) each -> (b, h, w, 4 · o), of the pixels with all of these channels."""
        each = [x.shape[-1] // 4 for x in images]
        kernel = self.param("kernel", self.kernel_init, (3, 3, sum(each), self.features))
        parts = [
            jnp.einsum("dspa,etqb,abio->destipqo", _SEES, _SEES, part, precision="highest")
            for part in jnp.split(kernel, np.cumsum(each)[:-1], axis=2)
        ]
        kernel = jnp.concatenate([k.reshape(3, 3, -1, 4 * self.features) for k in parts], axis=2)
        x = jnp.concatenate(images, axis=-1).astype(self.dtype)
        return _convolve(x, kernel.astype(self.dtype), "SAME")


class BlockDense(nn.Module):
    """A 1×1 convolution with a bias, in float32, of images in blocks.

    The same result and the same parameters as ``nn.Conv`` of the pixels.

    Attributes:
      features: channels of the result, o.
    """

    features: int

    @nn.compact
    def __call__(self, x):
        """(b, h, w, 4 · c) -> (b, h, w, 4 · o)."""
        shape = (1, 1, x.shape[-1] // 4, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel = jnp.kron(np.eye(4, dtype=np.float32), kernel[0, 0])
        return x.astype(jnp.float32) @ kernel + jnp.tile(bias, 4)[None, None, None]


def to_blocks(x):
    """(b, 2h, 2w, c) -> (b, h, w, 4 · c)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)


def to_pixels(x):
    """(b, h, w, 4 · c) -> (b, 2h, 2w, c)."""
    b, h, w, c = x.shape
    return x.reshape(b, h, w, 2, 2, c // 4).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c // 4)


def _taps(kernel):
    """Kernels (2, 2, c, o) on the small image by parity of the row and of the column.

    Of a 3-tap kernel on rows that each stand twice, the taps that fall on the same row add up:
    even rows see the row above and their own, odd rows their own and the row below.
    """

    def by_parity(k):  # of the leading axis
        return jnp.stack([k[0], k[1] + k[2]]), jnp.stack([k[0] + k[1], k[2]])

    rows = (jnp.swapaxes(k, 0, 1) for k in by_parity(kernel))
    return [[jnp.swapaxes(k, 0, 1) for k in by_parity(row)] for row in rows]


def _one_by_one(x, taps):
    each = [_convolve(x, taps[p][q], ((1 - p, p), (1 - q, q))) for p in (0, 1) for q in (0, 1)]
    return jnp.stack(each, axis=3).reshape(*x.shape[:3], -1)


def _at_once(x, taps):
    # A 3×3 convolution to four times the channels, in whose kernels five of nine taps are 0.
    each = [
        jnp.pad(taps[p][q], ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0)))
        for p in (0, 1)
        for q in (0, 1)
    ]
    return _convolve(x, jnp.concatenate(each, axis=-1), "SAME")


def _convolve(x, kernel, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers)
