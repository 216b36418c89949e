"""fold-shapes: decide shape arithmetic as far as dimensions are known, open ones as symbols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.attributes import int_of, str_of
from adcompile.ir.constants import const
from adcompile.ir.dataflow import Content, Dims, Flow, same
from adcompile.ir.dataflow_contents import analyse
from adcompile.ir.dataflow_views import slice_spec
from adcompile.ir.graph import is_constant
from adcompile.ir.model_io import subgraphs_of
from adcompile.ir.symbols import Elem
from adcompile.rewrite.surgery import Names, make_constant, remove_dead_nodes, substitute

Key: TypeAlias = "tuple[object, ...]"
Check: TypeAlias = Callable[[Flow, ir.Node], bool]


@dataclass(frozen=True)
class FoldShapes(Pass):
    """Uses what ``Flow`` knows: writes shapes back, replaces known integers by constants, shares
    equal shape computations, removes operators that cannot change their input, and gives Reshape
    a constant target."""

    name: ClassVar[str] = "fold-shapes"
    summary: ClassVar[str] = "evaluate shape arithmetic, with open dimensions as symbols"

    def run(self, model: ir.Model, report: Report) -> bool:
        """One analysis, then all replacements it justifies."""
        flow = analyse(model)
        folder = _Folder(flow, Names(model))
        folder.graph(model.graph, {})
        removed = remove_dead_nodes(model.graph) if folder.hits else 0
        if folder.hits:
            report.applied(
                self.name, "", detail=f"{folder.hits} values decided, {removed} nodes removed"
            )
        return bool(folder.hits or folder.learned)


class _Folder:
    def __init__(self, flow: Flow, names: Names) -> None:
        self.flow = flow
        self.names = names
        self.hits = 0
        self.learned = False

    def graph(self, graph: ir.Graph, outer: dict[Key, ir.Value]) -> None:
        """Visit nodes in order; *outer* holds computed contents of the graphs around."""
        known = dict(outer)
        for node in list(graph):
            for inner in subgraphs_of(node):
                self.graph(inner, known)
            for value in node.outputs:
                self._write_back(value)
            self._node(node, known)

    def _write_back(self, value: ir.Value) -> None:
        dims = self.flow.shape(value)
        if dims is None:
            return
        old = value.shape
        if old is None:
            value.shape = ir.Shape([d if isinstance(d, int) else None for d in dims])
            self.learned = True
        elif len(old) == len(dims):
            better = [d if isinstance(d, int) else o for d, o in zip(dims, old.dims, strict=True)]
            if any(a != b for a, b in zip(better, old.dims, strict=True)):
                value.shape = ir.Shape(better)
                self.learned = True

    def _node(self, node: ir.Node, known: dict[Key, ir.Value]) -> None:
        if node.op_type in ("Constant", "If", "Loop", "Scan"):
            return
        for value in node.outputs:
            content = self.flow.content(value)
            if content is not None and self._content(value, content, known):
                return
        if node.domain != "":
            return
        check = NO_CHANGE.get(node.op_type)
        if check is not None and self._unchanged(node, check):
            return
        if node.op_type == "Reshape":
            self._constant_target(node)

    def _content(self, value: ir.Value, content: Content, known: dict[Key, ir.Value]) -> bool:
        if value.dtype is None or not (value.uses() or value.is_graph_output()):
            return False
        flat: list[Elem] = content.ravel().tolist()
        if all(isinstance(x, int) for x in flat):
            array = np.asarray(flat, dtype=value.dtype.numpy()).reshape(content.shape)
            self.hits += int(done := make_constant(value, array, self.names))
            return done
        key: Key = (value.dtype, content.shape, *flat)
        earlier = known.setdefault(key, value)
        if earlier is value or not substitute(value, earlier, self.names):
            return False
        self.hits += 1
        return True

    def _unchanged(self, node: ir.Node, check: Check) -> bool:
        source, result = node.inputs[0], node.outputs[0]
        if source is None or not same(self.flow.shape(source), self.flow.shape(result)):
            return False
        if not (result.uses() or result.is_graph_output()) or not check(self.flow, node):
            return False
        if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
            return False
        done = substitute(result, source, self.names)
        self.hits += int(done)
        return done

    def _constant_target(self, node: ir.Node) -> None:
        if len(node.inputs) < 2 or is_constant(node.inputs[1]):
            return
        dims, data = self.flow.shape(node.outputs[0]), self.flow.shape(node.inputs[0])
        target = None if dims is None else reshape_target(data, dims)
        if target is None:
            return
        value = const(np.asarray(target, dtype=np.int64))
        graph = node.graph
        if not isinstance(graph, ir.Graph):
            return
        value.name = self.names.fresh(f"{node.outputs[0].name}_shape")
        graph.initializers.add(value)
        node.replace_input_with(1, value)
        node.attributes.pop("allowzero", None)
        self.hits += 1


def reshape_target(data: Dims | None, dims: Dims) -> list[int] | None:
    """A constant Reshape target (allowzero=0) that gives *dims*; None when there is none.

    0 copies the input's dimension, -1 stands for one open dimension.
    """
    if any(isinstance(d, int) and d == 0 for d in dims):
        return None
    target: list[int] = []
    open_places = 0
    for i, dim in enumerate(dims):
        if isinstance(dim, int):
            target.append(dim)
        elif data is not None and i < len(data) and data[i] is dim:
            target.append(0)
        else:
            target.append(-1)
            open_places += 1
    if open_places > 1:
        return None
    if open_places == 1 and 0 in target:
        # with an empty input, -1 beside a copied 0 would be undecidable
        return None
    if open_places == 0 and target.count(0) == 1:
        target[target.index(0)] = -1  # the usual way to write one open dimension
    return target


def _always(flow: Flow, node: ir.Node) -> bool:
    return True


def _steps_are_one(flow: Flow, node: ir.Node) -> bool:
    data = flow.shape(node.inputs[0])
    spec = None if data is None else slice_spec(flow, node, len(data))
    return spec is not None and all(step == 1 for *_, step in spec)


def _no_padding(flow: Flow, node: ir.Node) -> bool:
    pads = flow.numbers(node.inputs[1]) if len(node.inputs) > 1 else None
    given = node.attributes.get("pads")
    if given is not None:
        pads = list(given.as_ints())
    return pads is not None and not any(pads)


def _static(flow: Flow, node: ir.Node) -> bool:
    dims = flow.shape(node.inputs[0])
    return dims is not None and all(isinstance(d, int) for d in dims)


def _plain_resize(flow: Flow, node: ir.Node) -> bool:
    """Same size in and out maps every pixel to itself, except in modes that shift or crop."""
    shifting = ("tf_half_pixel_for_nn", "tf_crop_and_resize")
    mode = str_of(node, "coordinate_transformation_mode", "half_pixel")
    return mode not in shifting and _static(flow, node) and _scales_are_one(flow, node)


def _scales_are_one(flow: Flow, node: ir.Node) -> bool:
    """Sizes given, or scales of exactly 1: a scale of 1.01 may keep the size and move pixels."""
    if node.op_type == "Upsample" or len(node.inputs) < 4 or node.inputs[3] is None:
        index = 2 if len(node.inputs) > 2 else 1
        scales = node.inputs[index] if len(node.inputs) > index else None
        if scales is None or scales.const_value is None or not is_constant(scales):
            return False
        return bool(np.all(scales.const_value.numpy() == 1))
    return "axes" not in node.attributes or flow.numbers(node.inputs[3]) is not None


def _reduces_ones(flow: Flow, node: ir.Node) -> bool:
    """Equal shapes mean that only dimensions of size 1 are reduced, or none."""
    return bool(int_of(node, "keepdims", 1)) and _static(flow, node)


def _gathers_all(flow: Flow, node: ir.Node) -> bool:
    data = flow.shape(node.inputs[0])
    numbers = flow.numbers(node.inputs[1])
    if not data or numbers is None:
        return False
    size = data[int_of(node, "axis") % len(data)]
    return isinstance(size, int) and [n % size for n in numbers] == list(range(size))


NO_CHANGE: dict[str, Check] = {
    "Reshape": _always,
    "Flatten": _always,
    "Expand": _always,
    "Squeeze": _always,
    "Unsqueeze": _always,
    "Tile": _always,
    "Slice": _steps_are_one,
    "Pad": _no_padding,
    "Resize": _plain_resize,
    "Upsample": _plain_resize,
    "Gather": _gathers_all,
    "ReduceMax": _reduces_ones,
    "ReduceMin": _reduces_ones,
    "ReduceMean": _reduces_ones,
    "ReduceSum": _reduces_ones,
    "ReduceProd": _reduces_ones,
}
