"""The U-Net with strides and kernels by axis, of images and of volumes, against its definition."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from numpy.testing import assert_allclose

from mijax.models import CLASSIFIER, UNet

KEY = jax.random.key(0)
IMAGES = np.random.default_rng(0).normal(size=(2, 8, 12, 1)).astype(np.float32)
STRIDES, KERNELS = ((1, 2, 2), (2, 2, 1)), ((1, 3, 3), (3, 3, 3), (3, 3, 1))
VOLUMES = np.random.default_rng(0).normal(size=(2, 4, 8, 8, 1)).astype(np.float32)


def variables_of(model, images):
    """Parameters that NumPy draws, and other variables, of zeros."""
    shapes = dict(jax.eval_shape(functools.partial(model.init, KEY, train=False), images))
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda x: rng.normal(size=x.shape, scale=0.5).astype(np.float32), shapes.pop("params")
    )
    return params, jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes)


def by_definition(params, x, strides, kernels, norm):
    """Logits of the network, of parts of Linen and of XLA alone."""

    def conv(name, kernel, x):
        x = nn.Conv(params[name]["kernel"].shape[-1], kernel, use_bias=False).apply(
            {"params": params[name]}, x
        )
        return nn.relu(
            norm.apply({"params": params[f"{name}_norm"]}, x, mutable=["batch_stats"])[0]
        )

    def pool(x, stride):
        window = (1, *stride, 1)
        return lax.reduce_window(x, -np.inf, lax.max, window, window, "VALID")

    skips = []
    for level, kernel in enumerate(kernels, start=1):
        x = pool(x, strides[level - 2]) if level > 1 else x
        x = conv(f"Conv{level}b", kernel, conv(f"Conv{level}a", kernel, x))
        skips.append(x)
    for level in range(len(kernels), 1, -1):
        for axis, stride in enumerate(strides[level - 2], start=1):
            x = x.repeat(stride, axis=axis)
        kernel = kernels[level - 2]
        x = jnp.concatenate([skips[level - 2], conv(f"Up{level}", kernel, x)], axis=-1)
        x = conv(f"Up_conv{level}b", kernel, conv(f"Up_conv{level}a", kernel, x))
    point = nn.Conv(params[CLASSIFIER]["bias"].size, (1,) * (x.ndim - 2))
    return point.apply({"params": params[CLASSIFIER]}, x)


@pytest.mark.parametrize(
    ("images", "strides", "kernels", "norm"),
    [
        (VOLUMES, STRIDES, KERNELS, "batch"),
        (IMAGES, ((1, 2), (2, 2)), ((1, 3), (3, 3), (3, 3)), "instance"),
    ],
    ids=["3-D", "2-D, instance"],
)
def test_the_network_is_its_definition(images, strides, kernels, norm):
    """Logits and gradients of the parameters, in training."""
    model = UNet(3, widths=(2, 3, 4), strides=strides, kernels=kernels, norm=norm)
    params, statistics = variables_of(model, images)
    layers = {
        "batch": nn.BatchNorm(use_running_average=False),
        "instance": nn.InstanceNorm(epsilon=1e-5),
    }

    def ours(params):
        variables = {"params": params} | statistics
        return model.apply(variables, images, train=True, mutable=["batch_stats"])[0][0]

    def theirs(params):
        return by_definition(params, images, strides, kernels, layers[norm])

    def results(function):
        logits, backward = jax.vjp(function, params)
        return logits, backward(jnp.cos(logits))

    found, expected = jax.jit(lambda: (results(ours), results(theirs)))()
    assert found[0].shape == (*images.shape[:-1], 3)
    scale = max(float(np.abs(x).max()) for x in jax.tree.leaves(expected))
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=1e-3, atol=1e-5 * scale), found, expected)


def test_shapes_and_names_of_the_features_of_volumes():
    model = UNet(4, widths=(2, 3, 4), strides=STRIDES, kernels=KERNELS, norm="instance")
    images = jax.ShapeDtypeStruct((3, 4, 8, 12, 2), jnp.float32)
    init = functools.partial(model.init_with_output, KEY, train=False)
    (logits, features), variables = jax.eval_shape(init, images)
    assert logits.shape == (3, 4, 8, 12, 4)
    assert {name: x.shape[1:] for name, x in features.items()} == {
        "Conv1": (4, 8, 12, 2),
        "Conv2": (4, 4, 6, 3),
        "Conv3": (2, 2, 6, 4),
        "bottleneck": (2, 2, 6, 4),
        "Up_conv3": (4, 4, 6, 3),
        "Up_conv2": (4, 8, 12, 2),
    }
    assert variables.keys() == {"params"}
    kernels = {
        name: x["kernel"].shape[:3] for name, x in variables["params"].items() if "kernel" in x
    }
    assert {n: s for n, s in kernels.items() if n.endswith(("a", "Up2", "Up3"))} == {
        "Conv1a": (1, 3, 3),
        "Conv2a": (3, 3, 3),
        "Conv3a": (3, 3, 1),
        "Up3": (3, 3, 3),
        "Up_conv3a": (3, 3, 3),
        "Up2": (1, 3, 3),
        "Up_conv2a": (1, 3, 3),
    }
