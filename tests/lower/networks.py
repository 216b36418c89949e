"""Small networks for the tests of lowering."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from adcompile.interfaces import Array
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import tensor_spec
from adcompile.ir.model_io import from_bytes
from adcompile.lower.calibration import MemoryCalibration


class Net:
    """Collects nodes and seeded weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int, scale: float = 0.0) -> str:
        spread = scale or 1.0 / np.sqrt(max(np.prod(shape[1:]), 1))
        array = (self.rng.standard_normal(shape) * spread).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, name: str, array: Array) -> str:
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: object) -> str:
        made = helper.make_node(op, inputs, [output], name=f"n_{output}", **attributes)
        self.nodes.append(made)
        return output

    def conv(self, source: str, output: str, inputs: int, outputs: int, kernel: int = 3) -> str:
        names = [
            source,
            self.weight(f"{output}_w", outputs, inputs, kernel, kernel),
            self.weight(f"{output}_b", outputs, scale=0.2),
        ]
        pads = [kernel // 2] * 4
        return self.node("Conv", names, output, kernel_shape=[kernel, kernel], pads=pads)

    def model(
        self,
        inputs: dict[str, list[int | str]],
        outputs: dict[str, list[int | str]],
        opset: int = 17,
    ) -> ir.Model:
        def values(table: dict[str, list[int | str]]) -> list[onnx.ValueInfoProto]:
            return [
                helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in table.items()
            ]

        graph = helper.make_graph(self.nodes, "net", values(inputs), values(outputs), self.weights)
        proto = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8
        )
        return from_bytes(proto.SerializeToString())


def residual(opset: int = 17) -> ir.Model:
    """Two convolutions around a shortcut, a pool, an average and a product."""
    net = Net()
    a = net.node("Relu", [net.conv("x", "c1", 3, 8)], "r1")
    a = net.node("MaxPool", [a], "p1", kernel_shape=[2, 2], strides=[2, 2])
    b = net.node("Relu", [net.conv(a, "c2", 8, 8)], "r2")
    b = net.conv(b, "c3", 8, 8)
    s = net.node("Relu", [net.node("Add", [b, a], "sum")], "r3")
    g = net.node("Flatten", [net.node("GlobalAveragePool", [s], "gap")], "flat")
    net.node("Gemm", [g, net.weight("fw", 5, 8), net.weight("fb", 5, scale=0.1)], "y", transB=1)
    return net.model({"x": [1, 3, 16, 16]}, {"y": [1, 5], "r3": [1, 8, 8, 8]}, opset)


def kernels() -> ir.Model:
    """Everything the NPU computes in its own way: leaky slope, sigmoid, averages, a swish, a concat."""
    net = Net(1)
    a = net.node("LeakyRelu", [net.conv("x", "c1", 3, 8)], "l1", alpha=0.1)
    p = net.node("AveragePool", [a], "ap", kernel_shape=[3, 3], pads=[1] * 4)
    c = net.node("Concat", [p, a], "cat", axis=1)
    c = net.conv(c, "c2", 16, 8, 1)
    s = net.node("Mul", [c, net.node("Sigmoid", [c], "sig")], "swish")
    net.conv(s, "y", 8, 4)
    return net.model({"x": [1, 3, 12, 12]}, {"y": [1, 4, 12, 12]})


def head(rows: int | str = "n", deconv: bool = False) -> ir.Model:
    """A region head: convolutions, then a fully connected layer or a deconvolution."""
    net = Net(2)
    a = net.node("Relu", [net.conv("x", "c1", 4, 8)], "r1")
    a = net.node("Relu", [net.conv(a, "c2", 8, 8)], "r2")
    if deconv:
        names = [a, net.weight("dw", 8, 6, 2, 2), net.weight("db", 6, scale=0.1)]
        net.node("ConvTranspose", names, "y", kernel_shape=[2, 2], strides=[2, 2])
        return net.model({"x": [rows, 4, 7, 7]}, {"y": [rows, 6, 14, 14]})
    f = net.node("Flatten", [a], "flat")
    names = [f, net.weight("fw", 12, 8 * 49), net.weight("fb", 12, scale=0.1)]
    f = net.node("Relu", [net.node("Gemm", names, "fc", transB=1)], "r3")
    net.node("Gemm", [f, net.weight("gw", 3, 12), net.weight("gb", 3, scale=0.1)], "y", transB=1)
    return net.model({"x": [rows, 4, 7, 7]}, {"y": [rows, 3]})


def samples(model: ir.Model, count: int = 4, rows: int = 1, seed: int = 0) -> MemoryCalibration:
    """Seeded inputs of the model's shapes; *rows* for a free first dimension."""
    rng = np.random.default_rng(seed)
    shapes = {
        s.name: [d if isinstance(d, int) else rows for d in s.shape]
        for s in (tensor_spec(v) for v in model.graph.inputs)
    }
    return MemoryCalibration(
        [
            {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
            for _ in range(count)
        ]
    )


def snr(model: ir.Model, other: ir.Model, data: MemoryCalibration) -> float:
    """The smallest ratio of signal to error over all outputs, in dB."""
    worst = np.inf
    for feeds in data:
        wanted, found = evaluate(model, feeds), evaluate(other, feeds)
        for name, array in wanted.items():
            signal = float(np.square(array, dtype=np.float64).sum())
            noise = float(np.square(array.astype(np.float64) - found[name]).sum())
            worst = min(worst, 10 * np.log10(signal / max(noise, 1e-30)))
    return worst
