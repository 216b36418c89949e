"""Rewrite a head that works on rows of regions into one that works on a mosaic of them (exact).

N rows of C × h × w become one image of tiles with gutters. Convolutions run over the whole image;
gutters are set to zero again before a convolution would read them across a border, so every tile sees
the zero padding it had. A fully connected layer becomes a convolution whose window and stride are one
tile. Values are those of row-by-row execution up to the order of sums.
"""

from __future__ import annotations

import json
import math

import onnx_ir as ir

from adcompile.errors import Unsupported
from adcompile.ir.constants import refill
from adcompile.ir.graph import constant, static_shape
from adcompile.ir.shapes import infer_shapes
from adcompile.lower.tile_rules import RULES
from adcompile.lower.tiling import MASKS, Builder, GutterTooNarrow
from adcompile.runtime.tiles import Mosaic

MAX_GUTTER = 8


def mosaic(model: ir.Model, grid: tuple[int, int]) -> tuple[ir.Model, Mosaic]:
    """The mosaic form of *model* for *grid* (rows by columns of tiles), and its layout.

    Raises Unsupported, naming the node, when a node does not treat every row by itself in a way that
    survives the packing.
    """
    for gutter in range(MAX_GUTTER + 1):
        builder = Builder(model, grid, gutter, RULES)
        try:
            return builder.build()
        except GutterTooNarrow:
            continue
    raise Unsupported("no gutter keeps the tiles apart", where=model.graph.name or "model")


def square_grid(count: int) -> tuple[int, int]:
    """Rows and columns of a nearly square grid with at least *count* tiles."""
    columns = math.isqrt(max(count - 1, 0)) + 1
    return -(-max(count, 1) // columns), columns


def resize_mosaic(model: ir.Model, layout: Mosaic, grid: tuple[int, int]) -> ir.Model:
    """The same mosaic model for a smaller grid: image sizes and gutter masks are cut."""
    largest = max(layout.grids, key=lambda g: g[0] * g[1])
    copy = model.clone()
    masks: list[str] = json.loads(model.metadata_props.get(MASKS, "[]"))
    for value in copy.graph.inputs:
        spec = layout.inputs[value.name or ""]
        channels = (static_shape(value) or (1, 1))[1]
        value.shape = ir.Shape([1, channels, *spec.image(grid)])
    for name, value in copy.graph.initializers.items():
        array = constant(value)
        if array is None or array.ndim != 4 or not _is_mask(name, masks):
            continue
        pitch_y, pitch_x = array.shape[2] // largest[0], array.shape[3] // largest[1]
        refill(value, array[:, :, : grid[0] * pitch_y, : grid[1] * pitch_x])
    for node in copy.graph:
        for value in node.outputs:
            value.shape = None
    infer_shapes(copy)
    return copy


def _is_mask(name: str, masks: list[str]) -> bool:
    """True for a gutter mask, or its quantized form."""
    return any(name == m or name.startswith(f"{m}_quantized") for m in masks)
