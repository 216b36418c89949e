"""Plugin surgery at the TensorRT border: operators of a part replaced by a user's plugins.

    -O plugins='InstanceNormalization=InstanceNorm_TRT@2:relu=1;GridSample=MySampler'
    -O plugin_library=libmine.so

Only the file that TensorRT reads is changed, with ``onnx-graphsurgeon``; placement, simulation
and golden data keep the standard operators, so the plugin is held to the same numbers.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import onnx
import onnx_ir as ir

from adcompile.errors import ToolMissing, UsageError
from adcompile.ir import model_io

_RULE = re.compile(r"([\w.:]+)=(\w+)(?:@([\w.]+))?(?::(.+))?")
_SYNTAX = "write OP=PLUGIN, OP=PLUGIN@VERSION or OP=PLUGIN@VERSION:name=value,name=value"


@dataclass(frozen=True, slots=True)
class Plugin:
    """Which operator becomes which plugin. ``fields`` are added to the node's attributes."""

    op: str
    name: str
    version: str
    fields: tuple[tuple[str, int | float | str], ...] = ()


class _Node(Protocol):
    op: str
    domain: str | None
    attrs: dict[str, object]


class _Graph(Protocol):
    nodes: list[_Node]


class _GraphSurgeon(Protocol):
    def import_onnx(self, model: onnx.ModelProto) -> _Graph: ...
    def export_onnx(self, graph: _Graph, do_type_check: bool) -> onnx.ModelProto: ...


def read_plugins(text: str) -> tuple[Plugin, ...]:
    """The option ``plugins``; UsageError says how to write it."""
    found: list[Plugin] = []
    for item in filter(None, (part.strip() for part in text.split(";"))):
        match = _RULE.fullmatch(item)
        if match is None:
            raise UsageError(f"-O plugins: cannot read {item!r}", fix=_SYNTAX)
        op, name, version, fields = match.groups()
        found.append(Plugin(op, name, version or "1", _fields(fields or "")))
    return tuple(found)


def _fields(text: str) -> tuple[tuple[str, int | float | str], ...]:
    pairs = [item.partition("=") for item in text.split(",") if item.strip()]
    if any(not name.strip() or not sign for name, sign, _ in pairs):
        raise UsageError(f"-O plugins: cannot read the fields {text!r}", fix=_SYNTAX)
    return tuple((name.strip(), _number(value.strip())) for name, _, value in pairs)


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def with_plugins(model: ir.Model, plugins: Sequence[Plugin]) -> bytes:
    """*model* with plugin nodes, as the bytes of an ONNX file.

    Raises ToolMissing without onnx-graphsurgeon. An operator that the part does not have is left
    alone: parts differ.
    """
    try:
        surgeon = cast(_GraphSurgeon, importlib.import_module("onnx_graphsurgeon"))
    except ImportError as error:
        raise ToolMissing(
            "onnx-graphsurgeon is not installed",
            why=str(error),
            fix="pip install 'adcompile[surgery]', or leave out -O plugins",
        ) from error
    graph = surgeon.import_onnx(model_io.to_proto(model))
    wanted = {plugin.op: plugin for plugin in plugins}
    for node in graph.nodes:
        key = node.op if not node.domain else f"{node.domain}::{node.op}"
        plugin = wanted.get(key)
        if plugin is not None:
            node.op, node.domain = plugin.name, None
            node.attrs |= {"plugin_version": plugin.version, "plugin_namespace": ""}
            node.attrs |= dict(plugin.fields)
    changed = surgeon.export_onnx(graph, do_type_check=False)
    return model_io.serialized(changed)


def replaced(model: ir.Model, plugins: Sequence[Plugin]) -> int:
    """How many nodes of *model* the plugins stand for."""
    keys = {plugin.op for plugin in plugins}
    names = (f"{n.domain}::{n.op_type}" if n.domain else n.op_type for n in model.graph)
    return sum(name in keys for name in names)
