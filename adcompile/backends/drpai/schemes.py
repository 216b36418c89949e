"""INT8 as the DRP-AI quantizer writes it: symmetric, weights within 64 steps, int32 bias."""

from __future__ import annotations

from adcompile.lower.scheme import MOVES, Scheme, words

_OPS = words(
    """Add AveragePool Clip Concat Conv ConvTranspose Flatten Gemm GlobalAveragePool HardSigmoid
    LeakyRelu MatMul MaxPool Mul PRelu Pad Relu Reshape Resize Sigmoid Slice Softmax Squeeze Sub
    Tanh Transpose Unsqueeze"""
)

INT8 = Scheme(
    name="int8",
    activation="int8",
    zero_point=0,
    weight_limit=64,
    per_channel=True,
    bias="int32",
    power_of_two=False,
    method="minmse",
    opset=13,
    ir_version=7,
    ops=_OPS,
    tied=frozenset({"MaxPool", "Pad", "Slice", "Concat"}) | (MOVES & _OPS),
    tied_inputs=frozenset({"Add", "Sub"}),
)
