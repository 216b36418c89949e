"""One small model per ONNX op: what the support tables are tried on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, numpy_helper

from adcompile.interfaces import Array
from adcompile.ir.model_io import from_proto
from adcompile.ir.shapes import infer_shapes
from adcompile.place.support import words

IMAGE = (1, 4, 8, 8)


@dataclass(frozen=True)
class Free:
    """A graph input."""

    shape: tuple[int | str, ...] = IMAGE
    dtype: int = TensorProto.FLOAT


@dataclass(frozen=True)
class Case:
    """A node: inputs are graph inputs, constant arrays, or left out (None)."""

    op: str
    inputs: Sequence[Free | Array | None] = (Free(),)
    attributes: Mapping[str, object] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 17
    domain: str = ""
    result: Free | None = None  # where shape inference knows nothing

    def proto(self) -> onnx.ModelProto:
        """The model, with inferred output types."""
        names = ["" if v is None else f"i{k}" for k, v in enumerate(self.inputs)]
        node = helper.make_node(
            self.op,
            names,
            [f"o{k}" for k in range(self.outputs)],
            name="node",
            domain=self.domain,
            **self.attributes,
        )
        inputs, constants = [], []
        for name, value in zip(names, self.inputs, strict=True):
            if isinstance(value, Free):
                inputs.append(helper.make_tensor_value_info(name, value.dtype, value.shape))
            elif value is not None:
                constants.append(numpy_helper.from_array(np.asarray(value), name))
        opsets = [helper.make_opsetid("", self.opset)]
        if self.domain:
            opsets.append(helper.make_opsetid(self.domain, 1))
        graph = helper.make_graph([node], "case", inputs, [], constants)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
        known = {v.name: v for v in inferred.graph.value_info}
        if self.result is not None:
            result = self.result
            known["o0"] = helper.make_tensor_value_info("o0", result.dtype, result.shape)
        for name in node.output:
            bare = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            model.graph.output.append(known.get(name, bare))
        return model

    def model(self) -> ir.Model:
        """The model in our IR, with shapes."""
        model = from_proto(self.proto())
        if self.result is None:
            infer_shapes(model)
        return model

    def node(self) -> ir.Node:
        """Its only node."""
        return self.model().graph[0]


def ints(*values: int) -> Array:
    """Constant int64 vector."""
    return np.array(values, dtype=np.int64)


def floats(*shape: int) -> Array:
    """Constant float32 tensor."""
    return np.random.default_rng(0).normal(0, 1, shape).astype(np.float32)


def scalar(value: float) -> Array:
    """Constant float32 scalar."""
    return np.array(value, dtype=np.float32)


def integer(*shape: int | str) -> Free:
    """An int64 input."""
    return Free(shape, TensorProto.INT64)


def boolean(*shape: int | str) -> Free:
    """A bool input."""
    return Free(shape, TensorProto.BOOL)


X, V = Free(), Free((1, 16))
UNARY = words(
    """Abs Acos Acosh Asin Asinh Atan Atanh Ceil Celu Cos Cosh Elu Erf Exp Floor
