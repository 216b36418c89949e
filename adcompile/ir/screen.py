"""Refuse hostile or broken model files, before anything is built from them.

Works on the protobuf: names, scopes, tensor sizes and external data are checked without reading
any weight. What passes here can be turned into ``onnx_ir`` objects without surprises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import onnx
import onnx.defs

from adcompile.errors import ModelError
from adcompile.ir.screen_tensors import Source, check_declared, check_tensor, make_dense

NOT_TEXT = "ONNX strings are UTF-8"


@dataclass
class _Scope:
    """Names visible in one graph: its own, and those of the graphs around it."""

    names: set[str] = field(default_factory=set[str])
    outer: _Scope | None = None

    def sees(self, name: str) -> bool:
        scope: _Scope | None = self
        while scope is not None:
            if name in scope.names:
                return True
            scope = scope.outer
        return False


def screen(proto: onnx.ModelProto, source: Source) -> None:
    """Check *proto*, which came from *source*; raise ModelError that names the first fault."""
    origin = source.origin
    if not proto.HasField("graph"):
        raise ModelError(
            "not an ONNX model",
            where=origin,
            why="the file holds no graph",
            fix="export the model to ONNX again",
        )
    _check_versions(proto, origin)
    _check_graph(proto.graph, None, origin, source)
    for function in proto.functions:
        _check_function(function, origin, source)
    _check_calls(proto, origin)
    _check_operators(proto, origin)


def _check_operators(proto: onnx.ModelProto, origin: str) -> None:
    """Every domain is imported, and every operator of the standard one exists in its opset."""
    imported = {_plain(o.domain): o.version for o in proto.opset_import}
    own = {(_plain(f.domain), f.name) for f in proto.functions}
    _check_known(_nested_nodes(proto.graph.node), imported, own, origin)
    for function in proto.functions:
        local = imported | {_plain(o.domain): o.version for o in function.opset_import}
        _check_known(_nested_nodes(function.node), local, own, origin)


def _check_known(
    nodes: Iterator[onnx.NodeProto],
    imported: dict[str, int],
    own: set[tuple[str, str]],
    origin: str,
) -> None:
    for node in nodes:
        domain = _plain(node.domain)
        where = f"{origin}: node {node.name!r}"
        if domain not in imported:
            raise ModelError(
                f"model uses domain {domain!r} without importing it",
                where=where,
                fix="export the model again",
            )
        if not domain and (domain, node.op_type) not in own and node.op_type not in _LEGACY:
            _check_schema(node, imported[domain], where)


def _check_schema(node: onnx.NodeProto, opset: int, where: str) -> None:
    """Operator, number of inputs and outputs, and attribute types, as the standard has them."""
    rule = _schema(node.op_type, opset)
    if rule is None:
        since = _first_opsets().get(node.op_type)
        if since is None:
            raise ModelError(
                f"unknown operator {node.op_type!r}",
                where=where,
                why="the standard domain has no such operator",
                fix="export the model again; a custom operator needs a domain of its own",
            )
        raise ModelError(
            f"operator {node.op_type!r} is newer than the model's opset",
            where=where,
            why=f"it came with opset {since}, the model has {opset}",
            fix=f"export with opset {since} or newer",
        )
    for what, count, low, high in (
        ("inputs", len(node.input), rule.inputs[0], rule.inputs[1]),
        ("outputs", len(node.output), rule.outputs[0], rule.outputs[1]),
    ):
        if not low <= count <= high:
            raise ModelError(
                f"{node.op_type} has {count} {what}",
                where=where,
                why=f"opset {opset} wants {low} to {high}" if low < high else f"it wants {low}",
            )
    given = {attribute.name: attribute for attribute in node.attribute}
    for attribute in given.values():
        kind = rule.attributes.get(attribute.name)
        if kind is not None and kind != attribute.type:
            raise ModelError(
                f"attribute {attribute.name!r} of {node.op_type} has the wrong type", where=where
            )
    absent = next((name for name in rule.required if name not in given), None)
    if absent is not None:
        raise ModelError(f"{node.op_type} lacks its attribute {absent!r}", where=where)


@dataclass(frozen=True)
class _Rule:
    """What a schema demands: least and most inputs and outputs, attribute types, required ones."""

    inputs: tuple[int, int]
    outputs: tuple[int, int]
    attributes: Mapping[str, int]
    required: tuple[str, ...]


@cache
def _schema(op_type: str, opset: int) -> _Rule | None:
    try:
        found = onnx.defs.get_schema(op_type, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return None
    kinds = {
        name: int(onnx.AttributeProto.AttributeType.Value(str(declared.type).rpartition(".")[2]))
        for name, declared in found.attributes.items()
    }
    required = tuple(name for name, declared in found.attributes.items() if declared.required)
    return _Rule(
        (found.min_input, found.max_input), (found.min_output, found.max_output), kinds, required
    )


def _plain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


# experimental operators of the first exporters; ONNX Runtime still runs them
_LEGACY = frozenset(
    (
        *("Affine", "Crop", "DynamicSlice", "GivenTensorFill", "GRUUnit", "ImageScaler"),
        *("ParametricSoftplus", "Scale", "ScaledTanh", "ThresholdedRelu", "ATen"),
    )
)


@cache
def _first_opsets() -> dict[str, int]:
    """Standard operator to the opset that introduced it."""
    first: dict[str, int] = {}
    for schema in onnx.defs.get_all_schemas_with_history():
        if schema.domain == "":
            name = schema.name
            first[name] = min(first.get(name, schema.since_version), schema.since_version)
    return first


def _check_versions(proto: onnx.ModelProto, origin: str) -> None:
    if proto.ir_version > onnx.IR_VERSION:
        raise ModelError(
            f"ONNX IR version {proto.ir_version} is newer than this adcompile reads",
            where=origin,
            why=f"the installed onnx package knows versions up to {onnx.IR_VERSION}",
            fix="upgrade the onnx package, or export with an older one",
        )
    if not proto.opset_import:
        raise ModelError("model declares no opset", where=origin, fix="export the model again")
    newest = onnx.defs.onnx_opset_version()
    for entry in proto.opset_import:
        if entry.domain not in ("", "ai.onnx"):
            continue
        if not 1 <= entry.version <= newest:
            raise ModelError(
                f"opset {entry.version} is not supported",
                where=origin,
                why=f"the installed onnx package knows opsets 1 to {newest}",
                fix="export with --opset 17, or convert with onnx.version_converter",
            )


def _check_graph(
    graph: onnx.GraphProto, outer: _Scope | None, origin: str, source: Source
) -> None:
    where = f"{origin}: graph {graph.name or 'without name'!r}"
    scope = _Scope(outer=outer)
    for value in graph.input:
        if not value.name:
            raise ModelError("graph input without a name", where=where)
        if value.name in scope.names:
            raise ModelError(f"two graph inputs are called {value.name!r}", where=where)
        scope.names.add(value.name)
        check_declared(value, where)
    stored: set[str] = set()
    for tensor in graph.initializer:
        if not tensor.name:
            raise ModelError("initializer without a name", where=where)
        if tensor.name in stored:
            raise ModelError(f"two initializers are called {tensor.name!r}", where=where)
        stored.add(tensor.name)
        held = source.places.get(tensor.name) if outer is None else None
        check_tensor(tensor, source, origin, held=None if held is None else held[1])
    scope.names |= stored
    make_dense(graph, stored, where)
    scope.names |= stored
    for node in graph.node:
        for name in filter(None, node.output):
            if name in scope.names:
                raise ModelError(
                    f"value {name!r} is produced twice",
                    where=f"{where}, node {node.name!r} ({node.op_type})",
                    why="every value name must have one producer",
                )
            scope.names.add(name)
    _check_nodes(graph.node, scope, where, source)
    for value in graph.output:
        if value.name not in scope.names:
            raise ModelError(
                f"graph output {value.name!r} is produced by nothing",
                where=where,
                fix="export the model again, or remove the output",
            )
        check_declared(value, where)


def _check_nodes(
    nodes: Sequence[onnx.NodeProto], scope: _Scope, where: str, source: Source
) -> None:
    for node in nodes:
        at = f"{where}, node {node.name!r} ({node.op_type})"
        if not node.op_type:
            raise ModelError("node without an operator", where=at)
        for text in (node.op_type, node.domain, *node.input, *node.output):
            check_text(text, at)
        for name in filter(None, node.input):
            if not scope.sees(name):
                raise ModelError(
                    f"node reads {name!r}, which nothing produces",
                    where=at,
                    fix="export the model again; a cut model needs the value as an input",
                )
        seen: set[str] = set()
        for attribute in node.attribute:
            if attribute.name in seen:
                raise ModelError(f"attribute {attribute.name!r} is given twice", where=at)
            seen.add(attribute.name)
            _check_attribute(attribute, at)
            for tensor in attribute_tensors(attribute):
                check_tensor(tensor, source, at)
            for graph in attribute_graphs(attribute):
                _check_graph(graph, scope, at, source)


# attribute type -> the field that must hold its value; lists and plain numbers may be empty
_HOLDS = {
    onnx.AttributeProto.GRAPH: "g",
    onnx.AttributeProto.TENSOR: "t",
    onnx.AttributeProto.SPARSE_TENSOR: "sparse_tensor",
    onnx.AttributeProto.TYPE_PROTO: "tp",
}


def check_text(text: str | bytes, where: str) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes."""
    if isinstance(text, bytes):
        raise ModelError(f"name {text!r} is not text", where=where, why=NOT_TEXT)


