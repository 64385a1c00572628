"""The U-Net of Peng et al., MIDL 2020 (after Ronneberger et al., MICCAI 2015)."""

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mijax.models.blocks import BlockConv, BlockDense, UpConv, to_blocks, to_pixels
from mijax.models.norm import StreamNorm

CLASSIFIER = "Deconv_1x1"  # the layer that makes the logits, named as in the authors' release


class UNet(nn.Module):
    """U-Net with BatchNorm and nearest-neighbour upsampling.

    Each level is twice (3×3 convolution, BatchNorm, ReLU); levels are joined by 2×2
    max-pooling on the way down and by nearest ×2, 3×3 convolution, BatchNorm, ReLU and
    concatenation with the skip on the way up; a 1×1 convolution makes the logits.

    Attributes:
      num_classes: k.
      widths: channels of each level.
      dropout: rate of channel dropout before the deepest level and after it; 0 is none.
      encoder_dropout: rate of channel dropout between the two convolutions of each level of the
        encoder, as SSL4MIS, UniMatch and AD-MT have it (there of pixels); empty is none.
      blocks: whether the finest level is computed on 2×2 blocks of pixels, for TPUs: the same
        function to rounding, of the same parameters. Needs two levels.
      dtype: of activations. Parameters, BatchNorm statistics and logits are float32.
    """

    num_classes: int
    widths: Sequence[int] = (16, 32, 64, 128, 256)
    dropout: float = 0.0
    encoder_dropout: Sequence[float] = ()
    blocks: bool = False
    dtype: jnp.dtype = jnp.float32

    @property
    def stride(self):
        """Height and width of an image are multiples of this."""
        return 2 ** (len(self.widths) - 1)

    @property
    def drops(self):
        """Whether it drops channels at random: its result then hangs on the order of a batch."""
        return self.dropout > 0 or any(self.encoder_dropout)

    @nn.compact
    def __call__(self, images, *, train, streams=None, perturb=None):
        """Logits and features of images.

        Args:
          images: (b, h, w, c); h and w multiples of ``stride``.
          train: use the statistics of this batch, update the running ones ("batch_stats"
            must then be mutable) and drop out ("dropout" key).
          streams: the stream of each image, which are normalised apart, see ``StreamNorm``;
            None for one stream.
          perturb: ``(name, feature) -> feature``, of what the encoder hands to the decoder,
            ``Conv1`` to the deepest; None leaves it as it is.

        Returns:
          Logits (b, h, w, k) float32, and the features by name: ``Conv1`` … ``Conv5`` down
          and ``Up_conv5`` … ``Up_conv2`` up, each (b, h/2^i, w/2^i, width_i), as in the
          authors' release; the deepest is ``bottleneck`` as well.

        Raises:
          ValueError: for a size that is not a multiple of the stride.
        """
        if images.shape[1] % self.stride or images.shape[2] % self.stride:
            raise ValueError(f"image size {images.shape[1:3]} is not a multiple of {self.stride}")
        channels = {"broadcast_dims": (1, 2), "deterministic": not train}
        drop = nn.Dropout(self.dropout, **channels)
        conv = functools.partial(self._conv, train=train, streams=streams)
        x = images.astype(self.dtype)
        x = to_blocks(x) if self.blocks else x
        features = {}
        depth = len(self.widths)
        for level, width in enumerate(self.widths, start=1):
            blocks = self.blocks and level == 1
            if level > 1:
                x = _max_of_blocks(x) if self.blocks and level == 2 else _max_pool(x)
            if level == depth:
                x = drop(x)
            x = conv(f"Conv{level}a", width, x, blocks=blocks)
            if self.encoder_dropout:
                x = nn.Dropout(self.encoder_dropout[level - 1], **channels)(x)
            x = conv(f"Conv{level}b", width, x, blocks=blocks)
            features[f"Conv{level}"] = to_pixels(x) if blocks else x
        handed = features if perturb is None else {n: perturb(n, f) for n, f in features.items()}
        x = drop(handed[f"Conv{depth}"])
        features = features | {"bottleneck": features[f"Conv{depth}"]}
        for level in range(depth, 1, -1):
            width = self.widths[level - 2]
            blocks = self.blocks and level == 2
            skip = handed[f"Conv{level - 1}"]
            x = conv(f"Up{level}", width, x, up=True)
            both = (to_blocks(skip), x) if blocks else (skip, to_pixels(x))
            x = conv(f"Up_conv{level}a", width, *both, blocks=blocks)
            x = conv(f"Up_conv{level}b", width, x, blocks=blocks)
            features[f"Up_conv{level}"] = to_pixels(x) if blocks else x
        if self.blocks:
            logits = to_pixels(BlockDense(self.num_classes, name=CLASSIFIER)(x))
            # XLA would carry the blocks on, and lay them out anew for every pixel that is gathered.
            return lax.optimization_barrier(logits), features
        logits = nn.Conv(self.num_classes, (1, 1), dtype=jnp.float32, name=CLASSIFIER)(x)
        return logits, features

    def _conv(self, name, width, *images, train, streams, blocks=False, up=False):
        """Convolution, BatchNorm and ReLU; the result is in blocks with ``blocks`` or ``up``."""
        same = {"dtype": self.dtype, "kernel_init": nn.initializers.he_normal(), "name": name}
        if blocks or up:
            x = (UpConv if up else BlockConv)(width, **same)(*images)
        else:
            x = jnp.concatenate(images, axis=-1)
            x = nn.Conv(width, (3, 3), use_bias=False, **same)(x)
        norm = StreamNorm(
            relu=True,
            pixels=4 if blocks or up else 1,
            rows=not self.blocks,
            dtype=self.dtype,
            name=f"{name}_norm",
        )
        return norm(x, train=train, streams=streams)


def _max_pool(x):
    """2×2 max-pooling. XLA's own has a gradient that is several times as slow on a CPU."""
    top, bottom = x[:, ::2], x[:, 1::2]
    rows = jnp.maximum(top, bottom)
    return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])


def _max_of_blocks(x):
    """The same of (b, h, w, 4 · c)."""
    upper, lower = jnp.split(x, 2, axis=-1)
    return jnp.maximum(*jnp.split(jnp.maximum(upper, lower), 2, axis=-1))
