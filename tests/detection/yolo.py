"""Detectors with the heads of well-known exports, whose boxes are known by construction.

A cell that is all red is an object of class 0, one that is all green of class 1, and its box is the
cell. Three strides look at the same picture, so a block of 16×16 pixels is one object of stride 16
and four of stride 8.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SIDE = 64
STRIDES = (8, 16, 32)
CLASSES = ("red", "green")
BINS = 16
CELLS = sum((SIDE // s) ** 2 for s in STRIDES)
NAMES = repr(dict(enumerate(CLASSES)))
METADATA = {"task": "detect", "stride": "32", "names": NAMES, "imgsz": f"[{SIDE}, {SIDE}]"}


class Graph:
    """Nodes and constants of a model under construction."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def const(self, name: str, values: object, dtype: type = np.float32) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def op(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))  # type: ignore[arg-type]
        return output

    def finish(
        self, outputs: dict[str, list[int]], metadata: dict[str, str] | None
    ) -> onnx.ModelProto:
        image = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
        made = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in outputs.items()]
        graph = helper.make_graph(self.nodes, "yolo", [image], made, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        helper.set_model_props(model, metadata or {})
        return model


def _convolution(
    graph: Graph, name: str, weight: np.ndarray, bias: np.ndarray, stride: int
) -> str:
    """Means of the cells, then a 1×1 convolution."""
    mean = f"mean{stride}"
    if not any(mean in node.output for node in graph.nodes):
        shape = {"kernel_shape": [stride] * 2, "strides": [stride] * 2}
        graph.op("AveragePool", ["images"], mean, **shape)
    inputs = [mean, graph.const(f"{name}.w", weight[:, :, None, None])]
    return graph.op("Conv", [*inputs, graph.const(f"{name}.b", bias)], name, kernel_shape=[1, 1])


_COLOURS = np.array([[40, -40, -40], [-40, 40, -40]], np.float32)


def yolov8(metadata: dict[str, str] | None = METADATA) -> onnx.ModelProto:
    """The head of Ultralytics v8 and 11: per stride boxes (bins) and classes in one tensor, all strides
    in one row, expectation over the bins, distances to boxes, strides, one output [1,4+2,A]."""
    graph = Graph()
    bins = np.full((4, BINS), -20, np.float32)
    bins[:, :2] = 4  # half of a cell: between 0 and 1
    rows = []
    for stride in STRIDES:
        nothing = np.zeros((4 * BINS, 3), np.float32)
        sides = _convolution(graph, f"sides{stride}", nothing, bins.ravel(), stride)
        kinds = _convolution(
            graph, f"kinds{stride}", _COLOURS, np.full(2, -30, np.float32), stride
        )
        both = graph.op("Concat", [sides, kinds], f"both{stride}", axis=1)
        flat = graph.const(f"flat{stride}", [1, 4 * BINS + 2, -1], np.int64)
        rows.append(graph.op("Reshape", [both, flat], f"row{stride}"))
    table = graph.op("Concat", rows, "table", axis=2)
    sizes = graph.const("sizes", [4 * BINS, 2], np.int64)
    graph.nodes.append(
        helper.make_node("Split", [table, sizes], ["sides", "kinds"], "split", axis=1)
    )
    split = graph.const("by_side", [1, 4, BINS, CELLS], np.int64)
    by_side = graph.op("Reshape", ["sides", split], "by_side_out")
    turned = graph.op("Transpose", [by_side], "turned", perm=[0, 2, 1, 3])
    share = graph.op("Softmax", [turned], "share", axis=1)
    weight = graph.const("bins", np.arange(BINS).reshape(1, BINS, 1, 1))
    mean = graph.op("Conv", [share, weight], "expectation", kernel_shape=[1, 1])
    distances = graph.op(
        "Reshape", [mean, graph.const("four", [1, 4, CELLS], np.int64)], "distances"
    )
    halves = graph.const("halves", [2, 2], np.int64)
    graph.nodes.append(
        helper.make_node("Split", [distances, halves], ["low", "high"], "split2", axis=1)
    )
    centres, strides = _cells()
    anchors = graph.const("anchors", centres.T[None])
    first = graph.op("Sub", [anchors, "low"], "first")
    second = graph.op("Add", [anchors, "high"], "second")
    total = graph.op("Add", [first, second], "total")
    centre = graph.op("Div", [total, graph.const("two", 2.0)], "centre")
    size = graph.op("Sub", [second, first], "size")
    boxes = graph.op("Concat", [centre, size], "in_cells", axis=1)
    pixels = graph.op("Mul", [boxes, graph.const("strides", strides.T[None])], "pixels")
    scores = graph.op("Sigmoid", ["kinds"], "scores_out")
    graph.op("Concat", [pixels, scores], "output0", axis=1)
    return graph.finish({"output0": [1, 6, CELLS]}, metadata)


def _cells() -> tuple[np.ndarray, np.ndarray]:
    """Centres of all cells (x, y) in cells, and their strides [A,1]."""
    centres, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[0 : SIDE // stride, 0 : SIDE // stride]
        centres.append(np.stack([x, y], -1).reshape(-1, 2) + 0.5)
        strides.append(np.full((len(centres[-1]), 1), stride))
    return np.concatenate(centres).astype(np.float32), np.concatenate(strides).astype(np.float32)


def yolox(metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """YOLOX without decoding in the graph: per stride box, object and classes, then all as rows."""
    graph = Graph()
    rows = []
    for stride in STRIDES:
        box = _convolution(
            graph,
            f"box{stride}",
            np.zeros((4, 3), np.float32),
            np.array([0.5, 0.5, 0, 0], np.float32),
            stride,
        )
        thing = _convolution(
            graph,
            f"thing{stride}",
            np.full((1, 3), 40.0, np.float32),
            np.full(1, -30.0, np.float32),
            stride,
        )
        kinds = _convolution(
            graph, f"kinds{stride}", _COLOURS, np.full(2, -30, np.float32), stride
        )
        squashed = [graph.op("Sigmoid", [x], f"{x}_s") for x in (thing, kinds)]
        both = graph.op("Concat", [box, *squashed], f"both{stride}", axis=1)
        flat = graph.const(f"flat{stride}", [1, 7, -1], np.int64)
        rows.append(graph.op("Reshape", [both, flat], f"row{stride}"))
    table = graph.op("Concat", rows, "table", axis=2)
    graph.op("Transpose", [table], "output", perm=[0, 2, 1])
    return graph.finish({"output": [1, CELLS, 7]}, metadata)


def raw_model(*shapes: list[int], opset: int = 17) -> onnx.ModelProto:
    """A model that hands its inputs "x0", "x1" … out as "y0", "y1" …; nobody reads its image."""
    kind = TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(f"x{i}", kind, s) for i, s in enumerate(shapes)]
    outputs = [helper.make_tensor_value_info(f"y{i}", kind, s) for i, s in enumerate(shapes)]
    image = helper.make_tensor_value_info("images", kind, [1, 3, SIDE, SIDE])
    nodes = [helper.make_node("Identity", [f"x{i}"], [f"y{i}"]) for i in range(len(shapes))]
    graph = helper.make_graph(nodes, "raw", [image, *inputs], outputs)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def picture() -> np.ndarray:
    """RGB [64,64,3]: a red block of 8×8 at (16, 8), a green one of 16×16 at (32, 32)."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    image[8:16, 16:24, 0] = 255
    image[32:48, 32:48, 1] = 255
    return image


EXPECTED = {
    (0, (16, 8, 24, 16)),
    (1, (32, 32, 48, 48)),
    (1, (32, 32, 40, 40)),
    (1, (40, 32, 48, 40)),
    (1, (32, 40, 40, 48)),
    (1, (40, 40, 48, 48)),
}
"""Label and corners of everything in :func:`picture`."""
