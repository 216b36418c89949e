"""What TensorRT and TensorRT-RTX run, from the parser's operator list and from measured builds.

Source tags: S4 DLA pages, S7 onnx-tensorrt operator list per release, S9 TensorRT-RTX documentation,
M measured with tensorrt_rtx 1.7.1 on a CPU (parse and build of one tiny model per case).
Versions are TensorRT's, major * 100 + minor.
"""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Facts, Verdict
from adcompile.ir.graph import dtype_name
from adcompile.place.support import (
    ALL_TYPES,
    APPROXIMATE,
    EXACT,
    FLOATS,
    INTS,
    Refusal,
    Row,
    Site,
    Table,
    judge,
    rows_for,
    words,
)

NUMBERS = (*FLOATS, *INTS)
_BFLOAT_SINCE = 900
RESIZE_COORDINATES = (
    "half_pixel",
    "pytorch_half_pixel",
    "tf_half_pixel_for_nn",
    "asymmetric",
    "align_corners",
)


def supports(node: ir.Node, facts: Facts) -> Verdict:
    """Judge one node for a trt target."""
    verdict = judge(node, facts, TABLE)
    version = facts.target.limits.get("version", _BFLOAT_SINCE)
    if verdict and version < _BFLOAT_SINCE and _has_bfloat(node):
        return Verdict.no("bfloat16 needs TensorRT 9.0", "export in float32", APPROXIMATE, "S1")
    return verdict


def _has_bfloat(node: ir.Node) -> bool:
    return any(dtype_name(v) == "bfloat16" for v in (*node.inputs, *node.outputs) if v is not None)


def _full_only(site: Site) -> Verdict | None:
    if site.facts.target.facts.get("flavour") != "rtx":
        return None
    return Verdict.no(f"TensorRT-RTX cannot build {site.node.op_type}", source="S9, M")


def _topk(site: Site) -> Verdict | None:
    k, limit = site.const(1), site.limit("topk_max", 3840)
    if k is not None and k.size == 1 and int(k.reshape(-1)[0]) > limit:
        return Verdict.no(f"TopK with k > {limit}", source="S7, M")
    return None


def _resize(site: Site) -> Verdict | None:
    node = site.node
    coordinates = site.text("coordinate_transformation_mode", "half_pixel")
    mode = site.text("mode", "nearest")
    rounding = site.text("nearest_mode", "round_prefer_floor")
    if coordinates not in RESIZE_COORDINATES:
        return Verdict.no(f"Resize with coordinates {coordinates!r}", source="S7, M")
    if (coordinates, mode) == ("tf_half_pixel_for_nn", "nearest") and (
        rounding != "round_prefer_floor"
    ):
        return Verdict.no("Resize tf_half_pixel_for_nn only rounds down from .5", source="M")
    if site.number("antialias", 0):
        return Verdict.no("Resize with antialiasing", "turn it off", APPROXIMATE, "S7, M")
    if site.text("keep_aspect_ratio_policy", "stretch") != "stretch":
        return Verdict.no("Resize that keeps the aspect ratio", "give the sizes", EXACT, "S7, M")
    return _resized_axes(site) if node.op_type == "Resize" else None


def _resized_axes(site: Site) -> Verdict | None:
    before, after = site.dims(0), site.out_dims(0)
    if before is None or after is None or len(before) != len(after):
        return None
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    if site.text("mode", "nearest") == "cubic" and (len(before) != 4 or min(changed or [2]) < 2):
        return Verdict.no("cubic Resize of something else than the image axes", source="S7")
    return None


def _pool(site: Site) -> Verdict | None:
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return Verdict.no(f"{site.node.op_type} with dilation", source="S7, M")
    if len(site.kernel()) not in (2, 3):
        return Verdict.no(f"{site.node.op_type} over {len(site.kernel())} axes", source="S7")
    return None


def _zero_point(site: Site) -> Verdict | None:
    zero = site.const(2)
    if zero is not None and zero.any():
        return Verdict.no("quantization with a zero point that is not 0", source="S7, M")
    if site.node.op_type == "DequantizeLinear":
        data = site.input(0)
        if data is not None and dtype_name(data) == "int32":
            return Verdict.no(
                "DequantizeLinear of an int32 bias", "keep the bias float", "exact", "M"
            )
    return None