HardSigmoid HardSwish Identity IsNaN LeakyRelu Log LogSoftmax Neg Reciprocal Relu Round Selu Shrink
Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Dropout Flatten
GlobalAveragePool GlobalMaxPool IsInf Hardmax Shape Size"""
)
REDUCTIONS = words(
    """ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSumSquare"""
)

CASES: dict[str, Case] = {
    **{op: Case(op, (X,)) for op in UNARY},
    **{op: Case(op, (X, X)) for op in ("Add", "Sub", "Mul", "Div", "Min", "Max", "Sum", "Mean")},
    **{
        op: Case(op, (X, X))
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    },
    **{op: Case(op, (X,), {"axes": [2, 3], "keepdims": 1}) for op in REDUCTIONS},
    **{op: Case(op, (boolean(1, 4), boolean(1, 4))) for op in ("And", "Or", "Xor")},
    "ArgMax": Case("ArgMax", (X,), {"axis": 1}),
    "ArgMin": Case("ArgMin", (X,), {"axis": 1}),
    "AveragePool": Case("AveragePool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "BatchNormalization": Case(
        "BatchNormalization", (X, floats(4), floats(4), floats(4), np.abs(floats(4)))
    ),
    "BlackmanWindow": Case("BlackmanWindow", (np.array(8, np.int64),)),
    "HammingWindow": Case("HammingWindow", (np.array(8, np.int64),)),
    "HannWindow": Case("HannWindow", (np.array(8, np.int64),)),
    "BitShift": Case("BitShift", (Free((1, 4), 2), Free((1, 4), 2)), {"direction": "LEFT"}),
    "BitwiseAnd": Case("BitwiseAnd", (Free((1, 4), 2), Free((1, 4), 2)), opset=18),
    "BitwiseNot": Case("BitwiseNot", (Free((1, 4), 2),), opset=18),
    "BitwiseOr": Case("BitwiseOr", (Free((1, 4), 2), Free((1, 4), 2)), opset=18),
    "BitwiseXor": Case("BitwiseXor", (Free((1, 4), 2), Free((1, 4), 2)), opset=18),
    "Cast": Case("Cast", (X,), {"to": TensorProto.FLOAT16}),
    "CastLike": Case("CastLike", (X, Free((1,), TensorProto.FLOAT16))),
    "Clip": Case("Clip", (X, scalar(0), scalar(6))),
    "Concat": Case("Concat", (X, X), {"axis": 1}),
    "Conv": Case("Conv", (X, floats(6, 4, 3, 3), floats(6)), {"pads": [1, 1, 1, 1]}),
    "ConvTranspose": Case("ConvTranspose", (X, floats(4, 5, 2, 2)), {"strides": [2, 2]}),
    "CumSum": Case("CumSum", (X, np.array(1, dtype=np.int64))),
    "DeformConv": Case("DeformConv", (X, floats(6, 4, 3, 3), Free((1, 18, 6, 6))), {}, opset=19),
    "DepthToSpace": Case("DepthToSpace", (X,), {"blocksize": 2}),
    "DequantizeLinear": Case(
        "DequantizeLinear", (Free(IMAGE, TensorProto.INT8), scalar(0.1), np.int8(0))
    ),
    "Einsum": Case("Einsum", (V, Free((16, 8))), {"equation": "ij,jk->ik"}),
    "Expand": Case("Expand", (Free((1, 4, 1, 1)), ints(1, 4, 8, 8))),
    "EyeLike": Case("EyeLike", (Free((4, 4)),)),
    "Gather": Case("Gather", (X, ints(0, 2)), {"axis": 1}),
    "GatherElements": Case("GatherElements", (V, ints(3, 1).reshape(1, 2)), {"axis": 1}),
    "GatherND": Case("GatherND", (V, ints(0, 1).reshape(1, 2))),
    "Gelu": Case("Gelu", (X,), opset=20),
    "Gemm": Case("Gemm", (V, floats(8, 16), floats(8)), {"transB": 1}),
    "GlobalLpPool": Case("GlobalLpPool", (X,)),
    "GRU": Case("GRU", (Free((3, 1, 4)), floats(1, 6, 4), floats(1, 6, 2)), {"hidden_size": 2}),
    "GridSample": Case("GridSample", (X, Free((1, 4, 4, 2)))),
    "GroupNormalization": Case(
        "GroupNormalization", (X, floats(4), floats(4)), {"num_groups": 2}, opset=21, result=X
    ),
    "InstanceNormalization": Case("InstanceNormalization", (X, floats(4), floats(4))),
    "LayerNormalization": Case("LayerNormalization", (X, floats(8), floats(8))),
    "LRN": Case("LRN", (X,), {"size": 3}),
    "LSTM": Case("LSTM", (Free((3, 1, 4)), floats(1, 8, 4), floats(1, 8, 2)), {"hidden_size": 2}),
    "LpNormalization": Case("LpNormalization", (X,), {"axis": 1}),
    "LpPool": Case("LpPool", (X,), {"kernel_shape": [2, 2]}),
    "MatMul": Case("MatMul", (V, floats(16, 8))),
    "MaxPool": Case("MaxPool", (X,), {"kernel_shape": [2, 2], "strides": [2, 2]}),
    "MeanVarianceNormalization": Case("MeanVarianceNormalization", (X,), result=X),
    "Mish": Case("Mish", (X,), opset=18),
    "Mod": Case("Mod", (X, X), {"fmod": 1}),
    "NonMaxSuppression": Case(
        "NonMaxSuppression", (Free((1, 9, 4)), Free((1, 1, 9)), ints(5), floats(1), floats(1))
    ),
    "NonZero": Case("NonZero", (X,)),
    "Not": Case("Not", (boolean(1, 4),)),
    "OneHot": Case("OneHot", (integer(1, 4), ints(6), floats(2))),
    "PRelu": Case("PRelu", (X, floats(4, 1, 1))),
    "Pad": Case("Pad", (X, ints(0, 0, 1, 1, 0, 0, 1, 1))),
    "Pow": Case("Pow", (X, scalar(2))),
    "QLinearMatMul": Case(
        "QLinearMatMul",
        (
            *(Free((1, 4), TensorProto.UINT8), scalar(1), np.uint8(0)),
            *(np.ones((4, 2), np.uint8), scalar(1), np.uint8(0), scalar(1), np.uint8(0)),
        ),
    ),
    "QLinearConv": Case(
        "QLinearConv",
        (
            *(Free(IMAGE, TensorProto.UINT8), scalar(1), np.uint8(0)),
            *(np.ones((2, 4, 1, 1), np.uint8), scalar(1), np.uint8(0), scalar(1), np.uint8(0)),
        ),
    ),
    "QuantizeLinear": Case("QuantizeLinear", (X, scalar(0.1), np.int8(0))),
    "RNN": Case("RNN", (Free((3, 1, 4)), floats(1, 2, 4), floats(1, 2, 2)), {"hidden_size": 2}),
    "Range": Case("Range", (scalar(0), scalar(4), scalar(1))),
    "ReduceSum": Case("ReduceSum", (X, ints(2, 3))),
    "Reshape": Case("Reshape", (X, ints(1, -1))),
    "Resize": Case(
        "Resize",
        (X, None, np.array([1, 1, 2, 2], np.float32)),
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    "RoiAlign": Case("RoiAlign", (X, floats(5, 4), ints(0, 0, 0, 0, 0)), {"output_height": 2}),
    "STFT": Case("STFT", (Free((1, 64, 1)), np.int64(16), floats(16))),
    "ScatterElements": Case(
        "ScatterElements", (V, ints(3, 1).reshape(1, 2), Free((1, 2))), {"axis": 1}
    ),
    "ScatterND": Case("ScatterND", (V, ints(0, 1).reshape(1, 2), Free((1,)))),
    "Slice": Case("Slice", (X, ints(0), ints(4), ints(2))),
    "SpaceToDepth": Case("SpaceToDepth", (X,), {"blocksize": 2}),
    "Split": Case("Split", (X, ints(2, 2)), {"axis": 1}, outputs=2),
    "Squeeze": Case("Squeeze", (Free((1, 4, 1, 1)), ints(2, 3))),
    "Tile": Case("Tile", (V, ints(1, 2))),
    "TopK": Case("TopK", (V, ints(3)), outputs=2),
    "Transpose": Case("Transpose", (X,), {"perm": [0, 2, 3, 1]}),
    "Trilu": Case("Trilu", (Free((1, 4, 4)),)),
    "Unique": Case("Unique", (V,)),
    "Unsqueeze": Case("Unsqueeze", (V, ints(2, 3))),
    "Upsample": Case("Upsample", (X, np.array([1, 1, 2, 2], np.float32)), opset=9),
    "Where": Case("Where", (boolean(1, 16), V, V)),
    "ConstantOfShape": Case("ConstantOfShape", (ints(1, 4),)),
}


def resize(scale: float, **attributes: object) -> Case:
    """A Resize of the image axes."""
    return Case("Resize", (X, None, np.array([1, 1, scale, scale], np.float32)), attributes)


def quantize(zero: np.generic, op: str = "QuantizeLinear") -> Case:
    """A QuantizeLinear or DequantizeLinear with this zero point."""
    kinds = {"int8": 3, "uint8": 2, "int32": 6}
    data = X if op == "QuantizeLinear" else Free(IMAGE, kinds[zero.dtype.name])
    return Case(op, (data, scalar(0.1), zero))


CUBE = Free((1, 4, 4, 4, 4))
# variants of ops that depend on attributes, shapes or types
VARIANTS: dict[str, Case] = {
    "topk_3840": Case("TopK", (Free((1, 5000)), ints(3840)), outputs=2),
    "topk_4000": Case("TopK", (Free((1, 5000)), ints(4000)), outputs=2),
    "resize_linear": resize(2, mode="linear"),
    "resize_align": resize(2, mode="linear", coordinate_transformation_mode="align_corners"),
    "resize_cubic": resize(2, mode="cubic"),
    "resize_symmetric": Case(
        "Resize",
        (X, None, np.array([1, 1, 2, 2], np.float32)),
        {"coordinate_transformation_mode": "half_pixel_symmetric", "mode": "linear"},
        opset=19,
    ),
    "resize_antialias": Case(
        "Resize",
        (X, None, np.array([1, 1, 0.5, 0.5], np.float32)),
        {"mode": "linear", "antialias": 1},
        opset=18,
    ),
    "resize_keep": Case(
        "Resize",
        (X, None, None, ints(4, 4)),
        {"axes": [2, 3], "keep_aspect_ratio_policy": "not_larger"},
        opset=18,
    ),
    "resize_tf": resize(
        2, coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="ceil"
    ),
    "pool_dilated": Case("MaxPool", (X,), {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    "pool_indices": Case("MaxPool", (X,), {"kernel_shape": [2, 2]}, outputs=2),
    "pool_1x1": Case("MaxPool", (X,), {"kernel_shape": [1, 1], "strides": [2, 2]}),
    "pool_big": Case("AveragePool", (Free((1, 4, 32, 32)),), {"kernel_shape": [28, 28]}),
    "pool_ceil": Case(
        "MaxPool", (X,), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}
    ),
    "conv_1d": Case("Conv", (Free((1, 4, 8)), floats(6, 4, 3))),
    "conv_3d": Case("Conv", (CUBE, floats(6, 4, 3, 3, 3))),
    "conv_depthwise": Case("Conv", (X, floats(4, 1, 3, 3)), {"group": 4}),
    "conv_grouped": Case("Conv", (X, floats(4, 2, 3, 3)), {"group": 2}),
    "conv_dilated": Case("Conv", (X, floats(6, 4, 3, 3)), {"dilations": [2, 2]}),
    "conv_computed": Case("Conv", (X, Free((6, 4, 3, 3)))),
    "conv_batch": Case("Conv", (Free((2, 4, 8, 8)), floats(6, 4, 3, 3))),
    "conv_huge": Case("Conv", (Free((1, 4, 32, 32)), floats(6, 4, 17, 17))),
    "conv_half": Case("Conv", (Free(IMAGE, 10), floats(6, 4, 3, 3).astype(np.float16))),
    "conv_double": Case("Conv", (Free(IMAGE, 11), floats(6, 4, 3, 3).astype(np.float64))),
    "conv_free": Case("Conv", (Free(("n", 4, 8, 8)), floats(6, 4, 3, 3))),
    "relu_empty": Case("Relu", (Free((1, 0, 8, 8)),)),
    "pad_reflect": Case("Pad", (X, ints(0, 0, 1, 1, 0, 0, 1, 1)), {"mode": "reflect"}),
    "pad_wrap": Case("Pad", (X, ints(0, 0, 1, 1, 0, 0, 1, 1)), {"mode": "wrap"}, opset=19),
    "relu_bfloat": Case("Relu", (Free((1, 8), TensorProto.BFLOAT16),)),
    "scatter_add": Case(
        "ScatterND", (V, ints(0, 1).reshape(1, 2), Free((1,))), {"reduction": "add"}
    ),
    "quantize_5": quantize(np.int8(5)),
    "quantize_128": quantize(np.uint8(128)),
    "dequantize_bias": quantize(np.int32(0), "DequantizeLinear"),
    "reshape_computed": Case("Reshape", (X, integer(2)), result=V),
    "add_int64": Case("Add", (integer(1, 4), integer(1, 4))),
    "add_shape": Case("Add", (integer(4), integer(4))),
    "add_5d": Case("Add", (CUBE, CUBE)),
    "custom": Case("Frobnicate", (X,), domain="com.example", result=X),
}
