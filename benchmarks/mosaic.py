"""Region heads as mosaics against row-by-row execution: largest difference, calls, time.

    python benchmarks/mosaic.py maskrcnn.onnx [--counts 0,1,7,100,1000] [--capacity 100]

The model is split for the NPU; every part that runs per region is made a mosaic (float), and both forms
run on the same random regions. More regions than the capacity take several calls. The last columns are
the best time of five to pack all inputs and to cut all outputs, by Python and by the kernels of the
generated C++ on one thread, which must agree bit for bit.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from tile_library import TileLibrary, image_for

from adcompile.cli.record import plan_parts
from adcompile.errors import Unsupported
from adcompile.interfaces import Array, Part
from adcompile.ir.evaluate import open_model
from adcompile.job import BuildOptions
from adcompile.lower.mosaic import mosaic, square_grid
from adcompile.runtime.roi import empty
from adcompile.runtime.tiles import Mosaic, pack, unpack


def rows_of(part: Part, count: int) -> dict[str, Array]:
    """Random regions: non-negative like features behind a ReLU, seeded by their number."""
    rng = np.random.default_rng(count)
    shapes = {
        s.name: [count, *(d for d in s.shape[1:] if isinstance(d, int))] for s in part.inputs
    }
    return {n: np.abs(rng.standard_normal(s)).astype(np.float32) for n, s in shapes.items()}


def packed(session: object, layout: Mosaic, feeds: dict[str, Array], count: int) -> list[Array]:
    """All rows through the mosaic, as many as fit per call."""
    grid = layout.grids[0]
    capacity = grid[0] * grid[1]
    names = list(layout.outputs)
    pieces: list[list[Array]] = [[] for _ in names]
    for start in range(0, count, capacity):
        some = min(capacity, count - start)
        images = {
            n: pack(feeds[n][start : start + some], spec, grid)
            for n, spec in layout.inputs.items()
        }
        made = session.run(names, images)  # type: ignore[attr-defined]
        for kept, name, image in zip(pieces, names, made, strict=True):
            kept.append(unpack(image, layout.outputs[name], grid, some))
    return [np.concatenate(kept) for kept in pieces]


@dataclass(frozen=True)
class Packing:
    """Milliseconds to move all regions in and out of images; ``equal``: both did the same."""

    python: float
    native: float
    equal: bool


def best_of(work: Callable[[], object], times: int = 5) -> float:
    """The shortest time in milliseconds."""
    found = np.inf
    for _ in range(times):
        start = time.perf_counter()
        work()
        found = min(found, 1e3 * (time.perf_counter() - start))
    return float(found)


def packing(
    library: TileLibrary, layout: Mosaic, tensors: dict[str, Array], count: int
) -> Packing:
    """Pack the inputs and cut the outputs (*tensors*: rows of each) as often as *count* needs."""
    grid = layout.grids[0]
    capacity = grid[0] * grid[1]
    python = native = 0.0
    equal = True
    for start in range(0, count, capacity):
        some = min(capacity, count - start)
        for name, spec in {**layout.inputs, **layout.outputs}.items():
            rows = np.ascontiguousarray(tensors[name][start : start + some])
            image, again = pack(rows, spec, grid), np.empty_like(rows)
            made = image_for(rows, spec, grid)
            if name in layout.inputs:
                python += best_of(partial(pack, rows, spec, grid))
                native += best_of(partial(library.pack, rows, spec, grid, made))
                equal &= bool(made.tobytes() == image.tobytes())
            else:
                python += best_of(partial(unpack, image, spec, grid, some))
                native += best_of(partial(library.unpack, image, spec, grid, again))
                equal &= bool(again.tobytes() == rows.tobytes())
    return Packing(python, native, equal)


def compare(part: Part, counts: list[int], most: int, library: TileLibrary) -> bool:
    """Print one line per count; True when all are within 1e-5 and both ways to pack agree."""
    good = True
    plain = open_model(part.model, optimize=True)
    for count in counts:
        grid = square_grid(min(max(count, 1), most))
        model, layout = mosaic(part.model, grid)
        session = open_model(model, optimize=True)
        feeds = rows_of(part, count)
        start = time.perf_counter()
        if count:
            found = packed(session, layout, feeds, count)
        else:
            found = [empty(next(s for s in part.outputs if s.name == n)) for n in layout.outputs]
        middle = time.perf_counter()
        wanted = [
            np.concatenate(each)
            for each in zip(
                *(
                    plain.run(list(layout.outputs), {n: a[i : i + 1] for n, a in feeds.items()})
                    for i in range(count)
                ),
                strict=True,
            )
        ] or found
        end = time.perf_counter()
        worst = max(
            (float(np.abs(a - b).max(initial=0.0)) for a, b in zip(found, wanted, strict=True))
        )
        moved = packing(
            library, layout, {**feeds, **dict(zip(layout.outputs, found, strict=True))}, count
        )
        good &= worst <= 1e-5 and moved.equal
        calls = -(-count // (grid[0] * grid[1]))
        print(
            f"{part.name:12} {count:6} {worst:12.2e} {calls:6} {1e3 * (middle - start):10.1f} "
            f"{1e3 * (end - middle):12.1f} {moved.python:12.2f} {moved.native:9.2f}",
            flush=True,
        )
    return good


def main() -> int:
    """Command line of the module's docstring; exit code 1 when a difference is above 1e-5."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--counts", default="0,1,7,100,1000")
    parser.add_argument("--capacity", type=int, default=100)
    args = parser.parse_args()
    counts = [int(x) for x in args.counts.split(",")]
    good = True
    with tempfile.TemporaryDirectory() as work:
        job = plan_parts(args.model, "npu", BuildOptions(precision="a8w8"), Path(work))
    heads = ("rows", "max |diff|", "calls", "mosaic ms", "row by row", "pack: Python", "C++")
    widths = (6, 12, 6, 10, 12, 12, 9)
    print(f"{'part':12}", *(f"{h:>{w}}" for h, w in zip(heads, widths, strict=True)))
    with tempfile.TemporaryDirectory() as work:
        library = TileLibrary(Path(work))
    for part in job.parts:
        if part.rows:
            try:
                good &= compare(part, counts, args.capacity, library)
            except Unsupported as error:
                print(f"{part.name:12} has no mosaic form: {' '.join(str(error).split())}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