def _reduction_none(site: Site) -> Verdict | None:
    mode = site.text("reduction", "none")
    return (
        None if mode == "none" else Verdict.no(f"scatter with reduction {mode!r}", source="S7, M")
    )


def _pad(site: Site) -> Verdict | None:
    mode = site.text("mode", "constant")
    measured = {"wrap"} if site.facts.target.facts.get("flavour") == "rtx" else set[str]()
    if mode in {"constant", "reflect", "edge"} | measured:
        return None
    return Verdict.no(f"Pad mode {mode!r}", source="S7")


def _deconv(site: Site) -> Verdict | None:
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return Verdict.no("ConvTranspose with dilation", source="S7")
    return None


def _inference_norm(site: Site) -> Verdict | None:
    if site.number("training_mode", 0):
        return Verdict.no(
            "BatchNormalization in training mode", "export in eval mode", source="S7"
        )
    return None


def _shape_calculation(site: Site) -> Verdict | None:
    """Integer work on vectors is shape arithmetic: nothing to win on a device."""
    dims = site.out_dims(0)
    value = site.node.outputs[0]
    if dims is not None and len(dims) <= 1 and dtype_name(value) in INTS:
        about = "shape arithmetic"
        return Verdict.no(f"{about} stays on the host", source="policy", about=about)
    return None


_S7 = "S7"
_LAYER = Row(dtypes=FLOATS, source=_S7)
_MIXED = Row(dtypes=NUMBERS, source=_S7)
_MOVE = Row(dtypes=ALL_TYPES, source=_S7, checks=(_shape_calculation,))
_BOTH = Row(dtypes=NUMBERS, data=(0, 1), source=_S7, checks=(_shape_calculation,))
_SCATTER = Row(dtypes=NUMBERS, data=(0, 2), checks=(_reduction_none,), source=_S7)
_SINCE_86 = Row(dtypes=FLOATS, since=806, source=_S7)

