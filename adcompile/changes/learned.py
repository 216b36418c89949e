"""What was learned from data: quantization parameters, banks, thresholds, categories."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from adcompile.anomaly.sections import read_container
from adcompile.changes.declared import LEARNED, SHORT, pairs
from adcompile.changes.read import Grid, Side
from adcompile.changes.record import Change, Section
from adcompile.interfaces import Array
from adcompile.runtime.categories import category_names, read_category

WIDE = "int32"
EQUAL = 1e-6  # relative: scales that differ by less are the same


def quantization(old: Side, new: Side) -> Section:
    """Per tensor: scale, zero point, integer type, and the stored integers of weights. The tensors
    whose range changed most come first."""
    one, two = old.grids, new.grids
    found = compare_grids(one, two)
    common = len(one.keys() & two.keys())
    notes = [
        f"{len(alone)} tensors are quantized only in {word}: {', '.join(sorted(alone)[:4])}"
        + (" …" if len(alone) > 4 else "")
        for alone, word in ((one.keys() - two.keys(), "OLD"), (two.keys() - one.keys(), "NEW"))
        if alone and one and two
    ]
    count = f"{len(found)} of {common} tensors" if found else ""
    return Section("quantization", tuple(found), count, tuple(notes))


def compare_grids(old: Mapping[str, Grid], new: Mapping[str, Grid]) -> list[Change]:
    """One change for every tensor of both whose grid differs, the largest change of range first."""
    rows = [_grid(name, old[name], new[name]) for name in old if name in new]
    return [row for row, _ in sorted((row for row in rows if row is not None), key=_by_range)]


def _by_range(item: tuple[Change, float]) -> float:
    return -abs(math.log(item[1])) if item[1] > 0 else -math.inf


def _spans(old: Grid, new: Grid) -> float:
    """Ratio of the ranges; 1 for biases, whose 32 bits hold anything."""
    if WIDE in (old.dtype, new.dtype) or old.span <= 0.0:
        return 1.0
    return new.span / old.span


def _grid(name: str, old: Grid, new: Grid) -> tuple[Change, float] | None:
    """The change of one tensor and the ratio of its ranges; None when it is the same."""
    ratio = 1.0
    words: list[str] = []
    if old.scale.shape == new.scale.shape:
        each = np.divide(new.scale, old.scale, out=np.ones_like(new.scale), where=old.scale > 0)
        off = np.abs(each - 1.0)
        ratio = float(each[off.argmax()])
        moved = int((off > EQUAL).sum())
        if moved and len(each) > 1:
            words.append(f"{moved} of {len(each)} channels; the largest")
    else:
        words.append(f"{len(old.scale)} scales -> {len(new.scale)}")
        ratio = float(new.scale.max() / old.scale.max())
    if old.dtype != new.dtype:
        words.append(f"{old.dtype} -> {new.dtype}")
    if not np.array_equal(old.zero_point, new.zero_point):
        words.append(f"zero point {_first(old)} -> {_first(new)}")
    if (share := _integers(old.stored, new.stored)) > 0.0:
        words.append(f"{share:.1%} of the integers")
    if not words and abs(ratio - 1.0) <= EQUAL:
        return None
    scales = float(old.scale.max()), float(new.scale.max())
    spans = _spans(old, new)
    if old.dtype != new.dtype and spans != 1.0:
        words.append(f"range x {spans:.4g}")
    return Change(name, *scales, ", ".join(words), ratio), spans


def _first(grid: Grid) -> str:
    return f"{grid.zero_point[0]}" + (" …" if len(grid.zero_point) > 1 else "")


def _integers(old: Array | None, new: Array | None) -> float:
    """Share of the stored integers that differ; 0 where they cannot be compared."""
    if old is None or new is None or old.shape != new.shape or old.dtype != new.dtype:
        return 0.0
    return float(np.count_nonzero(old != new)) / max(old.size, 1)


def bank(old: Side, new: Side) -> Section:
    """Banks and statistics (shape, content), threshold and range of the score, categories."""
    rows = pairs(_numbers(old), _numbers(new))
    rows += pairs(_banks(old), _banks(new))
    rows += pairs(_categories(old), _categories(new))
    return Section("bank", tuple(rows), ", ".join(dict.fromkeys(map(_kind, rows))))


def _kind(row: Change) -> str:
    word = row.subject.partition(" ")[0]
    return word if word in {"bank", "category"} or "threshold" in word else "range"


def _numbers(side: Side) -> dict[str, float]:
    score = side.manifest.contract.score
    values: Mapping[str, object] = {} if score is None else score.model_dump()
    found = {name: value for name, value in values.items() if name in LEARNED}
    return {name: value for name, value in found.items() if isinstance(value, float)}


def _banks(side: Side) -> dict[str, str]:
    files = side.manifest.files
    found: dict[str, str] = {}
    for name in files:
        if name.startswith("bank/") and name.endswith(".adbank"):
            shapes = _shape(side, name)
            found[f"bank {name.removeprefix('bank/')}"] = f"{shapes}, {files[name].sha256[:SHORT]}"
    return found


def _shape(side: Side, name: str) -> str:
    container = read_container(side.path / name)
    sections = container.sections
    if "order" in sections and "columns" in sections:
        return f"{len(sections['order']):,} rows x {sections['columns'].tolist()[0]:,} columns"
    return ", ".join(f"{key} {list(array.shape)}" for key, array in sorted(sections.items()))


def _categories(side: Side) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in category_names(side.path):
        each = read_category(side.path, side.manifest, name)
        limit = "-" if each.score.threshold is None else f"{each.score.threshold:.6g}"
        size = f"{each.rows:,} rows x {each.columns:,} columns, " if each.rows else ""
        found[f"category {name}"] = f"{size}threshold {limit}, {each.made_from}"
    return found
