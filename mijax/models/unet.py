"""The U-Net of Peng et al., MIDL 2020 (after Ronneberger et al., MICCAI 2015)."""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from mijax.models.blocks import BlockConv, BlockDense, to_blocks, to_pixels
from mijax.models.conv import Conv, UpConv
from mijax.models.levels import check_levels, total_stride
from mijax.models.norm import InstanceNorm, StreamNorm

CLASSIFIER = "Deconv_1x1"  # the layer that makes the logits, named as in the authors' release
_DEEP = "Deep"  # of the names of those that make the logits of coarser levels
NORMS = {"batch": StreamNorm, "instance": InstanceNorm}


class UNet(nn.Module):
    """U-Net with BatchNorm and nearest-neighbour upsampling, over two or three axes.

    Each level is twice (convolution, norm, ReLU); levels are joined by max-pooling on the way
    down and by nearest upsampling, convolution, norm, ReLU and concatenation with the skip on
    the way up; a convolution of size 1 makes the logits. How many axes there are is read from
    the images.

    Attributes:
      num_classes: k.
      widths: channels of each level.
      strides: factors of the pooling into each level below the first, by axis, 1 or 2, such as
        ((1, 2, 2), (2, 2, 2)); empty is 2 everywhere. See ``plan_levels``.
      kernels: kernel sizes of each level by axis, 1 or 3, such as ((1, 3, 3), (3, 3, 3), …);
        empty is 3 everywhere. An upsampled image has that of the level it joins.
      norm: of ``NORMS``: BatchNorm, or InstanceNorm, for batches of few images.
      dropout: rate of channel dropout before the deepest level and after it; 0 is none.
      encoder_dropout: rate of channel dropout between the two convolutions of each level of the
        encoder, as SSL4MIS, UniMatch and AD-MT have it (there of pixels); empty is none.
      remat: whether the inside of each level is computed again for the gradient and not kept:
        the same results, in less memory and more time.
      deep_supervision: whether features have logits of coarser levels as well, by name:
        ``logits2`` … of all levels of the decoder but the finest and the coarsest, of the latter
        too where there is no other; see ``methods.with_deep_supervision``. Needs three levels.
      blocks: whether the finest level is computed on 2×2 blocks of pixels, for TPUs: the same
        function to rounding, of the same parameters. Needs two axes and two levels.
      dtype: of activations. Parameters, statistics and logits are float32.
    """

    num_classes: int
    widths: Sequence[int] = (16, 32, 64, 128, 256)
    strides: Sequence[Sequence[int]] = ()
    kernels: Sequence[Sequence[int]] = ()
    norm: str = "batch"
    dropout: float = 0.0
    encoder_dropout: Sequence[float] = ()
    remat: bool = False
    deep_supervision: bool = False
    blocks: bool = False
    dtype: jnp.dtype = jnp.float32

    def stride(self, dims=2):
        """Each axis of an image is a multiple of these, (dims,)."""
        return total_stride(self.strides, depth=len(self.widths), dims=dims)

    @property
    def drops(self):
        """Whether it drops channels at random: its result then hangs on the order of a batch."""
        return self.dropout > 0 or any(self.encoder_dropout)

    @nn.compact
    def __call__(self, images, *, train, streams=None, perturb=None):
        """Logits and features of images.

        Args:
          images: (b, h, w, c) or (b, d, h, w, c); axes that are multiples of ``stride``.
          train: use the statistics of this batch, update the running ones ("batch_stats"
            must then be mutable) and drop out ("dropout" key).
          streams: the stream of each image, which are normalised apart, see ``StreamNorm``;
            None for one stream.
          perturb: ``(name, feature) -> feature``, of what the encoder hands to the decoder,
            ``Conv1`` to the deepest; None leaves it as it is.

        Returns:
          Logits (b, *space, k) float32, and the features by name: ``Conv1`` … ``Conv5`` down
          and ``Up_conv5`` … ``Up_conv2`` up, each (b, *space of the level, width of the level),
          as in the authors' release; the deepest is ``bottleneck`` as well. And float32 logits
          ``logits2`` … with ``deep_supervision``.

        Raises:
          ValueError: for images of another rank, a size that is not a multiple of the stride,
            and strides, kernels or blocks that do not fit.
        """
        strides, kernels = self._levels(images.shape)
        channels = {"broadcast_dims": tuple(range(1, images.ndim - 1)), "deterministic": not train}
        drop = nn.Dropout(self.dropout, **channels)
        run = functools.partial(self._run, train=train, streams=streams)
        x = images.astype(self.dtype)
        x = to_blocks(x) if self.blocks else x
        features, point = {}, (1,) * len(kernels[0])
        depth = len(self.widths)
        for level in range(1, depth + 1):
            if level > 1:
                halved = self.blocks and level == 2
                x = _max_of_blocks(x) if halved else _max_pool(x, strides[level - 2])
            if level == depth:
                x = drop(x)
            x = run(UNet._down, x, level=level, kernel=kernels[level - 1], channels=channels)
            features[f"Conv{level}"] = to_pixels(x) if self.blocks and level == 1 else x
        handed = features if perturb is None else {n: perturb(n, f) for n, f in features.items()}
        x = drop(handed[f"Conv{depth}"])
        features = features | {"bottleneck": features[f"Conv{depth}"]}
        for level in range(depth, 1, -1):
            skip = handed[f"Conv{level - 1}"]
            between = {"strides": strides[level - 2], "kernel": kernels[level - 2]}
            x = run(UNet._up, x, skip, level=level, **between)
            features[f"Up_conv{level}"] = to_pixels(x) if self.blocks and level == 2 else x
            if self.deep_supervision and level > 2 and (level < depth or depth == 3):
                name = f"logits{level - 1}"
                head = Conv(self.num_classes, point, use_bias=True, name=f"{_DEEP}{level - 1}_1x1")
                features[name] = head(x)
        if self.blocks:
            logits = to_pixels(BlockDense(self.num_classes, name=CLASSIFIER)(x))
            # XLA would carry the blocks on, and lay them out anew for every pixel that is gathered.
            return lax.optimization_barrier(logits), features
        return Conv(self.num_classes, point, use_bias=True, name=CLASSIFIER)(x), features

    def _levels(self, shape):
        """Strides and kernels of each level by axis."""
        dims = len(shape) - 2
        if dims not in (2, 3):
            raise ValueError(f"images {shape} are neither (b, h, w, c) nor (b, d, h, w, c)")
        levels = check_levels(self.strides, self.kernels, depth=len(self.widths), dims=dims)
        stride = self.stride(dims)
        if any(n % multiple for n, multiple in zip(shape[1:-1], stride, strict=True)):
            raise ValueError(f"image size {shape[1:-1]} is not a multiple of {stride}")
        if self.blocks and (levels[0][:1], levels[1][0]) != (((2, 2),), (3, 3)):
            raise ValueError(
                f"blocks are of 2×2 pixels of the first of two levels, with 3×3 kernels, not of "
                f"{dims} axes with strides {levels[0][:1]} and kernels {levels[1][0]}"
            )
        return levels

    def _run(self, part, *inputs, **options):
        """A level, whose inside is forgotten with ``remat``."""
        part = functools.partial(part, **options)
        return (nn.remat(part) if self.remat else part)(self, *inputs)

    def _down(self, x, *, level, kernel, channels, **how):
        """One level of the encoder."""
        how |= {"level": level, "blocks": self.blocks and level == 1}
        x = self._conv(f"Conv{level}a", kernel, x, **how)
        if self.encoder_dropout:
            x = nn.Dropout(self.encoder_dropout[level - 1], **channels)(x)
        return self._conv(f"Conv{level}b", kernel, x, **how)

    def _up(self, x, skip, *, level, strides, kernel, **how):
        """One level of the decoder: from ``level`` to the one above, which ``kernel`` is of."""
        blocks = self.blocks and level == 2
        how |= {"level": level - 1}
        x = self._conv(f"Up{level}", kernel, x, up=strides, **how)
        both = (to_blocks(skip), x) if blocks else (skip, to_pixels(x, strides))
        x = self._conv(f"Up_conv{level}a", kernel, *both, blocks=blocks, **how)
        return self._conv(f"Up_conv{level}b", kernel, x, blocks=blocks, **how)

    def _conv(self, name, kernel, *images, level, train, streams, blocks=False, up=None):
        """Convolution, norm and ReLU; the result is in blocks with ``blocks`` or ``up``."""
        same = {"dtype": self.dtype, "kernel_init": nn.initializers.he_normal(), "name": name}
        width = self.widths[level - 1]
        if up:
            x = UpConv(width, kernel, up, **same)(*images)
        elif blocks:
            x = BlockConv(width, **same)(*images)
        else:
            x = Conv(width, kernel, **same)(jnp.concatenate(images, axis=-1))
        norm = NORMS[self.norm](
            relu=True,
            pixels=4 if blocks else math.prod(up or ()),
            rows=not self.blocks,
            dtype=self.dtype,
            name=f"{name}_norm",
        )
        return norm(x, train=train, streams=streams)


def makes_logits(name):
    """Whether a layer of that name is the classifier, or that of a coarser level."""
    return name == CLASSIFIER or name.startswith(_DEEP)


def _max_pool(x, strides):
    """Max-pooling. XLA's own has a gradient that is several times as slow on a CPU."""
    for axis, stride in enumerate(strides, start=1):
        if stride == 2:
            x = jnp.maximum(*(lax.slice_in_dim(x, i, None, 2, axis) for i in (0, 1)))
    return x


def _max_of_blocks(x):
    """The same of (b, h, w, 4 · c)."""
    upper, lower = jnp.split(x, 2, axis=-1)
    return jnp.maximum(*jnp.split(jnp.maximum(upper, lower), 2, axis=-1))
