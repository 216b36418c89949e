"""The image score and the patch map behind a nearest-neighbour search.

Exporters write the weighting of PatchCore in many ways (index arithmetic, GatherND, softmax,
slices). What stays is what goes in (distances, positions, rows, bank) and what comes out (one
number per image), so a candidate is cut out and *run*, and it is a known score when it gives the
same numbers on random data, twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from adcompile.anomaly import ops
from adcompile.anomaly.recognise.algebra import made_by
from adcompile.anomaly.recognise.slices import Slice, between, downstream
from adcompile.errors import ModelError
from adcompile.interfaces import Array, Report
from adcompile.ir.attributes import int_of
from adcompile.ir.constants import add_constant, const
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import DOMAIN, constant, set_provenance, static_shape
from adcompile.rewrite.surgery import Names, inherit, take_over

TOLERANCE = 1e-3  # of the score: other formulas differ by far more
LAYOUT = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Flatten")


@dataclass(frozen=True, eq=False)
class Search:
    """A search over all patches: its node, rows [Q, C], bank [M, C], and the distances scored."""

    node: ir.Node
    rows: ir.Value
    bank: ir.Value
    distances: ir.Value  # rooted when the graph takes the root

    @property
    def k(self) -> int:
        """Neighbours per row."""
        return int_of(self.node, "k", 9)


@dataclass(frozen=True, slots=True)
class Formula:
    """One way to score: op and its attribute k."""

    op_type: str
    k: int = 0


def raise_scores(model: ir.Model, report: Report) -> bool:
    """Replace the score behind every search over patches by a score op; True when one was found."""
    changed = False
    for search in list(_searches(model.graph)):
        grid = _grid(search)
        found = None if grid is None else _match(model, search, *grid[:2])
        if grid is None or found is None:
            continue
        score, formula = found
        _replace(model, search, grid, score, formula)
        report.applied(f"score-{formula.op_type}", score.name or "", detail=f"k {formula.k}")
        changed = True
    return changed


def _searches(graph: ir.Graph) -> Iterator[Search]:
    """Searches that do not depend on another one and are not scored yet."""
    nodes = [n for n in graph if n.domain == DOMAIN and n.op_type == "KnnSearch"]
    dependent = {n for each in nodes for n in downstream(each.outputs)}
    for node in nodes:
        rows, bank = node.inputs[:2]
        if node in dependent or rows is None or bank is None or constant(bank) is None:
            continue
        distances = node.outputs[0]
        roots = [made_by(n.outputs[0], "Sqrt") for n in distances.consumers()]
        if len(roots) == 1 and roots[0] is not None:
            distances = roots[0].outputs[0]
        if not any(n.domain == DOMAIN for n in distances.consumers()):
            yield Search(node, rows, bank, distances)


_Grid = tuple[int, tuple[int, int], ir.Value | None]


def _grid(search: Search) -> _Grid | None:
    """Images, map size, and the value [N, 1, h, w] that holds the map (None without one)."""
    queries = static_shape(search.rows)
    if queries is None:
        return None
    pending = [search.distances]
    while pending:
        value = pending.pop(0)
        shape = static_shape(value)
        if (
            shape is not None
            and len(shape) == 4
            and shape[1] == 1
            and math.prod(shape) == queries[0]
        ):
            return shape[0], (shape[2], shape[3]), value
        pending += [
            n.outputs[0]
            for n in value.consumers()
            if n.domain == "" and (n.op_type in LAYOUT or _takes_first(n, search.k))
        ]
    batch = _batch(search.rows)
    return None if not batch or queries[0] % batch else (batch, (queries[0] // batch, 1), None)


def _takes_first(node: ir.Node, k: int) -> bool:
    """A Slice or Gather that keeps the first of *k* neighbours."""
    if k == 1 or node.op_type not in {"Slice", "Gather"}:
        return False
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None or math.prod(after) * k != math.prod(before):
        return False
    start = constant(node.inputs[1])
    return start is not None and not np.any(start) and before[-1] == k


def _batch(value: ir.Value) -> int:
    """The leading dimension of the image input behind *value*, 0 when unknown."""
    seen = {value}
    pending = [value]
    while pending:
        each = pending.pop()
        node = each.producer()
        if node is None and each.is_graph_input():
            shape = static_shape(each)
            return shape[0] if shape is not None and len(shape) == 4 else 0
        new = [v for v in (() if node is None else node.inputs) if v is not None and v not in seen]
        seen.update(new)
        pending += new
    return 0


def _match(
    model: ir.Model, search: Search, images: int, grid: tuple[int, int]
) -> tuple[ir.Value, Formula] | None:
    """The value furthest down that is a known score of the search, and its formula."""
    leaves = {*search.node.outputs, search.distances, search.rows}
    candidates: list[ir.Value] = []
    inner = 0
    for node in downstream([search.distances, *search.node.outputs]):
        if node.domain == DOMAIN and node.op_type == "KnnSearch":
            inner = int_of(node, "k", 9)
        for value in node.outputs:
            shape = static_shape(value)
            if value.dtype != ir.DataType.FLOAT or shape is None or math.prod(shape) != images:
                continue
            if between([value], leaves) is not None:
                candidates.append(value)
    if not candidates:
        return None
    formulas = [Formula("PatchScore")]
    if search.k > 1:
        formulas.append(Formula("PatchScoreOwn", search.k))
    if inner > 1:
        formulas.append(Formula("PatchScorePaper", inner))
    return _agreeing(model, search, grid, candidates, formulas)


def _agreeing(
    model: ir.Model,
    search: Search,
    grid: tuple[int, int],
    candidates: list[ir.Value],
    formulas: list[Formula],
) -> tuple[ir.Value, Formula] | None:
    leaves = {*search.node.outputs, search.distances, search.rows}
    nodes = between(candidates, leaves)
    assert nodes is not None
    left = {(value, formula) for value in candidates for formula in formulas}
    for seed in (0, 1):
        data = _data(search, seed)
        try:
            results = Slice(model, nodes, list(data), candidates).run(data)
        except ModelError:
            return None
        wanted = {f: _expected(model, search, grid, data, f) for f in formulas}
        got = dict(zip(candidates, results, strict=True))
        left = {
            (value, formula)
            for value, formula in left
            if np.allclose(got[value].reshape(-1), wanted[formula], rtol=TOLERANCE, atol=0.0)
        }
    ranked = [(v, f) for v in reversed(candidates) for f in formulas if (v, f) in left]
    return ranked[0] if ranked else None


def _data(search: Search, seed: int) -> dict[ir.Value, Array]:
    """Random rows near the bank, ascending distances and positions for the search's values."""
    rng = np.random.default_rng(seed)
    bank = constant(search.bank)
    shape = static_shape(search.rows)
    assert bank is not None
    assert shape is not None
    wide = np.asarray(bank, dtype=np.float32)
    spread = float(wide.std()) or 1.0
    rows = wide[rng.integers(0, len(wide), shape[0])]
    rows = rows + rng.standard_normal(rows.shape, dtype=np.float32) * np.float32(spread)
    scale = spread * math.sqrt(wide.shape[1])
    gaps = np.sort(rng.uniform(0.2, 1.0, (shape[0], search.k)) * min(scale, 8.0), axis=1)
    places = rng.integers(0, len(wide), (shape[0], search.k))
    squared, positions = search.node.outputs
    data: dict[ir.Value, Array] = {search.rows: rows, positions: places.astype(np.int64)}
    data[search.distances] = gaps.astype(np.float32)
    if search.distances is not squared:
        data[squared] = (gaps**2).astype(np.float32)
    return data


