"""One record per operator: what it accepts, how it uses memory, how it becomes a statement."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from adcompile.backends.host.codegen.call import Call

T = ir.DataType

FLOATS = (T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16)
SIGNED = (T.INT8, T.INT16, T.INT32, T.INT64)
UNSIGNED = (T.UINT8, T.UINT16, T.UINT32, T.UINT64)
INTS = SIGNED + UNSIGNED
NUMBERS = FLOATS + INTS
BOOL = (T.BOOL,)
ANY = NUMBERS + BOOL
INDICES = (T.INT32, T.INT64)

Emit = Callable[["Call"], str]
Reads = Callable[[ir.Node], Sequence["ir.Value | None"]]
Takes = Callable[[ir.Node], bool]
Expression = Callable[["Call", Sequence[str]], str]


@dataclass(frozen=True)
class Op:
    """How one operator is lowered.

    ``emit`` returns the C++ expression of the node (one output: a View; more: a tuple of Views).
    Elementwise operators have ``expression`` instead: the text for one element, given the operands;
    chains of them become one loop.
    ``types`` are the element types of input ``key`` (the first by default) that the table claims;
    ``others`` adds claims for further inputs. ``views`` lists inputs whose memory the outputs may
    look at; ``reads`` names the values read when these are not the inputs; ``owns`` says whether
    outputs get memory of their own. ``control`` marks If, Loop, Scan.
    ``piece`` is the text that stands for the node in a join: something that writes the result where
    it belongs, when that is asked for. ``joins`` says of a producer with one whether this operator
    takes it so.
    """

    emit: Emit | None
    types: tuple[T, ...]
    since: int = 1
    others: Mapping[int, tuple[T, ...]] | None = None
    key: int = 0
    views: tuple[int, ...] = ()
    owns: bool = True
    control: bool = False
    expression: Expression | None = None
    reads: Reads | None = None
    piece: Emit | None = None
    joins: Takes | None = None
    note: str = ""


@dataclass(frozen=True)
class Step:
    """One statement to be: the node it ends with, and every value it reads."""

    op: Op
    node: ir.Node
    reads: tuple[ir.Value, ...]
    absorbed: tuple[ir.Node, ...] = ()


Table = dict[str, Op]
