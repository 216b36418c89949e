"""What an operator's emitter sees of its node: arguments, attributes and destinations as C++."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.facts import Facts
from adcompile.errors import Unsupported

Array = npt.NDArray[np.generic]
Emitter = Callable[["Call"], str]


class Writer(Protocol):
    """What a call needs from the part that is being written."""

    facts: Facts

    def name(self, value: ir.Value) -> str:
        """C++ identifier of a value; registers a constant on first use."""
        ...

    def dest(self, value: ir.Value) -> str:
        """``ws.fixed<…>(…)`` or ``ws.slot<…>(…)`` for a value that owns memory."""
        ...

    def searcher(self, bank: ir.Value, neighbours: int) -> str:
        """The searcher over a constant bank."""
        ...

    def statistics(self, values: Mapping[str, ir.Value]) -> None:
        """Keep constant statistics, by role, in their bank file."""
        ...

    def carried(self, value: ir.Value) -> bool:
        """True when *value* was given the buffer of a loop-carried value."""
        ...

    def spare(self, cpp: str) -> str:
        """A destination for a result that is dropped."""
        ...


class Call:
    """One node and the part around it. Every method returns C++ text or plain Python data."""

    def __init__(
        self, node: ir.Node, writer: Writer, pieces: Mapping[ir.Value, Emitter] | None = None
    ) -> None:
        self.node = node
        self.facts = writer.facts
        self._writer = writer
        self._pieces = pieces or {}

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.facts.opset

    # --- inputs -----------------------------------------------------------------------------

    def input(self, i: int) -> ir.Value | None:
        """The i-th input, None when absent."""
        return self.node.inputs[i] if i < len(self.node.inputs) else None

    def has(self, i: int) -> bool:
        """True when the i-th input is given."""
        return self.input(i) is not None

    def need(self, i: int) -> ir.Value:
        """The i-th input; ModelError-like refusal when it is missing."""
        value = self.input(i)
        if value is None:
            raise self.refuse(f"input {i} is missing")
        return value

    def arg(self, i: int) -> str:
        """The i-th input as a C++ name."""
        return self._writer.name(self.need(i))

    def name_of(self, value: ir.Value) -> str:
        """Any value of the graph as a C++ name."""
        return self._writer.name(value)

    def args(self) -> list[str]:
        """All given inputs."""
        return [self._writer.name(v) for v in self.node.inputs if v is not None]

    def pieces(self) -> list[str]:
        """All inputs of a join: names, or the text of what writes itself into the result."""
        return [self._piece(v) for v in self.node.inputs if v is not None]

    def _piece(self, value: ir.Value) -> str:
        emit, node = self._pieces.get(value), value.producer()
        if emit is None or node is None:
            return self._writer.name(value)
        return emit(Call(node, self._writer))

    def constant(self, i: int) -> Array | None:
        """The i-th input when it is known at compile time."""
        return self.facts.constant(self.input(i))

    def ints(self, i: int) -> list[int] | None:
        """The i-th input as a list of whole numbers when it is known."""
        known = self.constant(i)
        return None if known is None else [int(v) for v in known.reshape(-1)]

    def dtype(self, i: int = 0) -> ir.DataType:
        """Element type of the i-th input."""
        return self.facts.dtype(self.need(i))

    def cpp(self, i: int = 0) -> str:
        """C++ element type of the i-th input."""
        return self.facts.cpp(self.need(i)).cpp

    def rank(self, i: int = 0) -> int | None:
        """Rank of the i-th input when known."""
        value = self.input(i)
        return None if value is None else self.facts.rank(value)

    def shape(self, i: int = 0) -> tuple[int, ...] | None:
        """Static shape of the i-th input when known."""
        value = self.input(i)
        return None if value is None else self.facts.shape(value)

    # --- outputs ----------------------------------------------------------------------------

    def out(self, i: int = 0) -> str:
        """Destination of the i-th output."""
        return self._writer.dest(self.node.outputs[i])

    def searcher(self, bank: ir.Value, neighbours: int) -> str:
        """The searcher over a constant bank, prepared for at least *neighbours* neighbours."""
        return self._writer.searcher(bank, neighbours)

    def statistics(self, values: Mapping[str, ir.Value]) -> None:
        """Keep constant statistics, by role, in their bank file, and out of the weights."""
        self._writer.statistics(values)

    def grows_in_place(self) -> bool:
        """True when the result's memory is a carried buffer that this node extends."""
        return self._writer.carried(self.node.outputs[0])

    def spare(self, cpp: str) -> str:
        """A destination for an output that nobody asked for, in a scratch slot of its own."""
        return self._writer.spare(cpp)

    def out_dtype(self, i: int = 0) -> ir.DataType:
        """Element type of the i-th output."""
        return self.facts.dtype(self.node.outputs[i])

    def out_cpp(self) -> str:
        """C++ element type of the first output."""
        return self.facts.cpp(self.node.outputs[0]).cpp

    # --- attributes -------------------------------------------------------------------------

    def _attr(self, name: str) -> ir.Attr | None:
        found = self.node.attributes.get(name)
        return found if isinstance(found, ir.Attr) else None

    def given(self, name: str) -> bool:
        """True when the attribute is present."""
        return self._attr(name) is not None

    def attr_int(self, name: str, default: int = 0) -> int:
        """An integer attribute."""
        found = self._attr(name)
        return default if found is None else found.as_int()

    def attr_float(self, name: str, default: float = 0.0) -> float:
        """A float attribute."""
        found = self._attr(name)
        return default if found is None else found.as_float()

    def attr_str(self, name: str, default: str = "") -> str:
        """A string attribute."""
        found = self._attr(name)
        return default if found is None else found.as_string()

    def attr_ints(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """A list attribute."""
        found = self._attr(name)
        return list(default) if found is None else list(found.as_ints())

    def choice(self, name: str, default: str, table: dict[str, str]) -> str:
        """A string attribute mapped to C++; an unknown value is refused."""
        value = self.attr_str(name, default)
        if value not in table:
            raise self.refuse(f"{name}={value!r} is not supported")
        return table[value]

    # --- text -------------------------------------------------------------------------------

    def real(self, value: float, dtype: ir.DataType | None = None) -> str:
        """A literal of the first input's type (or *dtype*)."""
        return literals.number(value, self.dtype() if dtype is None else dtype)

    def shape_arg(self, i: int) -> str:
        """The i-th input as a Shape: a literal when known, else read while running."""
        known = self.ints(i)
        return literals.shape(known) if known is not None else f"op::to_shape({self.arg(i)})"

    def refuse(self, why: str) -> Unsupported:
        """An error to raise: this node cannot be lowered."""
        return Unsupported(
            f"{self.node.op_type} cannot become host C++",
            where=self.node.name or self.node.op_type,
            why=why,
        )


def call(function: str, *arguments: str, template: str = "") -> str:
    """``op::function<template>(a, b)``."""
    angle = f"<{template}>" if template else ""
    return f"op::{function}{angle}({', '.join(arguments)})"