def _expected(
    model: ir.Model,
    search: Search,
    grid: tuple[int, int],
    data: dict[ir.Value, Array],
    formula: Formula,
) -> Array:
    """The scores [N] that a formula gives on *data*."""
    given = [search.distances, search.node.outputs[1], search.rows]
    inputs = [ir.Value(name=n, type=v.type) for n, v in zip("dif", given, strict=True)]
    for value, source in zip(inputs, given, strict=True):
        value.shape = ir.Shape(list(data[source].shape))
        value.dtype = ir.DataType(source.dtype or ir.DataType.FLOAT)
    bank = constant(search.bank)
    assert bank is not None
    rows = const(np.asarray(bank, dtype=np.float32), "bank")
    node = _score_node(formula, grid, inputs[0], inputs[1], inputs[2], rows)
    node.outputs[0].name, node.outputs[1].name = "score", "map"
    node.outputs[0].dtype = ir.DataType.FLOAT
    graph = ir.Graph(
        inputs, node.outputs[:1], nodes=[node], initializers=[rows], name="score",
        opset_imports={"": model.opset_imports.get("", 17), DOMAIN: ops.VERSION},
    )  # fmt: skip
    whole = ir.Model(graph, ir_version=8)
    ops.add_functions(whole)
    feeds = {n: data[v] for n, v in zip("dif", given, strict=True)}
    return evaluate(whole, feeds)["score"].reshape(-1)


def _score_node(
    formula: Formula,
    grid: tuple[int, int],
    distances: ir.Value,
    positions: ir.Value,
    rows: ir.Value,
    bank: ir.Value,
) -> ir.Node:
    inputs, attributes = [distances], {"grid": list(grid)}
    if formula.op_type == "PatchScorePaper":
        inputs += [positions, rows, bank]
        return ir.node(
            formula.op_type, inputs, attributes | {"k": formula.k}, domain=DOMAIN, num_outputs=2
        )
    return ir.node(formula.op_type, inputs, attributes, domain=DOMAIN, num_outputs=2)


def _replace(
    model: ir.Model, search: Search, grid: _Grid, score: ir.Value, formula: Formula
) -> None:
    """Put the score op behind the search; the old nodes are left without readers."""
    images, size, patch_map = grid
    names = Names(model)
    node = _score_node(
        formula, size, search.distances, search.node.outputs[1], search.rows, search.bank
    )
    sources = between([score], {*search.node.outputs, search.distances, search.rows}) or []
    last = search.distances.producer()
    assert last is not None
    made = [node]
    value = node.outputs[0]
    value.shape, value.dtype = ir.Shape([images]), ir.DataType.FLOAT
    wanted = static_shape(score)
    if wanted != (images,):
        name = names.fresh("score_shape")
        shape = add_constant(model.graph, name, np.array(wanted, np.int64))
        made.append(ir.node("Reshape", [value, shape]))
        value = made[-1].outputs[0]
    elif score.is_graph_output():
        made.append(ir.node("Identity", [value]))
        value = made[-1].outputs[0]
    for each in made:
        each.name = names.fresh(f"{search.node.name}/{each.op_type}")
        for output in each.outputs:
            output.name = names.fresh(f"{each.name}_out")
        set_provenance(each, sources, f"score-{formula.op_type}")
    model.graph.insert_after(last, made)
    inherit(value, score)
    take_over(score, value, names)
    if patch_map is not None:
        inherit(node.outputs[1], patch_map)
        take_over(patch_map, node.outputs[1], names)
