"""What a dialect checker reports, and the Q/DQ queries all dialects share.

A checker reads a finished model, not the scheme that made it, so that the output of any quantizer
can be checked, and a defect in ours is found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.graph import constant, is_constant

Q, DQ = "QuantizeLinear", "DequantizeLinear"
QDQ_DOMAINS = ("", "com.microsoft")


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule: its short name, the node, and what is wrong there."""

    rule: str
    node: str
    why: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.node}: {self.why}"


@dataclass(frozen=True)
class Format:
    """The grid a Q or DQ node applies."""

    node: str
    scale: Array
    zero_point: Array
    dtype: str
    axis: int

    @property
    def per_tensor(self) -> bool:
        """True for one scale."""
        return self.scale.size == 1

    @property
    def positive(self) -> bool:
        """True when no scale is zero, negative or NaN."""
        return bool(np.greater(np.asarray(self.scale, np.float64), 0.0).all())

    @property
    def step(self) -> float:
        """The scale of a per-tensor format."""
        return float(self.scale.reshape(-1)[0])

    @property
    def position(self) -> int | None:
        """``n`` of a scale 2**-n, None for any other scale."""
        if not self.per_tensor or not self.step > 0:
            return None
        mantissa, exponent = np.frexp(self.step)
        return 1 - int(exponent) if float(mantissa) == 0.5 else None

    def same(self, other: Format) -> bool:
        """True when both apply the same grid."""
        return (
            self.dtype == other.dtype
            and np.array_equal(self.scale.reshape(-1), other.scale.reshape(-1))
            and np.array_equal(self.zero_point.reshape(-1), other.zero_point.reshape(-1))
        )


def is_qdq(node: ir.Node | None, op: str = "") -> bool:
    """True for a QuantizeLinear or DequantizeLinear (or the one named)."""
    if node is None or node.domain not in QDQ_DOMAINS:
        return False
    return node.op_type == op if op else node.op_type in (Q, DQ)


def read_format(node: ir.Node) -> Format | None:
    """The grid of a Q/DQ node, None when scale or zero point is not a constant."""
    scale = constant(node.inputs[1]) if len(node.inputs) > 1 else None
    if scale is None:
        return None
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if len(node.inputs) > 2 and node.inputs[2] is not None and zero is None:
        return None
    if zero is None:
        stored = node.inputs[0] if node.op_type == DQ else node.outputs[0]
        kind = stored.dtype if stored is not None else None
        dtype = np.dtype(kind.numpy()) if kind is not None else np.dtype(np.uint8)
        zero = np.zeros(scale.shape, dtype)
    axis = node.attributes.get("axis")
    return Format(
        node.name or "", scale, zero, str(zero.dtype), axis.as_int() if axis is not None else 1
    )


def input_format(value: ir.Value | None) -> Format | None:
    """The grid of the DQ that makes *value*, if one does."""
    producer = value.producer() if value is not None else None
    return read_format(producer) if producer is not None and is_qdq(producer, DQ) else None


def stored_constant(value: ir.Value | None) -> Array | None:
    """The integers behind *value*, when a DQ of an initializer makes it."""
    producer = value.producer() if value is not None else None
    if producer is None or not is_qdq(producer, DQ):
        return None
    return constant(producer.inputs[0])


def quantizers_of(value: ir.Value) -> list[ir.Node]:
    """The Q nodes that read *value*."""
    return [u.node for u in value.uses() if is_qdq(u.node, Q)]


def output_format(value: ir.Value) -> Format | None:
    """The grid *value* is put on by the Q reading it, if there is one."""
    readers = quantizers_of(value)
    return read_format(readers[0]) if readers else None


def kept_in_float(model: ir.Model, floats: frozenset[str]) -> set[str]:
    """The nodes of *floats* that no reader takes for quantized: an input or output has no Q/DQ."""
    return {
        node.name or ""
        for node in model.graph
        if node.name in floats
        and (
            any(
                not is_constant(v) and input_format(v) is None
                for v in node.inputs
                if v is not None
            )
            or not all(quantizers_of(value) for value in node.outputs)
        )
    }


def qdq_nodes(model: ir.Model) -> Iterator[ir.Node]:
    """Every Q and DQ of the main graph."""
    for node in model.graph:
        if is_qdq(node):
            yield node


def only_reader(value: ir.Value) -> ir.Node | None:
    """The single node that reads *value*; None when there are several, none, or it is an output."""
    uses = list(value.uses())
    return uses[0].node if len(uses) == 1 and not value.is_graph_output() else None
