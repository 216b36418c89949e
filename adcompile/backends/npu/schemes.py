"""Number formats of the Ryzen AI NPU: XINT8, A8W8, A16W8. See the dialect for their rules."""

from __future__ import annotations

from dataclasses import replace

from adcompile.lower.scheme import ACTIVATIONS, Scheme, words

_ACTIVATION_OPS = sorted(ACTIVATIONS - {"PRelu"})
_PRODUCERS = ("Conv", "ConvTranspose", "Gemm", "Add")

# values between these run inside one kernel and have no format of their own
_FUSED = frozenset((p, a) for p in _PRODUCERS for a in _ACTIVATION_OPS)
_SCALED = frozenset({("AveragePool", "Mul"), ("GlobalAveragePool", "Mul"), ("HardSigmoid", "Mul")})

_OPS = words(
    """Add AveragePool Clip Concat Conv ConvTranspose DepthToSpace Div Flatten Gemm
    GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish LeakyRelu MatMul Max MaxPool Min Mul
    PRelu Pad Relu Reshape Resize Sigmoid Slice Softmax SpaceToDepth Squeeze Sub Tanh Transpose
    Unsqueeze"""
)

_TIED = frozenset({"Concat", "MaxPool", "Pad", "Slice", "GlobalMaxPool", "Resize"})

XINT8 = Scheme(
    name="xint8",
    activation="uint8",
    zero_point=128,
    weight_limit=127,
    per_channel=False,
    bias="int8",
    power_of_two=True,
    method="minmse",
    fuse=_FUSED | _SCALED,
    tied=_TIED | {"AveragePool", "GlobalAveragePool"},
    ops=_OPS,
    shifts=True,
)

A8W8 = Scheme(
    name="a8w8",
    activation="int8",
    zero_point=0,
    weight_limit=127,
    per_channel=False,
    bias="int32",
    power_of_two=False,
    method="minmse",
    domain="com.microsoft",
    fuse=_FUSED,
    tied=_TIED,
    ops=_OPS,
)

A16W8 = replace(A8W8, name="a16w8", activation="int16", method="minmax")

SCHEMES: dict[str, Scheme] = {s.name: s for s in (XINT8, A8W8, A16W8)}
