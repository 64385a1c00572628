"""The ONNX graph against the network that it was made of, through onnxruntime."""

import jax
import numpy as np
import onnxruntime
import pytest

from mijax.models import UNet
from mijax.models.onnx import onnx_model

BY_AXIS_2 = {"strides": ((2, 1), (2, 2)), "kernels": ((3, 1), (1, 3), (3, 3))}
BY_AXIS_3 = {"strides": ((1, 2, 2), (2, 2, 2)), "kernels": ((1, 3, 3), (1, 3, 3), (3, 3, 3))}
NETWORKS = {
    "2-D": ((16, 24), 1, {}),
    "2-D, two channels, by axis": ((16, 12), 2, BY_AXIS_2),
    "2-D, instance norm": ((16, 8), 3, {"norm": "instance"}),
    "2-D, of one level": ((5, 7), 1, {"widths": (4,)}),
    "2-D, in blocks, and what is of training alone": (
        (16, 8),
        1,
        {"blocks": True, "remat": True, "dropout": 0.5, "deep_supervision": True},
    ),
    "3-D": ((8, 16, 12), 1, {}),
    "3-D, by axis, instance norm": ((4, 8, 16), 2, BY_AXIS_3 | {"norm": "instance"}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_probabilities(name):
    space, channels, options = NETWORKS[name]
    unet = UNet(num_classes=3, **{"widths": (4, 6, 8)} | options)
    random = np.random.default_rng(0)
    images = random.normal(size=(2, *space, channels)).astype(np.float32)
    shapes = jax.eval_shape(lambda x: unet.init(jax.random.key(0), x, train=False), images)

    def draw(shape):  # of any other than they begin with; positive where variances may be
        values = random.uniform(0.5, 1.5, shape)
        if len(shape) > 1:
            values = random.normal(size=shape) * np.sqrt(2 / np.prod(shape[:-1]))
        return values.astype(np.float32)

    variables = jax.tree.map(lambda x: draw(x.shape), shapes)
    params, batch_stats = variables["params"], variables.get("batch_stats", {})
    model = onnx_model(unet, params, batch_stats, dims=len(space), channels=channels)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    apply = jax.jit(lambda images: jax.nn.softmax(unet.apply(variables, images, train=False)[0]))
    for some in (images, np.concatenate([images[:1]] * 2, axis=-2)):
        expected = apply(some)
        assert np.std(expected, axis=range(expected.ndim - 1)).min() > 0.01  # pixels differ
        (found,) = session.run(["probs"], {"images": some})
        np.testing.assert_allclose(found, expected, atol=1e-4)
