"""If, Loop and Scan as C++ control flow; bodies see the variables around them."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir

from adcompile.backends.host.codegen.call import Call
from adcompile.backends.host.codegen.facts import subgraphs
from adcompile.backends.host.codegen.names import comment
from adcompile.backends.host.codegen.plan import LoopPlan, LoopShape, loop_shape
from adcompile.backends.host.codegen.scope import Scope
from adcompile.backends.host.codegen.statements import Block, Line, Statement

Body = Callable[[ir.Graph], list[Statement]]
"""Writes the statements of a body."""


class ControlWriter:
    """Statements of control-flow nodes."""

    def __init__(self, scope: Scope, body: Body) -> None:
        self._scope = scope
        self._body = body

    def write(self, node: ir.Node) -> list[Statement]:
        """The declarations of the node's results, and the branch or loop that sets them."""
        note = comment(f"{node.op_type} {node.name or ''}".strip())
        if node.op_type == "If":
            return self._branch(node, note)
        return self._loop(node, note) if node.op_type == "Loop" else self._scan(node, note)

    def _declare(self, value: ir.Value, note: str = "", start: str = "") -> Line:
        name = self._scope.bind(value)
        tail = f" = {start}" if start else ""
        return Line(f"View<{self._scope.facts.cpp(value).cpp}> {name}{tail};", note)

    # --- If ---------------------------------------------------------------------------------

    def _branch(self, node: ir.Node, note: str) -> list[Statement]:
        condition = node.inputs[0]
        if condition is None:
            raise ValueError("If without a condition")
        head = f"if ({self._scope.name(condition)}.item())"
        lines: list[Statement] = []
        for i, value in enumerate(node.outputs):
            lines.append(self._declare(value, note if i == 0 else ""))
        arms: dict[str, list[Statement]] = {}
        for key in ("then_branch", "else_branch"):
            body = node.attributes[key].as_graph()
            arm = self._body(body)
            for outer, inner in zip(node.outputs, body.outputs, strict=True):
                arm.append(Line(f"{self._scope.name(outer)} = {self._scope.name(inner)};"))
            arms[key] = arm
        lines.append(Block(head, arms["then_branch"], other=arms["else_branch"], has_other=True))
        return lines

    # --- Loop -------------------------------------------------------------------------------

    def _loop(self, node: ir.Node, note: str) -> list[Statement]:
        body = next(iter(subgraphs(node)))
        shape = loop_shape(node, body)
        plan = self._scope.plan.loops[node]
        limit, condition = node.inputs[0], node.inputs[1]
        go, trip = self._scope.local("go_on"), self._scope.local("trip")
        start = "true" if condition is None else f"{self._scope.name(condition)}.item()"
        lines = self._carried(node, shape, note)
        lines += self._accumulators(node, plan, shape)
        lines.append(Line(f"bool {go} = {start};"))
        inner: list[Statement] = [
            *self._local_scalar(body.inputs[0], trip),
            *self._local_scalar(body.inputs[1], go),
        ]
        inner += self._body(body)
        inner += self._append(node, plan, shape)
        next_go = self._scope.name(body.outputs[0])
        inner += self._carry(node, plan, shape)
        inner.append(Line(f"{go} = {next_go}.item();"))
        bound = "" if limit is None else f"{trip} < {self._scope.name(limit)}.item() && "
        lines.append(Block(f"for (Index {trip} = 0; {bound}{go}; ++{trip})", inner))
        lines += self._finish(node, shape)
        return lines

    def _local_scalar(self, value: ir.Value, source: str) -> list[Statement]:
        if not value.uses() and not value.is_graph_output():
            return []
        cpp = self._scope.facts.cpp(value).cpp
        name = self._scope.bind(value)
        copy = self._scope.local(f"{name}_now")
        return [
            Line(f"const {cpp} {copy} = {source};"),
            Line(f"const View<{cpp}> {name}(&{copy}, Shape{{}});"),
        ]

    # --- Scan -------------------------------------------------------------------------------

    def _scan(self, node: ir.Node, note: str) -> list[Statement]:
        body = next(iter(subgraphs(node)))
        shape = loop_shape(node, body)
        plan = self._scope.plan.loops[node]
        self._refuse_directions(node)
        trip = self._scope.local("trip")
        lines = self._carried(node, shape, note)
        lines += self._accumulators(node, plan, shape)
        inner: list[Statement] = []
        for outer, value in shape.scan_inputs:
            cpp = self._scope.facts.cpp(value).cpp
            text = f"op::row({self._scope.name(outer)}, {trip})"
            inner.append(Line(f"const View<{cpp}> {self._scope.bind(value)} = {text};"))
        inner += self._body(body)
        inner += self._append(node, plan, shape)
        inner += self._carry(node, plan, shape)
        count = f"{self._scope.name(shape.scan_inputs[0][0])}.dim(0)"
        lines.append(Block(f"for (Index {trip} = 0; {trip} < {count}; ++{trip})", inner))
        lines += self._finish(node, shape)
        return lines

    def _refuse_directions(self, node: ir.Node) -> None:
        for name, attribute in node.attributes.items():
            if name.startswith("scan_") and any(attribute.as_ints()):
                raise Call(node, self._scope).refuse(f"{name} other than 0")

    # --- shared -----------------------------------------------------------------------------

    def _carried(self, node: ir.Node, shape: LoopShape, note: str) -> list[Statement]:
        lines: list[Statement] = []
        for i, (inner, initial) in enumerate(zip(shape.inner, shape.initial, strict=True)):
            if initial is None:
                raise ValueError("a carried value without a start")
            start = self._scope.name(initial)
            outer = node.outputs[i]
            name = self._scope.bind(outer)
            cpp = self._scope.facts.cpp(inner).cpp
            lines.append(Line(f"View<{cpp}> {name} = {start};", note if i == 0 else ""))
            self._scope.bind(inner, name)
        return lines

    def _accumulators(self, node: ir.Node, plan: LoopPlan, shape: LoopShape) -> list[Statement]:
        lines: list[Statement] = []
        first = len(shape.inner)
        for storage, outer, inner in zip(
            plan.scanned, node.outputs[first:], shape.scan_outputs, strict=True
        ):
            cpp = self._scope.facts.cpp(inner).cpp
            dims = self._scope.facts.shape(inner)
            empty = "Shape{0" + "".join(f", {d}" for d in dims or ()) + "}"
            place = self._scope.place(storage, inner)
            lines.append(
                Line(f"View<{cpp}> {self._scope.bind(outer)} = op::nothing({place}, {empty});")
            )
        return lines

    def _append(self, node: ir.Node, plan: LoopPlan, shape: LoopShape) -> list[Statement]:
        lines: list[Statement] = []
        first = len(shape.inner)
        for storage, outer, inner in zip(
            plan.scanned, node.outputs[first:], shape.scan_outputs, strict=True
        ):
            name = self._scope.name(outer)
            place = self._scope.place(storage, inner)
            lines.append(
                Line(f"{name} = op::append_row({place}, {name}, {self._scope.name(inner)});")
            )
        return lines

    def _carry(self, node: ir.Node, plan: LoopPlan, shape: LoopShape) -> list[Statement]:
        """Move next values to where the next trip looks for them.

        A next value that looks at carried memory goes through a spare place first: its source may
        be overwritten by a neighbour's move.
        """
        first: list[Statement] = []
        second: list[Statement] = []
        for i, (inner, value) in enumerate(zip(shape.inner, shape.next_values, strict=True)):
            if value is inner or plan.in_place[i]:
                if value is not inner:
                    second.append(Line(f"{self._scope.name(inner)} = {self._scope.name(value)};"))
                continue
            source = self._scope.name(value)
            spare = plan.spare[i]
            cpp = self._scope.facts.cpp(inner).cpp
            if spare is not None:
                held = self._scope.local(f"{source}_next")
                place = self._scope.place(spare, inner)
                first.append(Line(f"const View<{cpp}> {held} = op::keep({place}, {source});"))
                source = held
            place = self._scope.place(plan.carried[i], inner)
            second.append(Line(f"{self._scope.name(inner)} = op::keep({place}, {source});"))
        return first + second

    def _finish(self, node: ir.Node, shape: LoopShape) -> list[Statement]:
        for inner, outer in zip(shape.inner, node.outputs, strict=False):
            self._scope.bind(outer, self._scope.name(inner))
        return []
