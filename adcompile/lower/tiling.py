"""The state of a mosaic rewrite: where every value lies in its image, and the graph being built."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from adcompile.errors import Unsupported
from adcompile.interfaces import Array
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import constant, set_provenance
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.insert import name_nodes
from adcompile.runtime.tiles import Mosaic, TileSpec

RULE = "roi-mosaic"
MASKS = "adcompile.mosaic.masks"  # model metadata: names of the constants that zero the gutters


@dataclass(frozen=True)
class Tiles:
    """How a value lies in its image. ``clean``: gutters are zero. ``pending``: a Flatten was passed,
    the next product takes the whole tile."""

    height: int
    width: int
    pitch_y: int
    pitch_x: int
    clean: bool
    pending: bool = False
    flat: bool = False


class GutterTooNarrow(Exception):
    """Try again with a wider gutter."""


class Builder:
    """One attempt with a fixed gutter."""

    def __init__(
        self, model: ir.Model, grid: tuple[int, int], gutter: int, rules: Mapping[str, Rule]
    ) -> None:
        self.model = model.clone()
        name_nodes(self.model)
        self.graph = self.model.graph
        self.grid = grid
        self.gutter = gutter
        self.rules = rules
        self.tiles: dict[ir.Value, Tiles] = {}
        self.masks: dict[tuple[int, int, int, int], ir.Value] = {}
        self.cleaned: dict[ir.Value, ir.Value] = {}

    def build(self) -> tuple[ir.Model, Mosaic]:
        """Rewrite node by node."""
        inputs: dict[str, TileSpec] = {}
        for value in self.graph.inputs:
            shape = [] if value.shape is None else list(value.shape.dims)
            sizes = [d for d in shape[1:] if isinstance(d, int)]
            if len(sizes) != len(shape) - 1 or len(shape) not in (2, 4):
                raise Unsupported(
                    "a mosaic needs rows of images or vectors",
                    where=f"input {value.name!r} {shape}",
                )
            channels, *plane = sizes
            if plane:
                height, width = plane
                tiles = Tiles(height, width, height + self.gutter, width + self.gutter, clean=True)
            else:  # a vector is one pixel
                tiles = Tiles(1, 1, 1, 1, clean=True, flat=True)
            self.tiles[value] = tiles
            inputs[value.name or ""] = _spec(tiles)
            value.shape = ir.Shape([1, channels, *_spec(tiles).image(self.grid)])
        for node in list(self.graph):
            self._visit(node)
        outputs: dict[str, TileSpec] = {}
        for value in self.graph.outputs:
            if value not in self.tiles or self.tiles[value].pending:
                raise Unsupported("an output is not a row of the mosaic", where=value.name or "")
            outputs[value.name or ""] = _spec(self.tiles[value])
        for node in self.graph:
            for value in node.outputs:
                value.shape = None
        names = sorted(v.name or "" for v in self.masks.values())
        self.model.metadata_props[MASKS] = json.dumps(names)
        self._drop_unused()
        infer_shapes(self.model)
        return self.model, Mosaic(inputs, outputs, (self.grid,))

    def _drop_unused(self) -> None:
        for name, value in list(self.graph.initializers.items()):
            if not list(value.uses()):
                del self.graph.initializers[name]

    def _visit(self, node: ir.Node) -> None:
        rewrite = self.rules.get(node.op_type) if not node.domain else None
        if rewrite is None:
            raise refuse(node, "this operator has no mosaic form")
        rewrite(self, node)

    def tiles_of(self, node: ir.Node) -> Tiles:
        """The layout of the first input."""
        value = node.inputs[0] if node.inputs else None
        if value is None or value not in self.tiles:
            raise refuse(node, "input 0 is not a row of the mosaic")
        return self.tiles[value]

    def constant_of(self, node: ir.Node, index: int) -> Array:
        """A constant input."""
        value = node.inputs[index] if index < len(node.inputs) else None
        array = constant(value)
        if array is None:
            raise refuse(node, f"input {index} is not a constant")
        return array

    def spatial(self, node: ir.Node) -> Tiles:
        """The layout of the data input, which must still have height and width."""
        tiles = self.tiles_of(node)
        if tiles.pending:
            raise refuse(node, "rows were flattened before it")
        return tiles

    def clean_input(self, node: ir.Node) -> None:
        """Make the gutters of input 0 zero."""
        value = node.inputs[0]
        assert value is not None
        tiles = self.tiles[value]
        if tiles.clean or (tiles.height, tiles.width) == (tiles.pitch_y, tiles.pitch_x):
            return
        if value not in self.cleaned:
            mul = ir.Node("", "Mul", [value, self._mask(tiles)], name=f"{value.name}_gutters")
            out = mul.outputs[0]
            out.name, out.type = f"{value.name}_clean", value.type
            producer = value.producer()
            if producer is not None:
                self.graph.insert_after(producer, mul)
                set_provenance(mul, [producer], RULE)
            self.tiles[out] = replace(tiles, clean=True)
            self.cleaned[value] = out
        node.replace_input_with(0, self.cleaned[value])

    def _mask(self, tiles: Tiles) -> ir.Value:
        key = (tiles.height, tiles.width, tiles.pitch_y, tiles.pitch_x)
        if key not in self.masks:
            one = np.zeros((tiles.pitch_y, tiles.pitch_x), np.float32)
            one[: tiles.height, : tiles.width] = 1.0
            array = np.tile(one, self.grid)[None, None]
            name = "gutters_" + "x".join(map(str, key))
            value = self.constant(name, array)
            self.masks[key] = value
        return self.masks[key]

    def constant(self, name: str, array: Array) -> ir.Value:
        """Register a new constant."""
        taken = self.graph.initializers
        unique, count = name, 2
        while unique in taken:
            unique, count = f"{name}_{count}", count + 1
        return add_constant(self.graph, unique, array)

    def replace(self, node: ir.Node, new: ir.Node, tiles: Tiles) -> None:
        """Put *new* in the place of *node*, with its name and output name."""
        old, out = node.outputs[0], new.outputs[0]
        out.name, out.type = old.name, old.type
        new.name = node.name
        self.graph.insert_before(node, new)
        set_provenance(new, [node], RULE)
        old.replace_all_uses_with(out, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        self.tiles[out] = tiles

    def forward(self, node: ir.Node, tiles: Tiles) -> None:
        """Drop *node*: its readers read its input."""
        old, source = node.outputs[0], node.inputs[0]
        assert source is not None
        if old.is_graph_output():
            identity = ir.Node("", "Identity", [source])
            self.replace(node, identity, tiles)
            return
        # a fresh Identity keeps the layouts of input and output apart; clean-up removes it
        identity = ir.Node("", "Identity", [source])
        self.replace(node, identity, tiles)


def _spec(tiles: Tiles) -> TileSpec:
    return TileSpec(tiles.height, tiles.width, tiles.pitch_y, tiles.pitch_x, tiles.flat)


def refuse(node: ir.Node, why: str) -> Unsupported:
    """The error for a node that cannot be packed."""
    return Unsupported(
        "the part cannot run as a mosaic",
        where=f"node {node.name!r} ({node.op_type})",
        why=why,
        fix="use another ROI policy: loop, bucket or host",
    )


Rule = Callable[[Builder, ir.Node], None]
