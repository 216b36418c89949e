"""A small detector with untrained weights, as a file that the COCO commands take."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from adcompile.ir.model_io import to_bytes
from tests.place.nets import two_stage_detector


def detector_with_masks(threshold: float = 0.0) -> onnx.ModelProto:
    """The small two-stage detector, its masks enlarged to the input's size, its labels from 1 on.

    *threshold* is taken from every mask logit: masks get smaller and react more to errors.
    """
    proto = onnx.load_from_string(to_bytes(two_stage_detector()))
    graph = proto.graph
    names = {"masks": "small_masks", "labels": "labels_from_0"}
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    (bias,) = [weight for weight in graph.initializer if weight.name == "mask_logits.b"]
    lower = (numpy_helper.to_array(bias) - threshold).astype(np.float32)
    bias.CopyFrom(numpy_helper.from_array(lower, bias.name))
    one = numpy_helper.from_array(np.array([1], np.int64), "channel_axis")
    scales = numpy_helper.from_array(np.array([1, 1, 2.29, 2.29], np.float32), "scales")
    graph.initializer.extend([one, scales])
    graph.node.append(helper.make_node("Unsqueeze", ["small_masks", "channel_axis"], ["planes"]))
    graph.node.append(helper.make_node("Add", ["labels_from_0", "channel_axis"], ["labels"]))
    graph.node.append(helper.make_node("Resize", ["planes", "", "scales"], ["masks"]))
    (masks,) = [value for value in graph.output if value.name == "masks"]
    shape: list[str | int | None] = ["n", 1, 64, 64]
    masks.CopyFrom(helper.make_tensor_value_info("masks", TensorProto.FLOAT, shape))
    return proto
