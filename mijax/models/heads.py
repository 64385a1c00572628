"""Heads on features of the U-Net: soft cluster assignments, and embeddings."""

import flax.linen as nn
import jax.numpy as jnp


class ClusterHead(nn.Module):
    """Soft assignment of pixels, or of whole images, to clusters, by several sub-heads.

    Attributes:
      clusters: of each sub-head, k.
      subheads: s.
      pooled: whether the feature is averaged over the image first (a global head).
      hidden: width of a hidden layer with LeakyReLU (0.01); 0 for a linear head.
      temperature: of the softmax.
      normalise: whether the feature is scaled to unit length first.

    Reference: Peng et al., MELBA 2021; sub-heads after Ji et al., IIC, ICCV 2019.
    """

    clusters: int
    subheads: int = 5
    pooled: bool = False
    hidden: int = 0
    temperature: float = 1.0
    normalise: bool = False

    @nn.compact
    def __call__(self, feature):
        """(b, *space, c) -> (s, b, *space, k) float32 that sum to 1; space of 1 if pooled."""
        x = feature.astype(jnp.float32)
        if self.pooled:
            x = _pooled(x)
        if self.normalise:
            x = _unit(x)
        if self.hidden:
            x = nn.leaky_relu(nn.Dense(self.subheads * self.hidden, name="hidden")(x))
            x = x.reshape(*x.shape[:-1], self.subheads, self.hidden)
            kernel = self.param(
                "kernel",
                nn.initializers.lecun_normal(batch_axis=0),
                (self.subheads, self.hidden, self.clusters),
                jnp.float32,
            )
            shape = (*(1 for _ in x.shape[:-2]), self.subheads, self.clusters)
            bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
            x = jnp.einsum("...sd,sdk->...sk", x, kernel) + bias
        else:
            x = nn.Dense(self.subheads * self.clusters, name="linear")(x)
            x = x.reshape(*x.shape[:-1], self.subheads, self.clusters)
        return jnp.moveaxis(nn.softmax(x / self.temperature), -2, 0)


class Projection(nn.Module):
    """Embeddings of pixels, or of whole images: 1×1 convolution, norm, ReLU, 1×1 convolution.

    Attributes:
      width: of the embedding and of the layer before it.
      pooled: whether the feature is averaged over the image first; then without the norm.

    Reference: Chaitanya et al., Medical Image Analysis 2023.
    """

    width: int = 16
    pooled: bool = False

    @nn.compact
    def __call__(self, feature):
        """(b, *space, c) -> (b, *space, width) float32; space of 1 if pooled."""
        x = feature.astype(jnp.float32)
        if self.pooled:
            x = _pooled(x)
        x = nn.Dense(self.width, name="first")(x)
        if not self.pooled:
            # The head is thrown away after training: it needs no running statistics.
            axes = tuple(range(x.ndim - 1))
            mean = jnp.mean(x, axis=axes, keepdims=True)
            variance = jnp.mean((x - mean) ** 2, axis=axes, keepdims=True)
            shape = (*(1 for _ in axes), self.width)
            scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
            offset = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
            x = (x - mean) / jnp.sqrt(variance + 1e-5) * scale + offset
        return nn.Dense(self.width, name="second")(nn.relu(x))


def _pooled(x):
    return jnp.mean(x, axis=tuple(range(1, x.ndim - 1)), keepdims=True)


def _unit(x):
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, axis=-1, keepdims=True), 1e-12))
