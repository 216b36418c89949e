"""Explicit quantization for TensorRT: symmetric int8, float bias, Q/DQ in front of compute ops."""

from __future__ import annotations

from adcompile.lower.scheme import Scheme

INT8 = Scheme(
    name="int8",
    activation="int8",
    zero_point=0,
    weight_limit=127,
    per_channel=True,
    bias="float",
    power_of_two=False,
    method="minmse",
    placement="inputs",
    ops=frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "Add"}),
    tied_inputs=frozenset({"Add"}),
)
