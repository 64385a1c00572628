"""A small linear network, and the formulas of the methods in float64.

The logits of the network depend, like those of a BatchNorm, on the whole stream they are
computed in, and, as dropout does, on the place an image has in its pass.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from mijax import losses
from mijax.methods import Output, Start

LABELLED, UNLABELLED, SIZE, CHANNELS, K = 2, 3, 8, 2, 3
PLACES = 12  # images a pass, at the most
KEY = jax.random.key(0)
STILL = {"rotation": 0.0, "shear": 0.0, "scale": (1.0, 1.0), "flip": 0.0}
PLAIN = {"brightness": 0.0, "contrast": 0.0, "gamma": 0.0, "noise": 0.0}
NAMES, WIDTH = ("bottleneck", "Up_conv2"), 5  # of the features


def make_network(seed):
    rng = np.random.default_rng(seed)
    return {
        "kernel": rng.normal(size=(CHANNELS, K)).astype(np.float32),
        "place": rng.normal(size=(PLACES, K)).astype(np.float32),
    }


def forward(network, *streams, key, shared_statistics=False, perturb=None):
    if perturb is not None:
        streams = [perturb(i, "Conv1", x) for i, x in enumerate(streams)]
    ends = np.cumsum([len(x) for x in streams])
    apart = [jnp.concatenate(streams)] if shared_statistics else streams
    pixels = tuple(range(apart[0].ndim - 1))
    centred = jnp.concatenate([x - jnp.mean(x, pixels, keepdims=True) for x in apart])
    logits = jnp.einsum("b...c,ck->b...k", centred, network["kernel"])
    logits = logits + jnp.expand_dims(network["place"][: ends[-1]], pixels[1:])
    statistics = {"mean": jnp.mean(apart[0], pixels)}
    return [Output(x, {}, statistics) for x in jnp.split(logits, ends[:-1])]


def spied(seen):
    """``forward`` that appends what it is given to ``seen``: (kernel, images) a pass."""

    def spy(network, *streams, **options):
        seen.append((network["kernel"], jnp.concatenate(streams)))
        return forward(network, *streams, **options)

    return spy


def start_with(network, statistics=None):
    def another(key):
        leaves, structure = jax.tree.flatten(network)
        keys = jax.random.split(key, len(leaves))
        drawn = [jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
        return structure.unflatten(drawn)

    return Start(
        network=network,
        batch_stats={"mean": jnp.zeros(CHANNELS)} if statistics is None else statistics,
        features={},
        unlabelled_shape=(UNLABELLED, SIZE, SIZE),
        another=another,
    )


def memory_of(teacher, student=None):
    """Memory of a method without one of its own (or with ``student``) that has a teacher."""
    statistics = {"mean": np.zeros(CHANNELS, np.float32)}
    return {"student": student or {}, "teacher": {"network": teacher, "batch_stats": statistics}}


def call(method, params, memory, batch, *, forward=forward, step=0, key=KEY):
    """Value and ``Aux`` of a method whose labelled images are fitted by cross-entropy."""
    return method.loss(
        params,
        memory,
        batch,
        forward=forward,
        label_loss=losses.cross_entropy,
        step=step,
        key=key,
    )


def loss_of(method, network, batch, memory=None, step=0):
    return _jitted(method)(network, memory or {}, batch, step)


@functools.cache
def _jitted(method):
    return jax.jit(
        lambda network, memory, batch, step: call(
            method, {"network": network}, memory, batch, step=step
        )
    )


def make_featured(seed):
    """A network that has features as well."""
    rng = np.random.default_rng(seed + 100)
    features = {n: rng.normal(size=(CHANNELS, WIDTH)).astype(np.float32) for n in NAMES}
    return make_network(seed) | features


def forward_with_features(network, *streams, **options):
    outputs = forward(network, *streams, **options)
    return [
        output._replace(features={name: images @ network[name] for name in NAMES})
        for output, images in zip(outputs, streams, strict=True)
    ]


def start_with_features(network):
    shapes = dict.fromkeys(NAMES, (1, SIZE, SIZE, WIDTH))
    return start_with(network)._replace(features=shapes)


def begin(method, start):
    """Heads and memory of a method."""
    return jax.jit(lambda key: method.init(key, start))(KEY)


def loss_with_heads(method, network, batch, heads, memory=None):
    """Value, logs and gradients, which must be finite, of a method with heads."""
    params = {"network": network, **heads}
    (value, aux), gradients = _value_and_gradient(method)(params, memory or {}, batch)
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    return value, aux.logs, gradients


@functools.cache
def _value_and_gradient(method):
    def loss(params, memory, batch):
        return call(method, params, memory, batch, forward=forward_with_features)

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


# Formulas in float64 -------------------------------------------------------------------


def forward64(network, images):
    centred = images.astype(np.float64) - images.mean((0, 1, 2), dtype=np.float64)
    return centred @ network["kernel"] + network["place"][: len(images), None, None]


def streams64(network, *streams, shared_statistics=False):
    ends = np.cumsum([len(x) for x in streams])[:-1]
    together = np.concatenate(streams)
    if not shared_statistics:  # what is taken off again is the mean of them all, 0
        together = np.concatenate([x - x.mean((0, 1, 2)) for x in streams])
    return np.split(forward64(network, together), ends)


def softmax(logits):
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def cross_entropies(logits, labels):
    return -np.log(np.take_along_axis(softmax(logits), labels[..., None], -1))[..., 0]


def cross_entropy(logits, labels):
    return cross_entropies(logits, labels).mean()


def squared_error(p, q):
    return ((p - q) ** 2).sum(-1)


def masked_mean(values, mask):
    return (values * mask).sum() / mask.sum()


def zoom(maps, factor):
    """Magnification of (b, h, w, c) maps about their centre, zero from outside."""
    centre = (SIZE - 1) / 2
    grid = (np.mgrid[:SIZE, :SIZE] - centre) / factor + centre
    warped = [
        [
            ndimage.map_coordinates(c, grid, order=1, mode="grid-constant")
            for c in np.moveaxis(m, -1, 0)
        ]
        for m in maps.astype(np.float64)
    ]
    return np.moveaxis(np.array(warped), 1, -1)


def zoomed_inside(factor):
    """(u, h, w): whether a pixel of a magnified image comes from inside the frame."""
    return zoom(np.ones((UNLABELLED, SIZE, SIZE, 1)), factor)[..., 0] > 0.999