def _check_attribute(attribute: onnx.AttributeProto, where: str) -> None:
    kind = attribute.type
    if (
        kind == onnx.AttributeProto.UNDEFINED
        or kind not in onnx.AttributeProto.AttributeType.values()
    ):
        raise ModelError(f"attribute {attribute.name!r} has no known type", where=where)
    field_name = _HOLDS.get(kind)
    if field_name and not attribute.ref_attr_name and not attribute.HasField(field_name):
        raise ModelError(f"attribute {attribute.name!r} holds no value", where=where)
    try:
        for text in (attribute.s, *attribute.strings):
            text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"attribute {attribute.name!r} is not text",
            where=where,
            why=NOT_TEXT,
            fix="export the model again; a compiled context cannot be compiled once more",
        ) from error


def _check_function(function: onnx.FunctionProto, origin: str, source: Source) -> None:
    where = f"{origin}: function {function.domain}::{function.name}"
    scope = _Scope(names=set(function.input))
    if len(scope.names) != len(function.input):
        raise ModelError("two function inputs have the same name", where=where)
    for node in function.node:
        for name in filter(None, node.output):
            if name in scope.names:
                raise ModelError(f"value {name!r} is produced twice", where=where)
            scope.names.add(name)
    _check_nodes(function.node, scope, where, source)
    for name in function.output:
        if name not in scope.names:
            raise ModelError(f"function output {name!r} is produced by nothing", where=where)


