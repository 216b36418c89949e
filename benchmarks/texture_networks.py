"""ONNX networks with seeded random weights, whose middle layers the search benchmarks look at.

``residual_network`` has the shape of a ResNet18 (384 columns) or of a Wide ResNet50-2 (1,536), up to
its third stage, as PyTorch initialises them: He-normal kernels by fan-out, batch-norm of mean 0 and
variance 1, which leaves only its ε. ``plain_network`` is a chain of convolutions with random biases:
its features spread over more directions and are harder to search.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

F32 = NDArray[np.float32]
SIDE = 224
_EPSILON = 1e-5


class _Graph:
    """Nodes and weights in the order they are added."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def conv(self, value: str, kernel: F32, bias: F32 | None, stride: int) -> str:
        """A square convolution [out, in, size, size] that keeps the size but for the stride."""
        at = len(self.nodes)
        inputs = [value, f"w{at}"]
        self.weights.append(numpy_helper.from_array(kernel, f"w{at}"))
        if bias is not None:
            self.weights.append(numpy_helper.from_array(bias, f"b{at}"))
            inputs.append(f"b{at}")
        pads = [kernel.shape[2] // 2] * 4
        return self.add("Conv", inputs, strides=[stride] * 2, pads=pads)

    def normal(self, value: str, inside: int, outside: int, size: int, stride: int) -> str:
        """A convolution as a new ResNet has it, followed by its new batch-norm."""
        spread = np.sqrt(2 / (outside * size * size) / (1 + _EPSILON))
        kernel = self.random.normal(0, spread, (outside, inside, size, size))
        return self.conv(value, kernel.astype(np.float32), None, stride)

    def add(self, op: str, inputs: list[str], **attributes: list[int]) -> str:
        """One node; returns the name of its output."""
        name = f"v{len(self.nodes)}"
        node = helper.make_node(op, inputs, [name])
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())
        self.nodes.append(node)
        return name

    def model(self, outputs: dict[str, str]) -> bytes:
        """The serialised model, with these values under these names as outputs."""
        for name, value in outputs.items():
            self.nodes.append(helper.make_node("Identity", [value], [name]))
        graph = helper.make_graph(
            self.nodes,
            "seeded_network",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return bytes(model.SerializeToString())


def plain_network(columns: int) -> bytes:
    """Outputs of columns/3 channels at 28x28 and twice that at 14x14."""
    graph = _Graph(0)
    shallow = columns // 3
    layers = [(3, 64, 7, 2), (64, 64, 3, 2), (64, 64, 3, 1), (64, shallow, 3, 2),
              (shallow, shallow, 3, 1), (shallow, 2 * shallow, 3, 2)]  # fmt: skip
    value, outputs = "input", dict[str, str]()
    for i, (inside, outside, size, stride) in enumerate(layers):
        spread = np.sqrt(2 / (inside * size * size))
        kernel = graph.random.normal(0, spread, (outside, inside, size, size)).astype(np.float32)
        bias = graph.random.normal(0, 0.1, outside).astype(np.float32)
        value = graph.add("Relu", [graph.conv(value, kernel, bias, stride)])
        if i >= len(layers) - 2:
            outputs[f"layer{i - 2}"] = value
    return graph.model(outputs)


def residual_network(columns: int) -> bytes:
    """``layer2`` and ``layer3`` of a ResNet18 (384 columns) or a Wide ResNet50-2 (1,536)."""
    basic = columns == 384
    graph = _Graph(0)
    value = graph.add("Relu", [graph.normal("input", 3, 64, 7, 2)])
    value = graph.add("MaxPool", [value], kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    channels, outputs = 64, dict[str, str]()
    for stage, blocks in enumerate((2, 2, 2) if basic else (3, 4, 6)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            inner = (64 if basic else 128) << stage
            outside = inner if basic else 2 * inner
            value = _block(graph, value, channels, inner, outside, stride)
            channels = outside
        if stage > 0:
            outputs[f"layer{stage + 1}"] = value
    return graph.model(outputs)


def _block(graph: _Graph, value: str, inside: int, inner: int, outside: int, stride: int) -> str:
    """A residual block: two 3x3 convolutions, or 1x1, 3x3, 1x1 where it gets wider inside."""
    convolutions = (
        [(inside, inner, 3, stride), (inner, outside, 3, 1)]
        if inner == outside
        else [(inside, inner, 1, 1), (inner, inner, 3, stride), (inner, outside, 1, 1)]
    )
    inner_value = value
    for i, (source, target, size, step) in enumerate(convolutions):
        inner_value = graph.normal(inner_value, source, target, size, step)
        if i < len(convolutions) - 1:
            inner_value = graph.add("Relu", [inner_value])
    if stride != 1 or inside != outside:
        value = graph.normal(value, inside, outside, 1, stride)
    return graph.add("Relu", [graph.add("Add", [inner_value, value])])
