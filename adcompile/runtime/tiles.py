"""Rows as tiles of one image: the runtime side of a mosaic part.

A device that takes batch 1 runs many regions in one call when they lie side by side in one image, kept
apart by gutters. This file packs rows into the image and cuts results out of it; the graph that works
on such images is made at build time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

import numpy as np

from adcompile.errors import FormatError, InputError
from adcompile.runtime.executor import Array

MAX_TILES = 1 << 16
MAX_PITCH = 1 << 16
MAX_PIXELS = 1 << 26  # of one channel of an image
_FIELDS = ("inputs", "outputs", "grids")
_TILE_FIELDS = ("height", "width", "pitch_y", "pitch_x", "flat")


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
    """Read :meth:`Mosaic.dump`. Raises FormatError, naming the field that is unknown, missing, no
    whole number or out of range (``native/mosaic_layout.cpp`` refuses the same)."""
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError("mosaic layout is no JSON", where=text[:80]) from error
    fields = _object(data, "layout")
    for name in fields:
        if name not in _FIELDS:
            _refuse(name, "unknown field")
    for name in _FIELDS:
        if name not in fields:
            _refuse(name, "missing")
    inputs, outputs = (_tiles(fields[side], side) for side in _FIELDS[:2])
    grids = _grids(fields["grids"])
    for side, tiles in (("inputs", inputs), ("outputs", outputs)):
        for name, spec in tiles.items():
            if any(math.prod(spec.image(grid)) > MAX_PIXELS for grid in grids):
                _refuse(f"{side}.{name}", "its image would be too large")
    return Mosaic(inputs, outputs, grids)


def _refuse(field: str, why: str) -> NoReturn:
    raise FormatError("mosaic layout is damaged", where=field, why=why)


def _object(data: object, field: str) -> Mapping[str, object]:
    if not isinstance(data, dict):
        _refuse(field, "not an object")
    return cast(Mapping[str, object], data)


def _whole_numbers(
    data: object, field: str, names: Sequence[str], least: int, most: int
) -> list[int]:
    values = cast("list[object]", data) if isinstance(data, list) else []
    if len(values) != len(names):
        _refuse(field, f"not a list of {len(names)} numbers")
    found: list[int] = []
    for name, value in zip(names, values, strict=True):
        if type(value) is not int or not least <= value <= most:
            _refuse(f"{field}.{name}", f"not a whole number from {least} to {most}")
        found.append(value)
    return found


def _tiles(data: object, side: str) -> dict[str, TileSpec]:
    found: dict[str, TileSpec] = {}
    for name, values in _object(data, side).items():
        field = f"{side}.{name}"
        height, width, pitch_y, pitch_x, flat = _whole_numbers(
            values, field, _TILE_FIELDS, 0, MAX_PITCH
        )
        if not 1 <= height <= pitch_y:
            _refuse(f"{field}.height", "does not fit its pitch")
        if not 1 <= width <= pitch_x:
            _refuse(f"{field}.width", "does not fit its pitch")
        if flat > 1 or (flat and (height, width) != (1, 1)):
            _refuse(f"{field}.flat", "neither 0, nor 1 with one pixel per tile")
        found[name] = TileSpec(height, width, pitch_y, pitch_x, bool(flat))
    if not found:
        _refuse(side, "names no tensor")
    return found


def _grids(data: object) -> tuple[tuple[int, int], ...]:
    if not isinstance(data, list) or not data:
        _refuse("grids", "names no grid")
    grids: list[tuple[int, int]] = []
    for number, values in enumerate(cast("list[object]", data)):
        field = f"grids[{number}]"
        rows, columns = _whole_numbers(values, field, ("rows", "columns"), 1, MAX_TILES)
        if rows * columns > MAX_TILES:
            _refuse(field, "too many tiles")
        grids.append((rows, columns))
    if len({rows * columns for rows, columns in grids}) < len(grids):
        _refuse("grids", "two of them hold as many tiles")
    return tuple(grids)


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
