"""Rules: one local rewrite each, as a value.

    @rule(op("Relu", op("Identity", Any("x"))))
    def relu_of_identity(m: Match) -> ir.Node:
        return ir.Node("", "Relu", [m["x"]])

The function gets the match and returns what stands for the root's outputs: a new node, a value that
exists already, or one value per output. It may build any number of new nodes and constants; the
driver finds them by walking back from what was returned. Raising :class:`Refuse` says why a rule
does not apply although its pattern matched. A rule changes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import onnx_ir as ir

from adcompile.interfaces import Exactness
from adcompile.rewrite.pattern import Match, Op, depth_of

Replacement: TypeAlias = "ir.Node | ir.Value | Sequence[ir.Value | None]"
Build: TypeAlias = Callable[[Match], Replacement]


class Refuse(Exception):
    """A rule's pattern matched, but the rule does not apply here; the message says why."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern and what replaces it. ``opset`` is the oldest opset whose semantics it knows."""

    name: str
    pattern: Op
    build: Build
    exactness: Exactness = Exactness.EXACT
    opset: int = 7
    summary: str = ""

    @property
    def depth(self) -> int:
        """Levels of ops in the pattern."""
        return depth_of(self.pattern)


def rule(
    pattern: Op,
    *,
    name: str = "",
    exactness: Exactness = Exactness.EXACT,
    opset: int = 7,
) -> Callable[[Build], Rule]:
    """Turn a function into a :class:`Rule` named after it (``relu_of_identity`` becomes
    ``relu-of-identity``), with the first line of its docstring as summary."""

    def wrap(build: Build) -> Rule:
        doc = (build.__doc__ or "").strip().splitlines()
        title = name or build.__name__.strip("_").replace("_", "-")
        return Rule(title, pattern, build, exactness, opset, doc[0] if doc else "")

    return wrap


def typed_like(node: ir.Node, *values: ir.Value) -> ir.Node:
    """Give *node*'s outputs the dtype and shape of *values*; returns the node."""
    for output, value in zip(node.outputs, values, strict=False):
        output.type = value.type
        output.shape = None if value.shape is None else value.shape.copy()
    return node
