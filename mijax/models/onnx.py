"""The U-Net as an ONNX graph, with its weights, for programs that have no JAX.

Written operator by operator, from the same parameters as ``unet.UNet``; not imported by
``mijax.models``, as it takes the package ``onnx``.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from mijax.models.levels import check_levels
from mijax.models.norm import InstanceNorm, StreamNorm
from mijax.models.unet import CLASSIFIER, NORMS, UNet

_OPSET, _IR = 17, 8  # of 2022: what older runtimes read, too


def onnx_model(unet: UNet, params, batch_stats, *, dims, channels):
    """The network as it is evaluated, softmax included, in float32.

    Args:
      unet: its architecture; ``dtype`` and ``blocks`` are how it is computed, and change nothing.
      params, batch_stats: of it; ``batch_stats`` are empty with norm="instance".
      dims: axes of an image, 2 or 3.
      channels: of an image.

    Returns:
      ``onnx.ModelProto`` with the input ``images`` (b, *space, c) and the output ``probs``
      (b, *space, k), both float32: any b, and axes of space that are multiples of ``unet.stride``.
    """
    depth = len(unet.widths)
    strides, kernels = check_levels(unet.strides, unet.kernels, depth=depth, dims=dims)
    graph = _Graph(unet.norm, params, batch_stats)
    first, last = (0, dims + 1, *range(1, dims + 1)), (0, *range(2, dims + 2), 1)
    x, skips = graph.add("Transpose", ["images"], perm=first), []
    for level, kernel in enumerate(kernels, start=1):
        if level > 1:
            stride = strides[level - 2]
            x = graph.add("MaxPool", [x], kernel_shape=stride, strides=stride)
        x = graph.convolve(f"Conv{level}a", x, kernel)
        x = graph.convolve(f"Conv{level}b", x, kernel)
        skips.append(x)
    for level in range(depth, 1, -1):
        kernel = kernels[level - 2]
        x = graph.upsample(f"Up{level}", x, strides[level - 2])
        x = graph.convolve(f"Up{level}", x, kernel)
        x = graph.add("Concat", [skips[level - 2], x], axis=1)
        x = graph.convolve(f"Up_conv{level}a", x, kernel)
        x = graph.convolve(f"Up_conv{level}b", x, kernel)
    x = graph.convolve(CLASSIFIER, x, (1,) * dims, norm=False)
    x = graph.add("Transpose", [x], perm=last)
    graph.add("Softmax", [x], output="probs", axis=-1)
    space, real = ["d", "h", "w"][-dims:], TensorProto.FLOAT
    images = helper.make_tensor_value_info("images", real, ["b", *space, channels])
    probs = helper.make_tensor_value_info("probs", real, ["b", *space, unet.num_classes])
    proto = helper.make_graph(graph.nodes, "UNet", [images], [probs], graph.constants)
    opset = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(proto, opset_imports=opset, ir_version=_IR, producer_name="mijax")
    onnx.checker.check_model(model, full_check=True)
    return model


class _Graph:
    """Nodes and constants; values are (b, c, *space), as ONNX has them, and known by name."""

    def __init__(self, norm, params, batch_stats):
        self.norm, self.params, self.batch_stats = NORMS[norm], params, batch_stats
        self.nodes, self.constants = [], []

    def add(self, kind, inputs, *, output=None, **attributes):
        """Adds a node, and returns the name of its value."""
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def constant(self, name, values):
        """Adds an array, and returns its name."""
        values = np.ascontiguousarray(values, np.float32)
        self.constants.append(numpy_helper.from_array(values, name))
        return name

    def convolve(self, name, x, kernel, *, norm=True):
        """A convolution, zero-padded to the size of its images, then norm and ReLU; or a bias."""
        given = self.params[name]
        weights = np.moveaxis(np.asarray(given["kernel"]), (-1, -2), (0, 1))
        inputs = [x, self.constant(f"{name}.kernel", weights)]
        if not norm:
            inputs.append(self.constant(f"{name}.bias", given["bias"]))
        pads = 2 * [size // 2 for size in kernel]
        x = self.add("Conv", inputs, output=name, kernel_shape=kernel, pads=pads)
        return self.add("Relu", [self.normalise(f"{name}_norm", x)]) if norm else x

    def normalise(self, name, x):
        """By running statistics, or by those of each image."""
        given, kind = dict(self.params[name]), self.norm
        if kind is StreamNorm:
            given |= self.batch_stats[name]
        names = {StreamNorm: ("scale", "bias", "mean", "var"), InstanceNorm: ("scale", "bias")}
        operator = {StreamNorm: "BatchNormalization", InstanceNorm: "InstanceNormalization"}
        inputs = [x, *(self.constant(f"{name}.{one}", given[one]) for one in names[kind])]
        return self.add(operator[kind], inputs, output=name, epsilon=kind.epsilon)

    def upsample(self, name, x, strides):
        """Each pixel as often as the strides say."""
        scales = self.constant(f"{name}.scales", (1, 1, *strides))
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.add("Resize", [x, "", scales], mode="nearest", **how)
