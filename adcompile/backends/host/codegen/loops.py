"""The statement of an elementwise chain: one loop over a lambda."""

from __future__ import annotations

import re

import onnx_ir as ir

from adcompile.backends.host.codegen import literals
from adcompile.backends.host.codegen.call import Call
from adcompile.backends.host.codegen.registry import Step
from adcompile.backends.host.codegen.scope import Scope
from adcompile.backends.host.codegen.tables import TABLE

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
SHORT = 70  # a lambda and its statement on one line
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class _Operands:
    """Lambda parameters of a chain: one letter per value read, literals for scalars."""

    def __init__(self, scope: Scope, step: Step) -> None:
        self._scope = scope
        self._step = step
        self.values: list[ir.Value] = []
        self._locals: dict[ir.Value, str] = {}

    def local(self, value: ir.Value, name: str) -> None:
        """*value* is computed inside the lambda, as *name*."""
        self._locals[value] = name

    def text(self, value: ir.Value) -> str:
        """How the lambda's body refers to *value*."""
        known = self._locals.get(value)
        if known is not None:
            return known
        literal = self._literal(value)
        if literal is not None:
            return literal
        if value not in self.values:
            self.values.append(value)
        return _LETTERS[self.values.index(value)]

    def _literal(self, value: ir.Value) -> str | None:
        """A constant of one element, unless it is what gives the result its shape."""
        array = self._scope.facts.constant(value)
        if array is None or array.size != 1:
            return None
        others = [v for v in self._step.reads if v is not value]
        ranks = [
            self._scope.facts.rank(v)
            for v in others
            if self._scope.facts.constant(v) is None or v in self.values
        ]
        if not ranks or max((r or 0) for r in ranks) < array.ndim:
            return None
        if self._scope.facts.cpp(value).cpp in {"Half", "BFloat16"} and not _finite(array):
            return None
        return literals.number(array.reshape(-1)[0], self._scope.facts.dtype(value))


def _finite(array: object) -> bool:
    value = float(array.reshape(-1)[0])  # type: ignore[attr-defined] # pyright: ignore
    return abs(value) < float("inf")


def map_statement(step: Step, scope: Scope) -> str:
    """``op::map(destination, [](float a, …) { … }, operands…)``."""
    operands = _Operands(scope, step)
    lines: list[str] = []
    for number, node in enumerate(step.absorbed):
        name = f"t{number}"
        lines.append(f"const {_type(scope, node)} {name} = {_expression(node, scope, operands)};")
        operands.local(node.outputs[0], name)
    last = _expression(step.node, scope, operands)
    if not operands.values:  # all operands are constants: keep one as the shape
        operands.values.append(step.reads[0])
    used = set(_WORD.findall(" ".join([*lines, last])))
    parameters = ", ".join(
        f"{scope.facts.cpp(v).cpp} {_LETTERS[i]}".removesuffix(
            "" if _LETTERS[i] in used else f" {_LETTERS[i]}"
        )
        for i, v in enumerate(operands.values)
    )
    result = _type(scope, step.node)
    names = ", ".join(scope.name(v) for v in operands.values)
    head = f"op::map({scope.dest(step.node.outputs[0])}, [](" + parameters + ")"
    if not lines and len(head) + len(last) < SHORT:
        return f"{head} {{ return {_converted(last, result)}; }}, {names})"
    lines.append(f"return {_converted(last, result)};")
    body = "".join(f"      {line}\n" for line in lines)
    return f"{head} {{\n{body}    }}, {names})"


def _type(scope: Scope, node: ir.Node) -> str:
    return scope.facts.cpp(node.outputs[0]).cpp


def _converted(text: str, cpp: str) -> str:
    return f"{cpp}({text})" if cpp in {"Half", "BFloat16"} else text


def _expression(node: ir.Node, scope: Scope, operands: _Operands) -> str:
    op = TABLE[node.op_type]
    if op.expression is None:
        raise TypeError(f"{node.op_type} is not elementwise")
    values = node.inputs if op.reads is None else op.reads(node)
    texts = [operands.text(v) for v in values if v is not None]
    text = op.expression(Call(node, scope), texts)
    return _converted(text, _type(scope, node))
