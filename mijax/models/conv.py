"""Convolutions over two or three axes, and upsampling in front of one."""

import itertools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax


class Conv(nn.Module):
    """A convolution, zero-padded to the size of its images: ``nn.Conv`` with the same parameters.

    In 3-D a CPU convolves slices, one tap of the depth after the other: XLA's own 3-D convolution
    takes it three to five times as long.

    Attributes:
      features: channels of the result, o.
      kernel: odd size by axis.
      use_bias: whether a bias is added.
      dtype: of the result; parameters are float32.
      kernel_init: initialiser of the kernel (*kernel, c, o).
    """

    features: int
    kernel: Sequence[int]
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        """(b, *space, c) -> (b, *space, o)."""
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        padding = [(size // 2, size // 2) for size in self.kernel]
        y = convolve(x.astype(self.dtype), kernel.astype(self.dtype), padding)
        if not self.use_bias:
            return y
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        return y + bias.astype(self.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


class UpConv(nn.Module):
    """Nearest-neighbour upsampling and then a convolution, zero-padded, no bias.

    Computed on the small image, where no copy is upsampled: each of its pixels becomes a block,
    each pixel of which is a convolution with a smaller kernel. The same result to rounding, and
    the same parameter, as ``nn.Conv`` after ``repeat``.

    Attributes:
      features: channels of the result, o.
      kernel: size by axis, 1 or 3.
      strides: factor of the upsampling by axis, 1 or 2.
      dtype: of the result; the kernel is float32.
      kernel_init: initialiser of the kernel (*kernel, c, o).
    """

    features: int
    kernel: Sequence[int]
    strides: Sequence[int]
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x):
        """(b, *space, c) -> (b, *space, p · o), p pixels a block, in the order of ``to_pixels``."""
        shape = (*self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        x = x.astype(self.dtype)
        paddings = _paddings(self.kernel, self.strides)
        taps = [k.astype(self.dtype) for k in _taps(kernel, self.strides)]
        # A CPU is fastest with the fewest multiplications, all others with the fewest programs.
        return lax.platform_dependent(
            x,
            taps,
            cpu=lambda x, taps: _one_by_one(x, taps, paddings),
            default=lambda x, taps: _at_once(x, taps, paddings),
        )


def convolve(x, kernel, padding):
    """Convolution (b, *space, c), (*size, c, o) -> (b, *space, o); as many pixels as before.

    ``padding`` is of zeros before and after each axis, one less than the size together.
    """
    if x.ndim == 4:
        return _direct(x, kernel, padding)
    return lax.platform_dependent(
        x,
        kernel,
        cpu=lambda x, kernel: _by_slices(x, kernel, padding),
        default=lambda x, kernel: _direct(x, kernel, padding),
    )


def _direct(x, kernel, padding):
    letters = "DHW"[5 - x.ndim :]
    numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
    strides = (1,) * len(letters)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers)


def _by_slices(x, kernel, padding):
    """2-D convolutions of all slices, one a tap of the depth, shifted by its place and added up.

    Of the results, not the images, so that none but x is kept for the gradient.
    """
    slices, (before, _) = x.reshape(-1, *x.shape[2:]), padding[0]

    def at(tap):
        y = _direct(slices, kernel[tap], padding[1:])
        shift = (before - tap, tap - before, 0)
        zero = jnp.zeros((), y.dtype)
        return lax.pad(y.reshape(*x.shape[:-1], -1), zero, [(0, 0, 0), shift, *3 * [(0, 0, 0)]])

    total = at(0)
    for tap in range(1, len(kernel)):
        total += at(tap)
    return total


def _taps(kernel, strides):
    """Kernels on the small image of the pixels of a block, the last axis running fastest.

    Of a 3-tap kernel on rows that each stand twice, the taps that fall on the same row add up:
    even rows see the row above and their own, odd rows their own and the row below.
    """
    each = [kernel]
    for axis, stride in enumerate(strides):
        each = [part for k in each for part in _by_parity(k, axis, stride)]
    return each


def _by_parity(kernel, axis, stride):
    if stride == 1 or kernel.shape[axis] == 1:
        return [kernel] * stride
    above, own, below = jnp.split(kernel, 3, axis)
    return [
        jnp.concatenate([above, own + below], axis),
        jnp.concatenate([above + own, below], axis),
    ]


def _paddings(kernel, strides):
    """Those of the images that go with ``_taps``."""
    return list(
        itertools.product(
            *(
                ((1, 0), (0, 1)) if (size, stride) == (3, 2) else ((size // 2, size // 2),) * stride
                for size, stride in zip(kernel, strides, strict=True)
            )
        )
    )


def _one_by_one(x, taps, paddings):
    each = [convolve(x, k, padding) for k, padding in zip(taps, paddings, strict=True)]
    return jnp.stack(each, axis=-2).reshape(*x.shape[:-1], -1)


def _at_once(x, taps, paddings):
    # One convolution with the whole kernel to all channels of a block. In 2-D five of nine taps
    # of each are 0, in 3-D 19 of 27.
    whole = [max(before for before, _ in axis) for axis in zip(*paddings, strict=True)]
    each = [
        jnp.pad(k, [(n - a, n - b) for n, (a, b) in zip(whole, pad, strict=True)] + 2 * [(0, 0)])
        for k, pad in zip(taps, paddings, strict=True)
    ]
    return convolve(x, jnp.concatenate(each, axis=-1), [(n, n) for n in whole])
