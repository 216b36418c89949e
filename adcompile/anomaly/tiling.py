"""Large images through a small network: overlapping tiles in, one feature map out.

The result is again one network from image to feature maps, so everything behind it (pooling, bank,
Gaussians, score, map) works on the whole image and knows nothing of tiles. The network is written
once per tile with shared weights rather than run on a batch of tiles: accelerators that only take
batches of one can run it. Where tiles overlap, their features are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_ir as ir

from adcompile.anomaly.backbone import Backbone
from adcompile.anomaly.heads import GraphWriter
from adcompile.errors import ModelError, UsageError

MAX_TILES = 256


def tile_starts(side: int, tile: int, stride: int, cell: int) -> list[int]:
    """First pixels of the tiles along one side; the last tile ends at the border.

    ``cell`` is the coarsest feature map's step in pixels: tiles must begin on whole cells. Raises
    UsageError for a stride above the tile, a tile above the image, and sizes that do not fit.
    """
    if not 0 < tile <= side:
        raise UsageError(
            "the tile is larger than the image", why=f"tile {tile}, image {side}", fix="--tile"
        )
    if not 0 < stride <= tile:
        raise UsageError(
            "the tile stride must be between 1 and the tile",
            why=f"stride {stride}, tile {tile}: pixels between tiles would not be seen",
            fix="--tile-stride",
        )
    if stride % cell or (side - tile) % cell:
        good = tile + (side - tile) // cell * cell
        raise UsageError(
            "tiles must begin on whole feature cells",
            why=f"stride {stride} and image - tile {side - tile} must be multiples of {cell}",
            fix=f"--tile-stride {max(cell, stride // cell * cell)} --image-size {good}",
        )
    starts = list(range(0, side - tile, stride))
    return [*starts, side - tile]


def tile_backbone(network: Backbone, side: int, stride: int) -> Backbone:
    """The network applied to tiles of its own size, *stride* apart, of images of *side* pixels."""
    height, width = network.size
    if height != width:
        raise ModelError("tiles are square", why=f"the network takes {height}×{width}")
    steps = [height // grid[0] for grid in network.grids]
    for step, grid in zip(steps, network.grids, strict=True):
        if (grid[0] * step, grid[1] * step) != network.size:
            raise ModelError(
                "feature maps that do not divide the tile cannot be put together",
                why=f"tile {height}, feature map {grid[0]}×{grid[1]}",
                fix="another --tile, or other --layers",
            )
    starts = tile_starts(side, height, stride, max(steps))
    places = [(top, left) for top in starts for left in starts]
    if len(places) > MAX_TILES:
        raise UsageError(
            "too many tiles",
            why=f"{len(places)}, at most {MAX_TILES}",
            fix="a larger --tile-stride",
        )
    return _assemble(network, side, places, steps)


def _assemble(
    network: Backbone, side: int, places: Sequence[tuple[int, int]], steps: Sequence[int]
) -> Backbone:
    model = network.model.clone()
    graph = model.graph
    source, body, layers = graph.inputs[0], list(graph), list(graph.outputs)
    if any(isinstance(a.value, ir.Graph) for node in body for a in node.attributes.values()):
        raise ModelError("a network with control flow cannot be tiled", where=graph.name or "")
    image = ir.Value(name="image", shape=ir.Shape([*_front(source), side, side]))
    image.type = source.type
    writer = GraphWriter(model, "tiles")
    axes = writer.integers("axes", [2, 3])
    grids = [(side // step, side // step) for step in steps]
    sums: list[ir.Value | None] = [None] * len(layers)
    for number, (top, left) in enumerate(places):
        first = writer.integers(f"from_{number}", [top, left])
        last = writer.integers(f"to_{number}", [top + network.size[0], left + network.size[1]])
        crop = writer.one("Slice", [image, first, last, axes])
        made = _copy(writer, body, {source: crop}, number)
        for index, (layer, step) in enumerate(zip(layers, steps, strict=True)):
            place = (top // step, left // step)
            padded = _pad(writer, made[layer], place, network.grids[index], grids[index], index)
            known = sums[index]
            sums[index] = padded if known is None else writer.one("Add", [known, padded])
    graph.remove(body, safe=False)
    graph.inputs.clear()
    graph.inputs.append(image)
    graph.outputs.clear()
    for index, (layer, step) in enumerate(zip(layers, steps, strict=True)):
        total = sums[index]
        assert total is not None
        share = _shares(places, network.grids[index], grids[index], step)
        mean = writer.one("Mul", [total, writer.constant(f"tiles/share_{index}", share)])
        writer.rename(mean, f"{layer.name}_whole")
        mean.shape = ir.Shape([_front(source)[0], network.channels[index], *grids[index]])
        graph.outputs.append(mean)
    return Backbone(model, (side, side), network.channels, tuple(grids), network.fixed_batch)


def _front(source: ir.Value) -> list[int | str | None]:
    """Batch and channels of the network's input."""
    assert source.shape is not None
    return [d if isinstance(d, int) else d.value for d in source.shape[:2]]


def _copy(
    writer: GraphWriter,
    body: Sequence[ir.Node],
    known: Mapping[ir.Value, ir.Value],
    number: int,
) -> dict[ir.Value, ir.Value]:
    """The network's nodes once more, reading *known* values; weights are shared."""
    values = dict(known)
    for position, node in enumerate(body):
        inputs = [None if v is None else values.get(v, v) for v in node.inputs]
        twin = ir.Node(
            node.domain,
            node.op_type,
            inputs,
            list(node.attributes.values()),
            num_outputs=len(node.outputs),
            name=f"tile_{number}/{node.name or position}",
        )
        for old, new in zip(node.outputs, twin.outputs, strict=True):
            new.name, new.type, new.shape = f"tile_{number}/{old.name}", old.type, old.shape
            values[old] = new
        writer.model.graph.append(twin)
    return values


def _pad(
    writer: GraphWriter,
    value: ir.Value,
    place: tuple[int, int],
    grid: tuple[int, int],
    whole: tuple[int, int],
    index: int,
) -> ir.Value:
    """A tile's feature map at its place in a map of zeros."""
    after = [whole[i] - place[i] - grid[i] for i in range(2)]
    amounts = writer.integers(f"pads_{index}_{writer.count}", [0, 0, *place, 0, 0, *after])
    return writer.one("Pad", [value, amounts])


def _shares(
    places: Sequence[tuple[int, int]], grid: tuple[int, int], whole: tuple[int, int], step: int
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """One over the number of tiles that cover each cell, [1, 1, h, w]."""
    counts = np.zeros((1, 1, *whole), np.float32)
    for top, left in places:
        counts[
            ..., top // step : top // step + grid[0], left // step : left // step + grid[1]
        ] += 1
    return np.asarray(1.0 / counts, np.float32)
