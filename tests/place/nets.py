"""Small whole networks for placement tests."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from adcompile.ir.model_io import from_proto
from adcompile.ir.shapes import infer_shapes

Shape = tuple[int | str, ...]


class Builder:
    """Collects nodes and weights of one graph; node names are the names of their first output."""

    def __init__(self, seed: int = 0) -> None:
        self.nodes: list[object] = []
        self.weights: list[object] = []
        self.random = np.random.default_rng(seed)

    def weight(self, name: str, *shape: int) -> str:
        """A random float weight."""
        size = float(np.sqrt(np.prod(shape[1:]) or 1))
        data = (self.random.normal(0, 1, shape) / size).astype(np.float32)
        return self.constant(name, data)

    def constant(self, name: str, data: np.ndarray) -> str:  # type: ignore[type-arg]
        """A constant tensor."""
        self.weights.append(numpy_helper.from_array(data, name))
        return name

    def node(self, op: str, inputs: list[str], outputs: str, **attributes: object) -> str:
        """A node; returns its first output."""
        names = outputs.split()
        self.nodes.append(helper.make_node(op, inputs, names, name=names[0], **attributes))
        return names[0]

    def conv(self, x: str, out: str, cin: int, cout: int, k: int = 3, stride: int = 1) -> str:
        """A convolution with bias, same padding."""
        w, b = self.weight(f"{out}.w", cout, cin, k, k), self.weight(f"{out}.b", cout)
        pads = [k // 2] * 4
        return self.node("Conv", [x, w, b], out, pads=pads, strides=[stride, stride])

    def model(
        self, inputs: dict[str, Shape], outputs: dict[str, Shape | int], *, check: bool = True
    ) -> ir.Model:
        """The model with shapes; an output given as a number is an int64 vector.

        Without *check* it may hold ops of our own domain, which have no shape inference.
        """
        ins = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()]
        outs = [
            helper.make_tensor_value_info(
                n,
                TensorProto.INT64 if isinstance(s, int) else TensorProto.FLOAT,
                [None] if isinstance(s, int) else s,
            )
            for n, s in outputs.items()
        ]
        graph = helper.make_graph(self.nodes, "net", ins, outs, self.weights)
        opsets = [helper.make_opsetid("", 17)]
        if not check:
            opsets.append(helper.make_opsetid("adcompile", 1))
        model = from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
        infer_shapes(model)
        return model


def small_net() -> ir.Model:
    """3×3 and 5×5 convolutions, pooling, then Asinh and a mean on what only a host has."""
    b = Builder()
    x = b.node("Relu", [b.conv("image", "c1", 3, 16)], "r1")
    x = b.node("MaxPool", [x], "p1", kernel_shape=[2, 2], strides=[2, 2])
    x = b.node("Relu", [b.conv(x, "c2", 16, 16, k=5)], "r2")
    x = b.node("Asinh", [x], "s")
    b.node("ReduceMean", [x], "out", axes=[2, 3], keepdims=0)
    return b.model({"image": (1, 3, 64, 64)}, {"out": (1, 16)})


def two_stage_detector(pool: int = 3) -> ir.Model:
    """A Mask R-CNN in small: backbone with a pyramid level from a strided pool, region proposals
    with TopK and NMS, RoiAlign, box head, choice of a class, mask head with ConvTranspose."""
    b = Builder(1)
    mean = b.constant("mean", np.full((1, 3, 1, 1), 0.5, np.float32))
    x = b.node("Sub", ["image", mean], "normalised")
    x = b.node("Relu", [b.conv(x, "c1", 3, 16, stride=2)], "r1")
    x = b.node("Relu", [b.conv(x, "c2", 16, 16, stride=2)], "r2")
    p2 = b.conv(x, "p2", 16, 64)
    p3 = b.node(
        "MaxPool", [p2], "p3", kernel_shape=[pool, pool], strides=[2, 2], pads=[pool // 2] * 4
    )
    levels = [("l2", p2, 16, 16), ("l3", p3, 8, 8)]
    scores, deltas = [], []
    for name, level, _, _ in levels:
        h = b.node("Relu", [b.conv(level, f"rpn_{name}", 64, 16)], f"rpn_{name}_r")
        logits = b.conv(h, f"logits_{name}", 16, 2, k=1)
        delta = b.conv(h, f"delta_{name}", 16, 8, k=1)
        flat = b.constant(f"flat_{name}", np.array([-1], np.int64))
        four = b.constant(f"four_{name}", np.array([-1, 4], np.int64))
        last = b.node("Transpose", [logits], f"logits_{name}_t", perm=[0, 2, 3, 1])
        scores.append(b.node("Reshape", [last, flat], f"logits_{name}_f"))
        last = b.node("Transpose", [delta], f"delta_{name}_t", perm=[0, 2, 3, 1])
        deltas.append(b.node("Reshape", [last, four], f"delta_{name}_f"))
    score = b.node("Sigmoid", [b.node("Concat", scores, "score_cat", axis=0)], "score")
    anchors = b.random.uniform(4, 50, (640, 2)).astype(np.float32)
    boxes = np.concatenate([anchors, anchors + 12], axis=1)
    delta = b.node("Concat", deltas, "delta_cat", axis=0)
    box = b.node("Add", [b.node("Tanh", [delta], "tanh"), b.constant("anchors", boxes)], "box")
    k = b.constant("k", np.array([20], np.int64))
    b.node("TopK", [score, k], "top_score top_index")
    top_box = b.node("Gather", [box, "top_index"], "top_box", axis=0)
    axes = b.constant("axes0", np.array([0], np.int64))
    nms_boxes = b.node("Unsqueeze", [top_box, axes], "nms_boxes")
    axes01 = b.constant("axes01", np.array([0, 1], np.int64))
    nms_scores = b.node("Unsqueeze", ["top_score", axes01], "nms_scores")
    limits = [b.constant("most", np.array([10], np.int64))]
    limits += [b.constant("iou", np.array([0.5], np.float32))]
    limits += [b.constant("least", np.array([0.1], np.float32))]
    chosen = b.node("NonMaxSuppression", [nms_boxes, nms_scores, *limits], "chosen")
    column = b.node("Gather", [chosen, b.constant("two", np.array(2, np.int64))], "column", axis=1)
    rois = b.node("Gather", [top_box, column], "rois", axis=0)
    batch = b.node("Mul", [column, b.constant("zero", np.array(0, np.int64))], "batch")
    align = {"spatial_scale": 0.25, "sampling_ratio": 2, "mode": "avg"}
    feat = b.node(
        "RoiAlign", [p2, rois, batch], "box_feat", output_height=7, output_width=7, **align
    )
    h = b.node("Relu", [b.conv(feat, "box_conv", 64, 64)], "box_conv_r")
    h = b.node("Flatten", [h], "box_flat", axis=1)
    w, bias = b.weight("fc.w", 32, 3136), b.weight("fc.b", 32)
    h = b.node("Relu", [b.node("Gemm", [h, w, bias], "fc", transB=1)], "fc_r")
    w, bias = b.weight("cls.w", 5, 32), b.weight("cls.b", 5)
    cls = b.node("Gemm", [h, w, bias], "cls", transB=1)
    w, bias = b.weight("reg.w", 4, 32), b.weight("reg.b", 4)
    reg = b.node("Gemm", [h, w, bias], "reg", transB=1)
    prob = b.node("Softmax", [cls], "prob", axis=1)
    final = b.node("Add", [b.node("Exp", [reg], "grown"), rois], "boxes")
    labels = b.node("ArgMax", [prob], "labels", axis=1, keepdims=0)
    b.node("ReduceMax", [prob], "scores", axes=[1], keepdims=0)
    feat = b.node(
        "RoiAlign", [p2, final, batch], "mask_feat", output_height=14, output_width=14, **align
    )
    h = b.node("Relu", [b.conv(feat, "mask_conv", 64, 16)], "mask_conv_r")
    h = b.node("Relu", [b.conv(h, "mask_conv2", 16, 16)], "mask_conv2_r")
    w = b.weight("up.w", 16, 16, 2, 2)
    h = b.node("Relu", [b.node("ConvTranspose", [h, w], "up", strides=[2, 2])], "up_r")
    maps = b.node("Sigmoid", [b.conv(h, "mask_logits", 16, 5, k=1)], "maps")
    per_row = b.node("Unsqueeze", [labels, b.constant("one", np.array([1], np.int64))], "column2")
    b.node("GatherND", [maps, per_row], "masks", batch_dims=1)
    return b.model(
        {"image": (1, 3, 64, 64)},
        {"boxes": (None, 4), "labels": 1, "scores": (None,), "masks": (None, 28, 28)},
    )
