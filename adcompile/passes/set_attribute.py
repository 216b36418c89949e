"""set-attribute: change an attribute of one node by hand, recorded like any other rewrite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import onnx
import onnx.defs
import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.ir.graph import all_nodes, opset


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.strip("[]").split(",") if item.strip()]


_PARSERS: Mapping[ir.AttributeType, Callable[[str, str], ir.Attr]] = {
    ir.AttributeType.INT: lambda name, text: ir.AttrInt64(name, int(text)),
    ir.AttributeType.FLOAT: lambda name, text: ir.AttrFloat32(name, float(text)),
    ir.AttributeType.STRING: ir.AttrString,
    ir.AttributeType.INTS: lambda n, text: ir.AttrInt64s(n, [int(x) for x in _items(text)]),
    ir.AttributeType.FLOATS: lambda n, text: ir.AttrFloat32s(n, [float(x) for x in _items(text)]),
    ir.AttributeType.STRINGS: lambda name, text: ir.AttrStrings(name, _items(text)),
}


@dataclass(frozen=True)
class SetAttribute(Pass):
    """Sets ``attribute`` of the node called ``node`` to ``value`` (lists as ``3,3``).

    The type is that of the operator's schema. This can change what the model computes, so the record
    says approximate, but naming the node is permission enough. Shapes behind the node are inferred
    anew.
    """

    name: ClassVar[str] = "set-attribute"
    summary: ClassVar[str] = "set one node's attribute: set-attribute{node=n,attribute=a,value=v}"
    node: str = ""
    attribute: str = ""
    value: str = ""

    def run(self, model: ir.Model, report: Report) -> bool:
        """Change the attribute; True when it had another value."""
        found = [n for n in all_nodes(model) if n.name == self.node]
        if len(found) != 1:
            count = "no node" if not found else f"{len(found)} nodes"
            raise UsageError(f"{count} called {self.node!r}", fix="adcompile inspect lists names")
        (node,) = found
        new = self._attribute(node, opset(model))
        old = node.attributes.get(self.attribute)
        if old is not None and old.type == new.type and old.value == new.value:
            return False
        node.attributes[self.attribute] = new
        forget_shapes(node)
        report.applied(
            self.name, self.node, Exactness.APPROXIMATE, f"{self.attribute}={self.value}"
        )
        return True

    def _attribute(self, node: ir.Node, version: int) -> ir.Attr:
        kind = _type_of(node, self.attribute, version)
        parse = _PARSERS.get(kind)
        if parse is None:
            raise UsageError(f"attribute {self.attribute!r} holds {kind.name}, not plain values")
        try:
            return parse(self.attribute, self.value)
        except ValueError as error:
            raise UsageError(
                f"{self.value!r} is not {kind.name.lower()}",
                where=f"{self.node}: {self.attribute}",
            ) from error


def _type_of(node: ir.Node, name: str, version: int) -> ir.AttributeType:
    present = node.attributes.get(name)
    if present is not None:
        return present.type
    try:
        schema = onnx.defs.get_schema(
            node.op_type, max_inclusive_version=version, domain=node.domain
        )
    except onnx.defs.SchemaError as error:
        raise UsageError(f"{node.op_type} has no attribute {name!r} yet") from error
    declared = schema.attributes.get(name)
    if declared is None:
        raise UsageError(
            f"{node.op_type} has no attribute {name!r}",
            fix="known: " + ", ".join(sorted(schema.attributes)),
        )
    return ir.AttributeType[str(declared.type).rsplit(".", 1)[-1]]


def forget_shapes(node: ir.Node) -> None:
    """Forget the inferred shapes of everything behind *node*; model outputs keep their rank."""
    pending = [node]
    seen: set[ir.Node] = set()
    while pending:
        each = pending.pop()
        if each in seen:
            continue
        seen.add(each)
        for value in each.outputs:
            if value.shape is not None:
                open_dims = ir.Shape([None] * len(value.shape))
                value.shape = open_dims if value.is_graph_output() else None
            pending += value.consumers()


def parse_setting(text: str) -> SetAttribute:
    """``NODE attribute=value`` as a pass; node names may hold blanks. Raises UsageError."""
    node, _, rest = text.strip().rpartition(" ")
    attribute, equals, value = rest.partition("=")
    if not node or not equals or not attribute:
        raise UsageError("cannot read --set", where=text, fix="write --set 'NODE attribute=value'")
    return SetAttribute(node=node.strip(), attribute=attribute, value=value)