TABLE = Table(
    family="trt",
    rows={
        **rows_for("Conv", Row(dtypes=FLOATS, rank=(3, 5), source=_S7)),
        **rows_for("ConvTranspose", Row(rank=(3, 5), checks=(_deconv,), source=_S7)),
        **rows_for(
            "MaxPool AveragePool", Row(rank=(4, 5), outputs=1, checks=(_pool,), source=_S7)
        ),
        **rows_for("GlobalAveragePool GlobalMaxPool GlobalLpPool", _LAYER),
        **rows_for("LpPool", Row(rank=(4, 5), checks=(_pool,), since=1000, source=_S7)),
        **rows_for("Gemm", Row(dtypes=FLOATS, rank=(2, 2), source=_S7)),
        **rows_for("MatMul", Row(dtypes=FLOATS, data=(0, 1), source=_S7)),
        **rows_for("BatchNormalization", Row(checks=(_inference_norm,), outputs=1, source=_S7)),
        **rows_for("InstanceNormalization LRN LpNormalization MeanVarianceNormalization", _LAYER),
        **rows_for("LayerNormalization GroupNormalization", _SINCE_86),
        **rows_for("Hardmax IsInf", Row(since=1001, source=_S7)),
        **rows_for("IsNaN", _LAYER),
        **rows_for(
            "Acos Acosh Asin Asinh Atan Atanh Ceil Celu Clip Cos Cosh Elu Erf Exp Floor HardSigmoid "
            "HardSwish LeakyRelu Log LogSoftmax Reciprocal Round Selu Sigmoid Sin Sinh Softmax "
            "Softplus Softsign Sqrt Tan Tanh ThresholdedRelu Einsum CumSum Dropout Shrink",
            _LAYER,
        ),
        **rows_for("Gelu", Row(since=1000, source=_S7)),
        **rows_for("Mish", Row(dtypes=FLOATS[:2], since=806, source=_S7)),
        **rows_for("PRelu Pow", Row(dtypes=FLOATS, data=(0, 1), source=_S7)),
        **rows_for("Abs Neg Sign Relu", _MIXED),
        **rows_for("Add Sub Mul Div Min Max Mod Sum Mean", _BOTH),
        **rows_for("Equal Greater GreaterOrEqual Less LessOrEqual", _BOTH),
        **rows_for(
            "ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin "
            "ReduceProd ReduceSum ReduceSumSquare",
            Row(dtypes=NUMBERS, constant=(1,), checks=(_shape_calculation,), source=_S7),
        ),
        **rows_for("ArgMax ArgMin", _MIXED),
        **rows_for("DepthToSpace SpaceToDepth", Row(dtypes=NUMBERS, rank=(4, 4), source=_S7)),
        **rows_for("Pad", Row(dtypes=NUMBERS, constant=(1, 2), checks=(_pad,), source=_S7)),
        **rows_for("ScatterElements ScatterND", _SCATTER),
        **rows_for("TopK", Row(dtypes=NUMBERS, constant=(1,), checks=(_topk,), source="S7, M")),
        **rows_for("Resize", Row(constant=(1, 2, 3), checks=(_resize,), source="S7, M")),
        **rows_for("Upsample", Row(constant=(1,), checks=(_resize,), source=_S7)),
        **rows_for("Concat Flatten Identity Transpose", _MOVE),
        **rows_for("Gather GatherElements GatherND Trilu", _MOVE),
        **rows_for("Shape Size", Row(data=(), checks=(_shape_calculation,), source=_S7)),
        **rows_for("Constant ConstantOfShape EyeLike", Row(data=(), source=_S7)),
        **rows_for(
            "Expand Reshape Tile Squeeze Unsqueeze Split",
            Row(dtypes=ALL_TYPES, constant=(1,), checks=(_shape_calculation,), source=_S7),
        ),
        **rows_for(
            "Slice",
            Row(dtypes=ALL_TYPES, constant=(1, 2, 3, 4), checks=(_shape_calculation,), source=_S7),
        ),
        **rows_for("OneHot", Row(dtypes=ALL_TYPES, constant=(1,), source=_S7)),
        **rows_for("Where", Row(dtypes=ALL_TYPES, data=(1, 2), source=_S7)),
        **rows_for("Range", Row(dtypes=NUMBERS, source=_S7, checks=(_shape_calculation,))),
        **rows_for("And Or Not Xor", Row(dtypes=("bool",), source=_S7)),
        **rows_for(
            "Cast", Row(dtypes=(*ALL_TYPES, "uint8"), checks=(_shape_calculation,), source=_S7)
        ),
        **rows_for("CastLike", Row(dtypes=ALL_TYPES, since=1000, source=_S7)),
        **rows_for(
            "BlackmanWindow HammingWindow HannWindow", Row(data=(), since=1004, source=_S7)
        ),
        **rows_for("STFT", Row(since=1005, constant=(1,), source="S7, M")),
        **rows_for("LSTM GRU RNN", _LAYER),
        **rows_for("GridSample", Row(dtypes=FLOATS[:2], rank=(4, 4), since=806, source=_S7)),
        **rows_for(
            "DeformConv", Row(FLOATS[:2], since=1007, checks=(_full_only,), source="S7, M")
        ),
        **rows_for("RoiAlign", Row(FLOATS[:2], since=805, checks=(_full_only,), source="S7, M")),
        **rows_for(
            "NonMaxSuppression NonZero",
            Row(FLOATS[:2], since=805, checks=(_full_only,), source="S7, M"),
        ),
        **rows_for("QuantizeLinear", Row(constant=(1, 2), checks=(_zero_point,), source="S7, M")),
        **rows_for(
            "DequantizeLinear",
            Row(
                dtypes=("int8", "uint8", "int32", "float8_e4m3fn", "int4"),
                constant=(1, 2),
                checks=(_zero_point,),
                source="S7, M",
            ),
        ),
    },
    refused=dict.fromkeys(
        words(
            "AffineGrid Bernoulli BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor "
            "Col2Im CenterCropPad Compress ConcatFromSequence ConvInteger DFT Det DynamicQuantizeLinear "
            "ImageDecoder MatMulInteger MaxRoiPool MaxUnpool MelWeightMatrix "
            "Multinomial NegativeLogLikelihoodLoss Optional OptionalGetElement OptionalHasElement "
            "QLinearConv QLinearMatMul RegexFullMatch SequenceAt SequenceConstruct SequenceEmpty "
            "SequenceErase SequenceInsert SequenceLength SequenceMap SoftmaxCrossEntropyLoss "
            "SplitToSequence StringConcat StringNormalizer StringSplit TfIdfVectorizer Unique "
            "BitCast CumProd SwiGLU"
        ),
        Refusal("the TensorRT parser does not read this op", source=_S7),
    ),
    silent="unknown",
    silent_reason="is in no list of the TensorRT parser",
    source=_S7,
)
