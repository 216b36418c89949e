"""trim-control-flow: drop outputs of If, Loop and Scan that nobody reads, and what never changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.graph import opset, walk
from adcompile.ir.model_io import subgraphs_of
from adcompile.rewrite.surgery import Names, take_over

SCAN_SINCE = 9  # before, a Scan had a batch axis and an input of sequence lengths


@dataclass(frozen=True)
class TrimControlFlow(Pass):
    """Removes unread outputs of If; unread results, unread carried values and unread sequences of
    Loop and Scan; and carried values that the body only passes on. Exact."""

    name: ClassVar[str] = "trim-control-flow"
    summary: ClassVar[str] = "drop unread outputs and constant state of If, Loop, Scan"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Look at every If, Loop and Scan once, inner ones last."""
        changed = False
        names = Names(model)
        for node in list(walk(model.graph)):
            if node.domain != "" or not isinstance(node.graph, ir.Graph):
                continue
            if node.op_type == "If":
                trimmed = _trim_if(node)
            elif node.op_type == "Loop":
                trimmed = _trim_loop(node, names)
            elif node.op_type == "Scan" and opset(model) >= SCAN_SINCE:
                trimmed = _trim_scan(node, names)
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


@dataclass(frozen=True)
class _Repeated:
    """A Loop or Scan and its body. Node and body have ``ahead`` inputs before the first carried
    value; the body returns ``flags`` outputs before it (a Loop's condition)."""

    node: ir.Node
    body: ir.Graph
    ahead: int
    flags: int
    carried: int

    def start(self, index: int) -> ir.Value | None:
        """The value that carried value *index* has before the first turn."""
        return self.node.inputs[self.ahead + index]

    def entering(self, index: int) -> ir.Value:
        """Carried value *index* as the body reads it."""
        return self.body.inputs[self.ahead + index]

    def leaving(self, index: int) -> ir.Value:
        """Carried value *index* as the body returns it."""
        return self.body.outputs[self.flags + index]

    def keep(self, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Leave only these inputs and outputs, counted from the first carried value."""
        taken = [*range(self.ahead), *(self.ahead + i for i in inputs)]
        returned = [*range(self.flags), *(self.flags + i for i in outputs)]
        entering = [self.body.inputs[i] for i in taken]
        leaving = [self.body.outputs[i] for i in returned]
        self.body.inputs.clear()
        self.body.inputs.extend(entering)
        self.body.outputs.clear()
        self.body.outputs.extend(leaving)
        _rebuild(self.node, [self.node.inputs[i] for i in taken], outputs)


def _trim_loop(node: ir.Node, names: Names) -> int:
    body = subgraphs_of(node)[0]
    carried = len(node.inputs) - 2
    if carried < 0 or len(body.inputs) != carried + 2:
        return 0
    found = _Repeated(node, body, ahead=2, flags=1, carried=carried)
    hoisted, dropped = _settle(found, names)
    unread = {i for i in range(carried, len(node.outputs)) if _unread(node.outputs[i])}
    gone = dropped | unread
    keep = [i for i in range(len(node.outputs)) if i not in gone]
    if not gone or not keep:
        return hoisted  # without any reader the whole node is dead code
    found.keep([i for i in range(carried) if i not in dropped], keep)
    return len(gone)


def _trim_scan(node: ir.Node, names: Names) -> int:
    """Scan since opset 9: carried values, then sequences that are read slice by slice. One
    sequence stays in any case, because it says how many turns there are."""
    body = subgraphs_of(node)[0]
    sequences = node.attributes["num_scan_inputs"].as_int()
    carried = len(node.inputs) - sequences
    if carried < 0 or len(body.inputs) != len(node.inputs):
        return 0
    found = _Repeated(node, body, ahead=0, flags=0, carried=carried)
    hoisted, dropped = _settle(found, names)
    read = [i for i in range(carried, len(node.inputs)) if not _unread_input(body, i)]
    read = read or [carried]
    unread = {i for i in range(carried, len(node.outputs)) if _unread(node.outputs[i])}
    keep = [i for i in range(len(node.outputs)) if i not in dropped | unread]
    gone = len(dropped) + len(unread) + sequences - len(read)
    if not gone or not keep:
        return hoisted
    _select(node, "scan_input_axes", [i - carried for i in read])
    _select(node, "scan_input_directions", [i - carried for i in read])
    results = [i - carried for i in keep if i >= carried]
    _select(node, "scan_output_axes", results)
    _select(node, "scan_output_directions", results)
    node.attributes["num_scan_inputs"] = ir.AttrInt64("num_scan_inputs", len(read))
    found.keep([*(i for i in range(carried) if i not in dropped), *read], keep)
    return gone


def _select(node: ir.Node, name: str, places: Sequence[int]) -> None:
    """Keep these entries of a list attribute; an attribute that is left empty goes away."""
    attribute = node.attributes.get(name)
    if attribute is None:
        return
    values = attribute.as_ints()
    kept = [values[i] for i in places]
    if kept:
        node.attributes[name] = ir.AttrInt64s(name, kept)
    else:
        node.attributes.pop(name)


def _settle(found: _Repeated, names: Names) -> tuple[int, set[int]]:
    """Hoist carried values that never change; how many, and which carried values nobody needs."""
    fixed = [i for i in range(found.carried) if _is_passed_on(found, i)]
    hoisted = sum(_hoist(found, i, names) for i in fixed)
    idle = (i for i in range(found.carried) if _is_idle(found, i))
    return hoisted, {*fixed, *idle}


def _is_passed_on(found: _Repeated, index: int) -> bool:
    """True when the body returns carried value *index* as it came in."""
    value: ir.Value | None = found.leaving(index)
    others = [v for i, v in enumerate(found.body.outputs) if i != found.flags + index]
    if any(v is found.entering(index) for v in others):
        return False
    while value is not None and value is not found.entering(index):
        producer = value.producer()
        if producer is None or producer.op_type != "Identity" or producer.graph is not found.body:
            return False
        value = producer.inputs[0]
    return value is not None


def _hoist(found: _Repeated, index: int, names: Names) -> bool:
    """The body reads the start value directly, and so does everyone who reads the result."""
    node, start, inner = found.node, found.start(index), found.entering(index)
    result = node.outputs[index]
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


def _is_idle(found: _Repeated, index: int) -> bool:
    """True when neither the result of a carried value is read, nor the value in the body."""
    return _unread(found.node.outputs[index]) and _unread_input(found.body, found.ahead + index)


def _unread_input(body: ir.Graph, place: int) -> bool:
    value = body.inputs[place]
    return not value.uses() and not any(value is v for v in body.outputs)
