"""trim-control-flow: drop outputs of If and Loop that nobody reads, and what never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.graph import walk
from adcompile.ir.model_io import subgraphs_of
from adcompile.rewrite.surgery import Names, take_over


@dataclass(frozen=True)
class TrimControlFlow(Pass):
    """Removes unread outputs of If, unread scan outputs and unread carried values of Loop, and
    carried values that the body only passes on. Exact."""

    name: ClassVar[str] = "trim-control-flow"
    summary: ClassVar[str] = "drop unread outputs and constant state of If and Loop"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Look at every If and Loop once, inner ones last."""
        changed = False
        names = Names(model)
        for node in list(walk(model.graph)):
            if node.domain != "" or not isinstance(node.graph, ir.Graph):
                continue
            if node.op_type == "If":
                trimmed = _trim_if(node)
            elif node.op_type == "Loop":
                trimmed = _trim_loop(node, names)
            else:
                continue
            if trimmed:
                report.applied(self.name, node.name or "", detail=f"{trimmed} values")
                changed = True
        return changed


def _unread(value: ir.Value) -> bool:
    return not value.uses() and not value.is_graph_output()


def _trim_if(node: ir.Node) -> int:
    keep = [i for i, value in enumerate(node.outputs) if not _unread(value)]
    if not keep or len(keep) == len(node.outputs):
        return 0  # without any reader the whole node is dead code
    for branch in subgraphs_of(node):
        outputs = [branch.outputs[i] for i in keep]
        branch.outputs.clear()
        branch.outputs.extend(outputs)
    _rebuild(node, list(node.inputs), keep)
    return len(node.outputs) - len(keep)


def _rebuild(node: ir.Node, inputs: Sequence[ir.Value | None], keep: Sequence[int]) -> ir.Node:
    """The same node with *inputs* and only the outputs *keep*; names and types are carried over."""
    attributes = list(node.attributes.values())
    for attribute in attributes:
        node.attributes.pop(attribute.name)
    new = ir.Node(
        node.domain,
        node.op_type,
        inputs,
        attributes,
        num_outputs=len(keep),
        name=node.name,
        doc_string=node.doc_string,
        metadata_props=dict(node.metadata_props),
    )
    graph = node.graph
    for value, index in zip(new.outputs, keep, strict=True):
        value.name = f"{node.outputs[index].name}_kept"
    if isinstance(graph, ir.Graph):
        graph.insert_before(node, new)
        for value, index in zip(new.outputs, keep, strict=True):
            _carry_over(node.outputs[index], value)
        graph.remove(node, safe=True)
    return new


def _carry_over(old: ir.Value, new: ir.Value) -> None:
    name = old.name
    new.type, new.shape = old.type, old.shape
    new.metadata_props.update(old.metadata_props)
    old.name = f"{name}_trimmed"
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    new.name = name


def _trim_loop(node: ir.Node, names: Names) -> int:
    body = subgraphs_of(node)[0]
    carried = len(node.inputs) - 2
    if carried < 0 or len(body.inputs) != carried + 2:
        return 0
    fixed = [i for i in range(carried) if _is_passed_on(body, i)]
    hoisted = sum(_hoist(node, body, i, names) for i in fixed)
    dropped = [i for i in range(carried) if i in fixed or _is_idle(node, body, i)]
    scans = range(carried, len(node.outputs))
    unread = [i for i in scans if _unread(node.outputs[i])]
    gone = {*dropped, *unread}
    keep = [i for i in range(len(node.outputs)) if i not in gone]
    if not gone or not keep:
        return hoisted  # without any reader the whole node is dead code
    outputs = [v for i, v in enumerate(body.outputs) if i == 0 or i - 1 not in gone]
    inputs = [v for i, v in enumerate(body.inputs) if i < 2 or i - 2 not in gone]
    body.outputs.clear()
    body.outputs.extend(outputs)
    body.inputs.clear()
    body.inputs.extend(inputs)
    given = [v for i, v in enumerate(node.inputs) if i < 2 or i - 2 not in gone]
    _rebuild(node, given, keep)
    return len(gone)


def _is_passed_on(body: ir.Graph, index: int) -> bool:
    """True when the body returns carried value *index* as it came in."""
    value: ir.Value | None = body.outputs[index + 1]
    others = [v for i, v in enumerate(body.outputs) if i != index + 1]
    if any(v is body.inputs[index + 2] for v in others):
        return False
    while value is not None and value is not body.inputs[index + 2]:
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.graph is not body:
            return False
        value = producer.inputs[0]
    return value is not None


def _hoist(node: ir.Node, body: ir.Graph, index: int, names: Names) -> bool:
    """The body reads the start value directly, and so does everyone who reads the result."""
    start, inner, result = node.inputs[index + 2], body.inputs[index + 2], node.outputs[index]
    if start is None or not (inner.uses() or not _unread(result)):
        return False
    for use in inner.uses():
        use.node.replace_input_with(use.idx, start)
    if result.is_graph_output():
        identity = ir.Node("", "Identity", [start], num_outputs=1)
        identity.name = names.fresh(f"{node.name or result.name}/start")
        identity.outputs[0].name = names.fresh(f"{result.name}_start")
        identity.outputs[0].type, identity.outputs[0].shape = result.type, result.shape
        if isinstance(node.graph, ir.Graph):
            node.graph.insert_before(node, identity)
        take_over(result, identity.outputs[0], names)
    else:
        take_over(result, start, names)
    return True


def _is_idle(node: ir.Node, body: ir.Graph, index: int) -> bool:
    """True when neither the result of a carried value is read, nor the value in the body."""
    return _unread(node.outputs[index]) and _unread_input(body, index)


def _unread_input(body: ir.Graph, index: int) -> bool:
    value = body.inputs[index + 2]
    return not value.uses() and not any(value is v for v in body.outputs)
