"""Upsampling and convolution in one, without the pixels that upsampling repeats."""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax


class UpConv(nn.Module):
    """Nearest-neighbour upsampling ×2 and then a 3×3 convolution, zero-padded, no bias.

    Computed on the small image, where no copy is upsampled: each of its pixels becomes four, each
    a 2×2 convolution. The same result to rounding, and the same parameter, as ``nn.Conv`` after
    ``repeat``.

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
        """(b, h, w, c) -> (b, h, w, 4, o), of which ``interleave`` makes (b, 2h, 2w, o)."""
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        x = x.astype(self.dtype)
        taps = [[tap.astype(self.dtype) for tap in row] for row in _taps(kernel)]
        # A CPU is fastest with the fewest multiplications, all others with the fewest programs.
        return lax.platform_dependent(x, taps, cpu=_one_by_one, default=_at_once)


def interleave(x):
    """The four pixels that each has become, to their places: (b, h, w, 4, c) -> (b, 2h, 2w, c)."""
    b, h, w, _, c = x.shape
    return x.reshape(b, h, w, 2, 2, c).swapaxes(2, 3).reshape(b, 2 * h, 2 * w, c)


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
    return jnp.stack(each, axis=3)


def _at_once(x, taps):
    # A 3×3 convolution to four times the channels, in whose kernels five of nine taps are 0.
    each = [
        jnp.pad(taps[p][q], ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0)))
        for p in (0, 1)
        for q in (0, 1)
    ]
    y = _convolve(x, jnp.concatenate(each, axis=-1), "SAME")
    return y.reshape(*x.shape[:3], 4, -1)


def _convolve(x, kernel, padding):
    numbers = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=numbers)
