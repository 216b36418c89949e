"""Small models built in code, seeded: enough structure to be split, small enough to be fast."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _weight(name: str, rng: np.random.Generator, *shape: int) -> onnx.TensorProto:
    scale = 1.0 / np.sqrt(np.prod(shape[1:]))
    return numpy_helper.from_array((rng.normal(size=shape) * scale).astype(np.float32), name)


def _ints(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, dtype=np.int64), name)


def cnn(seed: int = 0, side: int = 32) -> onnx.ModelProto:
    """Four convolutions with ReLU, a pool and a residual sum: 1×3×S×S to 1×16×S/4×S/4."""
    rng = np.random.default_rng(seed)
    nodes = [
        helper.make_node(
            "Conv", ["image", "w0"], ["c0"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]
        ),
        helper.make_node("Relu", ["c0"], ["r0"], "stem_relu"),
        helper.make_node("MaxPool", ["r0"], ["p0"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p0", "w1"], ["c1"], "block_a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"], "block_relu"),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], "block_b", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c2", "p0"], ["s"], "sum"),
        helper.make_node("Relu", ["s"], ["features"], "out_relu"),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [
            helper.make_tensor_value_info(
                "features", TensorProto.FLOAT, [1, 16, side // 4, side // 4]
            )
        ],
        [
            _weight("w0", rng, 16, 3, 3, 3),
            _weight("w1", rng, 16, 16, 3, 3),
            _weight("w2", rng, 16, 16, 3, 3),
        ],
    )
    return finish(graph)


def detector(seed: int = 0, side: int = 32) -> onnx.ModelProto:
    """A one-class detector: CNN on the device, then TopK and NonMaxSuppression on the host.

    Boxes and scores come from a grid of convolution outputs; the number of results depends on the
    data, and may be zero.
    """
    model = cnn(seed, side)
    rng = np.random.default_rng(seed + 1)
    cells = (side // 4) ** 2
    nodes = [
        helper.make_node("Conv", ["features", "wb"], ["box_map"], "box_conv"),
        helper.make_node("Conv", ["features", "ws"], ["score_map"], "score_conv"),
        helper.make_node("Sigmoid", ["score_map"], ["score_grid"], "squash"),
        helper.make_node("Reshape", ["box_map", "box_shape"], ["box_rows"], "box_rows"),
        helper.make_node("Transpose", ["box_rows"], ["raw"], "box_order", perm=[0, 2, 1]),
        helper.make_node("Abs", ["raw"], ["size"], "size"),
        helper.make_node("Add", ["size", "anchors"], ["all_boxes"], "decode"),
        helper.make_node("Reshape", ["score_grid", "score_shape"], ["all_scores"], "score_rows"),
        helper.make_node(
            "NonMaxSuppression",
            ["all_boxes", "all_scores", "max_out", "iou", "threshold"],
            ["kept"],
            "nms",
        ),
        helper.make_node("Gather", ["kept", "two"], ["picked"], "pick", axis=1),
        helper.make_node("Squeeze", ["picked", "one"], ["index"], "index"),
        helper.make_node("Squeeze", ["all_boxes", "zero"], ["flat_boxes"], "flat_boxes"),
        helper.make_node("Gather", ["flat_boxes", "index"], ["boxes"], "take_boxes", axis=0),
        helper.make_node("Reshape", ["all_scores", "minus"], ["flat_scores"], "flat_scores"),
        helper.make_node("Gather", ["flat_scores", "index"], ["scores"], "take_scores", axis=0),
        helper.make_node("Shape", ["scores"], ["count"], "count"),
        helper.make_node(
            "ConstantOfShape",
            ["count"],
            ["labels"],
            "label",
            value=numpy_helper.from_array(np.array([1], dtype=np.int64)),
        ),
    ]
    grid = np.stack(np.meshgrid(np.arange(side // 4), np.arange(side // 4)), -1).reshape(-1, 2) * 4
    anchors = np.concatenate([grid, grid + 6], axis=1).astype(np.float32)[None]
    graph = model.graph
    graph.name = "detector"
    graph.node.extend(nodes)
    graph.initializer.extend(
        [
            _weight("wb", rng, 4, 16, 1, 1),
            _weight("ws", rng, 1, 16, 1, 1),
            _ints("box_shape", 1, 4, cells),
            _ints("score_shape", 1, 1, cells),
            numpy_helper.from_array(anchors, "anchors"),
            _ints("max_out", 10),
            numpy_helper.from_array(np.array([0.4], np.float32), "iou"),
            numpy_helper.from_array(np.array([0.5], np.float32), "threshold"),
            _ints("two", 2),
            _ints("one", 1),
            _ints("zero", 0),
            _ints("minus", -1),
        ]
    )
    del graph.output[:]
    graph.output.extend(
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["N"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N"]),
        ]
    )
    return finish(graph)


def dynamic(side: int | str = "S") -> onnx.ModelProto:
    """A convolution whose image size is free."""
    rng = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "w"], ["features"], "conv", pads=[1, 1, 1, 1])],
        "dynamic",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, side, side])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [1, 8, side, side])],
        [_weight("w", rng, 8, 3, 3, 3)],
    )
    return finish(graph)


def finish(graph: onnx.GraphProto, opset: int = 17) -> onnx.ModelProto:
    """Wrap a graph and check it."""
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(model)
    return model