def _check_calls(proto: onnx.ModelProto, origin: str) -> None:
    """Functions that call each other in a circle would be expanded without end."""
    calls = {
        (f.domain, f.name): [(n.domain, n.op_type) for n in _nested_nodes(f.node)]
        for f in proto.functions
    }
    done: set[tuple[str, str]] = set()
    for start in calls:
        stack: list[tuple[tuple[str, str], Iterator[tuple[str, str]]]] = []
        active: list[tuple[str, str]] = []
        if start not in done:
            stack.append((start, iter(calls[start])))
            active.append(start)
        while stack:
            key, rest = stack[-1]
            following = next((c for c in rest if c in calls and c not in done), None)
            if following is None:
                done.add(key)
                stack.pop()
                active.pop()
            elif following in active:
                raise ModelError(
                    "model functions call each other in a circle",
                    where=f"{origin}: {following[0]}::{following[1]}",
                )
            else:
                stack.append((following, iter(calls[following])))
                active.append(following)


def _nested_nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in attribute_graphs(attribute):
                yield from _nested_nodes(graph.node)


def attribute_graphs(attribute: onnx.AttributeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that an attribute holds."""
    if attribute.HasField("g"):
        yield attribute.g
    yield from attribute.graphs


def attribute_tensors(attribute: onnx.AttributeProto) -> Iterator[onnx.TensorProto]:
    """The dense tensors that an attribute holds, those inside sparse ones included."""
    if attribute.HasField("t"):
        yield attribute.t
    yield from attribute.tensors
    sparse = list(attribute.sparse_tensors)
    if attribute.HasField("sparse_tensor"):
        sparse.append(attribute.sparse_tensor)
    for tensor in sparse:
        yield tensor.values
        yield tensor.indices
