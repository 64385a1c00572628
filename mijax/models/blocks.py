"""Convolutions of 2×2 blocks of pixels: a grid half as fine, with four times the channels.

The channels of a block are those of its pixels, one after another: upper left, upper right, lower
left, lower right.
"""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from mijax.models.conv import convolve

# (offset of the block, row in it, row of the result in its block, tap): 1 where a 3-tap kernel sees
# that row with that tap.
_SEES = np.array(
    [
        [[[2 * (d - 1) + s - p + 1 == a for a in range(3)] for p in (0, 1)] for s in (0, 1)]
        for d in range(3)
    ],
    np.float32,
)


class BlockConv(nn.Module):
    """A 3×3 convolution, zero-padded, no bias, of images in blocks.

    One of blocks with four times the channels, in and out, most of whose taps are 0: for TPUs,
    whose lanes a few channels leave empty. The same result to rounding, and the same parameter, as
    ``nn.Conv`` of the pixels. Attributes as of ``Conv``.
    """

    features: int
    dtype: jnp.dtype = jnp.float32
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, *images):
        """(b, h, w, 4 · c_i) each -> (b, h, w, 4 · o), of the pixels with all of these channels."""
        each = [x.shape[-1] // 4 for x in images]
        kernel = self.param(
            "kernel", self.kernel_init, (3, 3, sum(each), self.features), jnp.float32
        )
        parts = [
            jnp.einsum("dspa,etqb,abio->destipqo", _SEES, _SEES, part, precision="highest")
            for part in jnp.split(kernel, np.cumsum(each)[:-1], axis=2)
        ]
        kernel = jnp.concatenate([k.reshape(3, 3, -1, 4 * self.features) for k in parts], axis=2)
        x = jnp.concatenate(images, axis=-1).astype(self.dtype)
        return convolve(x, kernel.astype(self.dtype), ((1, 1), (1, 1)))


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
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
        kernel = jnp.kron(np.eye(4, dtype=np.float32), kernel[0, 0])
        return x.astype(jnp.float32) @ kernel + jnp.tile(bias, 4)[None, None, None]


def to_blocks(x):
    """(b, 2h, 2w, c) -> (b, h, w, 4 · c)."""
    b, h, w, c = x.shape
    return x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4 * c)


def to_pixels(x, block=(2, 2)):
    """(b, *space, p · c) -> (b, *space times block, c): blocks of p pixels, ``block`` by axis."""
    (b, *space, _), n = x.shape, len(block)
    x = x.reshape(b, *space, *block, -1)
    pairs = [axis for i in range(n) for axis in (1 + i, 1 + n + i)]
    x = x.transpose(0, *pairs, 1 + 2 * n)
    return x.reshape(b, *(size * m for size, m in zip(space, block, strict=True)), x.shape[-1])
