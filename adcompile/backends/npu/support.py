"""What the Ryzen AI NPU runs, by precision: AMD's operator table, and limits of older compilers.

Source tags: S11 ryzen-ai-documentation (operator table of the 1.5 to 1.8 releases), S12 RyzenAI-SW
issues, S13 the reference Mask R-CNN on Ryzen AI, S14 PG367 and Vitis AI 2025.1 (older compilers: a
shape beyond them is a caution here, the installer's report is the authority).
A "Y" in AMD's table means broad coverage, not every configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import onnx_ir as ir

from adcompile.interfaces import Facts, Verdict
from adcompile.place.support import (
    APPROXIMATE,
    EXACT,
    QUANTIZED,
    Check,
    Refusal,
    Row,
    Site,
    Table,
    judge,
    one_image,
    words,
)

# AMD's table, a column per precision
_EVERYWHERE = """Add AveragePool BatchNormalization Concat Constant ConstantOfShape Conv DepthToSpace
Div Expand Flatten Gemm GlobalAveragePool Identity InstanceNormalization MatMul Max MaxPool Min Mul Pad
Reciprocal ReduceMax Reshape Shape Slice Sqrt Squeeze Sub Transpose Unsqueeze"""
_INTEGER = (
    "Clip DequantizeLinear Gelu GlobalMaxPool GroupNormalization LeakyRelu Relu Softmax Upsample"
)
COLUMNS: Mapping[str, tuple[str, ...]] = {
    "xint8": words(
        f"""{_EVERYWHERE} {_INTEGER} Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr
        BitwiseXor Cast Ceil Celu CumSum Elu Equal Erf Floor Greater GreaterOrEqual HardSwish
        LayerNormalization Less LessOrEqual Log Mish Neg Or Pow Range ReduceMean ReduceMin ReduceSum
        Resize Round STFT Shrink Sign Softsign Tanh ThresholdedRelu Tile TopK Where"""
    ),
    "a8w8": words(
        f"""{_EVERYWHERE} {_INTEGER} ConvTranspose Cos HardSigmoid HardSwish QLinearConv QLinearMatMul
        QuantizeLinear ReduceMean ReduceMin ReduceSum Resize Sigmoid Sin"""
    ),
    "a16w8": words(
        f"""{_EVERYWHERE} {_INTEGER} ConvTranspose Cos Elu Exp GatherElements QLinearConv
        QuantizeLinear Sigmoid Sin Split Tanh TopK Where"""
    ),
    "bf16": words(
        f"""{_EVERYWHERE} Abs And ArgMax ArgMin BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor
        Cast Ceil ConvTranspose CumSum Einsum Equal Erf Exp Floor Gather GatherElements Greater
        GridSample LSTM Less Log Mod Neg Not Or Pow ReduceMean ReduceMin ReduceSum Resize Round
        ScatterND Sigmoid Sign Sin Size Split Tanh Tile Where Xor"""
    ),
}
# absent from the bf16 column although float networks with them compile: treated as a gap
_BF16_GAP = words("Relu Clip LeakyRelu Softmax LayerNormalization Gelu")
_GAP = "the BF16 column does not list this op; float CNNs with it are known to compile"


def supports(node: ir.Node, facts: Facts) -> Verdict:
    """Judge one node for an npu target. ``fp32`` means: in at least one precision of the chip."""
    if facts.precision != "fp32":
        return _judge(node, facts)
    chip = [p for p in facts.target.precisions if p != "fp32"]
    verdicts = [_judge(node, replace(facts, precision=p)) for p in chip]
    return next((v for v in verdicts if v), verdicts[0])


def _judge(node: ir.Node, facts: Facts) -> Verdict:
    verdict = judge(node, facts, TABLE)
    if verdict and facts.precision == "bf16" and node.op_type in _BF16_GAP:
        return replace(verdict, reason=_GAP)
    return verdict


def _batch(site: Site) -> Verdict | None:
    dims = site.dims(0)
    return one_image(site, dims, "S11") if dims is not None and len(dims) >= 4 else None


def _caution(text: str) -> Verdict:
    return Verdict("supported", f"{text}; see the VitisAI report of the build", source="S14")


def _conv(site: Site) -> Verdict | None:
    if site.const(1) is None:
        return Verdict.no("Conv with computed weights", source="S11")
    dims = site.dims(0)
    if dims is not None and len(dims) != 4:
        return Verdict.unknown(f"Conv over {len(dims) - 2} axes; only 2-D is documented", "S14")
    limit = site.limit("conv_kernel", 16)
    if any(k > limit for k in site.kernel()):
        return _caution(f"Conv kernel above {limit}")
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return _caution("dilated Conv")
    return None


def _weights(site: Site) -> Verdict | None:
    if site.const(1) is None and site.node.op_type != "MatMul":
        return Verdict.no(f"{site.node.op_type} with computed weights", source="S11")
    return None


def _max_pool(site: Site) -> Verdict | None:
    strided = any(s > 1 for s in site.numbers("strides", (1,)))
    if strided and all(k == 1 for k in site.kernel()):
        return Verdict.no(
            "MaxPool with a 1×1 window and a stride",
            "replace it by an identity depthwise convolution (done by the npu passes)",
            EXACT,
            "S13",
        )
    if site.number("ceil_mode", 0):
        return _pool(site) or _caution("pooling with ceil_mode")
    return _pool(site)


def _pool(site: Site) -> Verdict | None:
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return Verdict.unknown("pooling with dilation is not documented", "S14")
    limit = site.limit("pool_kernel", 20)
    if any(k > limit for k in site.kernel()):
        return _caution(f"pooling window above {limit}")
    return None


def _resize(site: Site) -> Verdict | None:
    mode = site.text("mode", "nearest")
    if mode == "cubic":
        return Verdict.no("cubic Resize", "export with mode linear", APPROXIMATE, "S14")
    before, after = site.dims(0), site.out_dims(0)
    limit = site.limit("resize_scale", 32)
    pairs = list(zip(before or (), after or (), strict=False))
    if any(a and b and max(b / a, a / b) > limit for a, b in pairs):
        return _caution(f"Resize by more than {limit}")
    if mode == "linear" and site.facts.precision == "xint8":
        return Verdict(
            "supported", "linear Resize was seen to fall back to the CPU in XINT8", source="S12"
        )
    return None


_CHECKS: Mapping[str, tuple[Check, ...]] = {
    "Conv": (_conv,),
    "ConvTranspose": (_weights,),
    "Gemm": (_weights,),
    "MaxPool": (_max_pool,),
    "AveragePool": (_pool,),
    "Resize": (_resize,),
    "Upsample": (_resize,),
}
_PARAMETERS: Mapping[str, tuple[int, ...]] = {
    "Clip": (1, 2),
    "Expand": (1,),
    "Pad": (1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Upsample": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Unsqueeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "ReduceMean": (1,),
    "ReduceMax": (1,),
    "ReduceMin": (1,),
    "ReduceSum": (1,),
}
_TWO_OPERANDS = words("Add Sub Mul Div Max Min Pow Equal Greater Less MatMul Where")
_LOGIC = words("And Or Not Xor")
_NO_DATA = words("Constant ConstantOfShape Shape Size Range")
_QUANTIZED = words("QLinearConv QLinearMatMul DequantizeLinear")
_BITS = words("BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor")


def _row(op: str) -> Row:
    data: tuple[int, ...] = (0, 1) if op in _TWO_OPERANDS else (0,)
    if op in _NO_DATA:
        data = ()
    elif op == "Where":
        data = (1, 2)
    dtypes: tuple[str, ...] = ("float32",)
    if op in _LOGIC:
        dtypes = ("bool",)
    elif op in _QUANTIZED:
        dtypes = ("int8", "uint8", "int16", "uint16", "int32")
    elif op in _BITS:
        dtypes = ("uint8", "int8", "int32")
    columns = {name for name, ops in COLUMNS.items() if op in ops}
    if op in _BF16_GAP:
        columns.add("bf16")
    return Row(
        dtypes=dtypes,
        data=data,
        precisions=tuple(name for name in COLUMNS if name in columns),
        constant=_PARAMETERS.get(op, ()),
        outputs=1 if op == "MaxPool" else 99,
        checks=_CHECKS.get(op, ()),
        source="S11",
        fix=_FIXES.get(op, ("", ""))[0],
        fix_exactness=_FIXES.get(op, ("", ""))[1],
    )


# answers to "not available in this precision"; without an entry the other precisions are named
_FIXES: Mapping[str, tuple[str, str]] = {
    "Sigmoid": ("precision a8w8 or a16w8, or HardSigmoid instead of Sigmoid", APPROXIMATE),
    "ConvTranspose": ("precision a8w8 or a16w8 for this part", QUANTIZED),
    "Split": ("split by Slice", EXACT),
    "Exp": ("keep it on the host, or precision a16w8", QUANTIZED),
}

TABLE = Table(
    family="npu",
    rows={op: _row(op) for op in sorted({op for ops in COLUMNS.values() for op in ops})},
    refused={
        "PRelu": Refusal(
            "PRelu is in no column of AMD's operator table",
            "write it as Relu(x) - slope * Relu(-x)",
            EXACT,
            "S11",
        ),
        "Selu": Refusal(
            "Selu is in no column of AMD's operator table",
            "precision a16w8 or xint8 with Elu and two Mul",
            EXACT,
            "S11",
        ),
        "HardSwish": Refusal("HardSwish is not available", source="S11"),
    },
    silent="unsupported",
    silent_reason="is in no column of AMD's operator table",
    source="S11",
    every=(_batch,),
)
