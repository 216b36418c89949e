"""What DRP-AI runs: the operators of the Translator i8 manual, and the rules of the TVM front end.

Source tags: S15 rzv_drp-ai_tvm v2.7.0, S17 operator list quoting the Translator i8 v1.12 manual
(R20UT5336EJ0112, 4.1.1). The manual's limits per kernel, stride, padding, dilation and group are not
public: a listed op can still be moved to the board's CPU by the vendor's compiler.
"""

from __future__ import annotations

import onnx_ir as ir

from adcompile.interfaces import Facts, Verdict
from adcompile.place.support import (
    APPROXIMATE,
    EXACT,
    Refusal,
    Row,
    Site,
    Table,
    judge,
    one_image,
    rows_for,
)

_S17 = "S17"


def supports(node: ir.Node, facts: Facts) -> Verdict:
    """Judge one node for a drpai target."""
    return judge(node, facts, TABLE)


def _layout(site: Site) -> Verdict | None:
    """Per image the translator takes vectors and C×H×W tensors only, one image at a time."""
    data = None if site.const(0) is not None else site.dims(0)
    for dims in (data, site.out_dims(0)):
        if dims is None:
            continue
        if len(dims) not in (2, 4):
            return Verdict.no(
                f"tensors of {len(dims)} dimensions; per image only 1-D and 3-D are accepted",
                source="S15",
                about="layout",
            )
        refusal = one_image(site, dims, "S15")
        if refusal is not None:
            return refusal
    return None


def _weights(site: Site) -> Verdict | None:
    if site.const(1) is None:
        return Verdict.no(f"{site.node.op_type} with computed weights", source=_S17)
    return None


def _conv(site: Site) -> Verdict | None:
    refusal = _weights(site)
    if refusal is not None:
        return refusal
    groups, weight = site.number("group", 1), site.dims(1)
    channels = site.dims(0)
    if groups > 1 and weight is not None and channels is not None and groups != channels[1]:
        return Verdict("supported", _GATE.format("grouped Conv"), source="S15")
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return Verdict("supported", _GATE.format("dilated Conv"), source="S15")
    return None


_GATE = "{}: the translator's public notes do not say which combinations it accepts"


def _pool(site: Site) -> Verdict | None:
    if any(d != 1 for d in site.numbers("dilations", (1,))):
        return Verdict.no(f"{site.node.op_type} with dilation", source=_S17)
    return None


def _resize(site: Site) -> Verdict | None:
    mode = site.text("mode", "nearest")
    if mode == "cubic":
        return Verdict.no("cubic Resize", "export with mode linear", APPROXIMATE, _S17)
    return None


_OP = Row(dtypes=("float32",), source=_S17)
_TWO = Row(dtypes=("float32",), data=(0, 1), source=_S17)
_PARAM = Row(dtypes=("float32",), constant=(1,), source=_S17)

TABLE = Table(
    family="drpai",
    rows={
        **rows_for(
            "AveragePool BatchNormalization Clip Concat Dropout Flatten GlobalAveragePool HardSigmoid "
            "Identity InstanceNormalization LeakyRelu PRelu Relu Selu Sigmoid Softmax Softplus "
            "SpaceToDepth Tanh Transpose ArgMax ArgMin",
            _OP,
        ),
        **rows_for("Add Sub Mul Div Sum MatMul", _TWO),
        **rows_for(
            "Reshape Squeeze Unsqueeze Split ReduceMax ReduceMean ReduceSum Gather", _PARAM
        ),
        **rows_for("Slice", Row(dtypes=("float32",), constant=(1, 2, 3, 4), source=_S17)),
        **rows_for("Pad", Row(dtypes=("float32",), constant=(1, 2), source=_S17)),
        **rows_for("Constant ConstantOfShape", Row(data=(), source=_S17)),
        **rows_for("Cast", Row(dtypes=("float32", "float16"), source=_S17)),
        **rows_for("Conv", Row(("float32",), rank=(4, 4), checks=(_conv,), source=_S17)),
        **rows_for(
            "ConvTranspose", Row(("float32",), rank=(4, 4), checks=(_weights,), source=_S17)
        ),
        **rows_for("Gemm", Row(("float32",), rank=(2, 2), checks=(_weights,), source=_S17)),
        **rows_for("MaxPool", Row(("float32",), outputs=1, checks=(_pool,), source=_S17)),
        **rows_for("AveragePool", Row(("float32",), checks=(_pool,), source=_S17)),
        **rows_for(
            "Resize Upsample",
            Row(("float32",), constant=(1, 2, 3), checks=(_resize,), source=_S17),
        ),
    },
    refused={
        "DepthToSpace": Refusal(
            "DepthToSpace is not in the translator's list",
            "write it as Reshape, Transpose, Reshape on the host",
            EXACT,
            _S17,
        ),
        "HardSwish": Refusal(
            "HardSwish is not in the translator's list",
            "write it as x * HardSigmoid(x)",
            EXACT,
            _S17,
        ),
        "LayerNormalization": Refusal(
            "LayerNormalization is not in the translator's list", source=_S17
        ),
    },
    silent="unsupported",
    silent_reason="is not in the translator's operator list",
    source=_S17,
    every=(_layout,),
)
