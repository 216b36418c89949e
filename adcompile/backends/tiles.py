"""Rows as tiles of one image: the runtime side of a mosaic part.

A device that takes batch 1 runs many regions in one call when they lie side by side in one image, kept
apart by gutters. This file packs rows into the image and cuts results out of it; the graph that works
on such images is made at build time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adcompile.errors import FormatError, InputError
from adcompile.runtime.executor import Array

MAX_TILES = 1 << 16


@dataclass(frozen=True, slots=True)
class TileSpec:
    """One tensor as tiles: size of a tile and the distance between tile corners. ``flat`` tensors
    are one pixel per tile and have no spatial dimensions outside."""

    height: int
    width: int
    pitch_y: int
    pitch_x: int
    flat: bool = False

    def image(self, grid: tuple[int, int]) -> tuple[int, int]:
        """Height and width of the image that holds *grid* tiles."""
        return grid[0] * self.pitch_y, grid[1] * self.pitch_x


@dataclass(frozen=True, slots=True)
class Mosaic:
    """Tile layout of every input and output; ``grids`` are the compiled rows by columns of tiles."""

    inputs: Mapping[str, TileSpec]
    outputs: Mapping[str, TileSpec]
    grids: tuple[tuple[int, int], ...]

    def capacities(self) -> tuple[int, ...]:
        """Tiles of every grid, smallest first."""
        return tuple(sorted(rows * columns for rows, columns in self.grids))

    def grid_for(self, rows: int) -> tuple[int, int]:
        """The smallest grid that holds *rows*, else the largest there is."""
        ordered = sorted(self.grids, key=lambda g: g[0] * g[1])
        return next((g for g in ordered if g[0] * g[1] >= rows), ordered[-1])

    def dump(self) -> str:
        """JSON, one line, for the part's options."""
        data = {
            "inputs": {n: _list(s) for n, s in self.inputs.items()},
            "outputs": {n: _list(s) for n, s in self.outputs.items()},
            "grids": [list(g) for g in self.grids],
        }
        return json.dumps(data, sort_keys=True, separators=(",", ":"))


def _list(spec: TileSpec) -> list[int]:
    return [spec.height, spec.width, spec.pitch_y, spec.pitch_x, int(spec.flat)]


def parse_mosaic(text: str) -> Mosaic:
    """Read :meth:`Mosaic.dump`. Raises FormatError."""
    try:
        data = json.loads(text)
        inputs = {str(n): _spec(v) for n, v in data["inputs"].items()}
        outputs = {str(n): _spec(v) for n, v in data["outputs"].items()}
        grids = tuple((int(r), int(c)) for r, c in data["grids"])
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise FormatError("mosaic layout is damaged", where=text[:80]) from error
    if not grids or not inputs or any(r < 1 or c < 1 or r * c > MAX_TILES for r, c in grids):
        raise FormatError("mosaic layout has no usable grid", where=text[:80])
    return Mosaic(inputs, outputs, grids)


def _spec(values: Sequence[int]) -> TileSpec:
    height, width, pitch_y, pitch_x, flat = (int(x) for x in values)
    if not (1 <= height <= pitch_y <= 1 << 16 and 1 <= width <= pitch_x <= 1 << 16):
        raise ValueError("tile does not fit its pitch")
    return TileSpec(height, width, pitch_y, pitch_x, bool(flat))


def pack(rows: Array, spec: TileSpec, grid: tuple[int, int]) -> Array:
    """Rows (N × C × height × width, or N × C when ``flat``) to one image; tiles without a row, and
    gutters, are zero."""
    count, channels = rows.shape[:2]
    if spec.flat:
        rows = rows.reshape(count, channels, 1, 1)
    if rows.shape[2:] != (spec.height, spec.width) or count > grid[0] * grid[1]:
        raise InputError(
            "rows do not fit the mosaic", why=f"{rows.shape} into {grid} tiles of {spec}"
        )
    full = np.zeros((grid[0] * grid[1], channels, spec.pitch_y, spec.pitch_x), rows.dtype)
    full[:count, :, : spec.height, : spec.width] = rows
    table = full.reshape(grid[0], grid[1], channels, spec.pitch_y, spec.pitch_x)
    image = table.transpose(2, 0, 3, 1, 4)
    return np.ascontiguousarray(image).reshape(1, channels, *spec.image(grid))


def unpack(image: Array, spec: TileSpec, grid: tuple[int, int], count: int) -> Array:
    """The first *count* tiles of *image* as rows; without spatial dimensions when ``flat``."""
    channels = image.shape[1]
    high, wide = spec.image(grid)
    if image.shape[0] != 1 or image.shape[2] < high or image.shape[3] < wide:
        raise InputError(
            "mosaic result has the wrong size", why=f"{image.shape}, wanted {high}×{wide}"
        )
    table = image[0, :, :high, :wide].reshape(
        channels, grid[0], spec.pitch_y, grid[1], spec.pitch_x
    )
    cut = table[:, :, : spec.height, :, : spec.width].transpose(1, 3, 0, 2, 4)
    rows = cut.reshape(grid[0] * grid[1], channels, spec.height, spec.width)[:count]
    return np.ascontiguousarray(rows.reshape(count, channels) if spec.flat else rows)
