"""Chains that enlarge, pad and blur a single-channel map: one MapUpsampleBlur.

Padding, nearest and bilinear enlargement and Gaussian blur are linear and separable, so a chain of
them is ``rows · map · columns`` (plus an offset that other passes may have folded in). The two
matrices are read off by running the chain on unit maps, and the result is checked on a random map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.anomaly.recognise.slices import Slice, downstream
from adcompile.errors import ModelError
from adcompile.interfaces import Report
from adcompile.ir.constants import add_constant
from adcompile.ir.graph import DOMAIN, is_constant, set_provenance, static_shape
from adcompile.rewrite.surgery import Names, inherit, take_over

LINEAR = frozenset({"Pad", "Resize", "Conv", "AveragePool", "Upsample"})
TOLERANCE = 1e-5  # of the largest value on a random map
MAX_SIDE = 4096

Array = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Separable:
    """``gain · (rows · x · columns) + offset``; rows [H, h], columns [w, W] keep a constant map."""

    rows: Array
    columns: Array
    gain: float
    offset: float


def raise_maps(model: ir.Model, report: Report) -> bool:
    """Replace every chain behind a head by one op; True when one was found."""
    heads = [v for n in model.graph if n.domain == DOMAIN for v in n.outputs]
    starts = dict.fromkeys([*heads, *(v for n in downstream(heads) for v in n.outputs)])
    changed = False
    for value in starts:
        chain = _chain(value)
        if not chain or any(node.graph is None for node in chain):
            continue
        found = _probe(model, value, chain)
        if found is None:
            continue
        _replace(model, value, chain, found)
        report.applied("map-upsample-blur", chain[-1].name or "")
        changed = True
    return changed


def _chain(value: ir.Value) -> list[ir.Node]:
    """Linear nodes in a row from *value* on; empty unless they start and enlarge or blur there."""
    if _is_link(value.producer()) and len(value.uses()) == 1:
        return []  # in the middle of a longer chain
    chain: list[ir.Node] = []
    current = value
    while (node := _next(current)) is not None:
        chain.append(node)
        current = node.outputs[0]
        if current.is_graph_output():
            break
    while chain and chain[-1].op_type == "Pad":
        chain.pop()
    return chain if any(n.op_type in {"Resize", "Conv", "Upsample"} for n in chain) else []


def _next(value: ir.Value) -> ir.Node | None:
    nodes = value.consumers()
    if len(nodes) != 1 or not _is_link(nodes[0]) or nodes[0].inputs[0] is not value:
        return None
    return nodes[0]


def _is_link(node: ir.Node | None) -> bool:
    """A linear node on a map of one channel, with constant other inputs."""
    if node is None or node.domain != "" or node.op_type not in LINEAR:
        return False
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    if before is None or after is None or len(before) != 4 or before[:2] != after[:2]:
        return False
    if before[1] != 1 or max(*before, *after) > MAX_SIDE:
        return False
    return all(v is None or is_constant(v) for v in node.inputs[1:])


def _probe(model: ir.Model, value: ir.Value, chain: list[ir.Node]) -> Separable | None:
    """The chain as two matrices; None when it is not separable, or not linear."""
    shape = static_shape(value)
    assert shape is not None
    height, width = shape[2:]
    last = chain[-1].outputs[0]
    try:
        piece = Slice(model, chain, [value], [last])

        def run(image: Array) -> Wide:
            feed = np.broadcast_to(image, shape).astype(np.float32)
            return np.asarray(piece.run({value: feed})[0][0, 0], dtype=np.float64)

        found = _matrices(run, height, width)
        random = np.random.default_rng(0).random((height, width), dtype=np.float32)
        wanted = run(random)
    except ModelError:
        return None
    if found is None:
        return None
    got = found.gain * (found.rows.astype(np.float64) @ random @ found.columns) + found.offset
    limit = TOLERANCE * max(float(np.abs(wanted).max()), 1e-30)
    return found if float(np.abs(got - wanted).max()) <= limit else None


def _matrices(run: Callable[[Array], Wide], height: int, width: int) -> Separable | None:
    """Rows and columns of a separable function, from its answers to unit maps."""
    constant = run(np.zeros((height, width), np.float32))
    offset = float(constant[0, 0])
    if not np.allclose(constant, offset, rtol=0, atol=1e-6):
        return None
    whole = run(np.ones((height, width), np.float32)) - offset
    gain = float(whole[whole.shape[0] // 2, whole.shape[1] // 2])
    if not np.isfinite(gain) or gain <= 0:
        return None
    down = np.eye(height, dtype=np.float32)[:, :, None]
    across = np.eye(width, dtype=np.float32)
    along = [run(down[height // 2] * each) - offset for each in across]
    y, x = np.unravel_index(np.argmax(along[width // 2]), along[0].shape)
    peak = float(along[width // 2][y, x])
    if not peak > 0:
        return None
    rows = np.stack([(run(each * across[width // 2]) - offset)[:, x] for each in down], axis=1)
    columns = np.stack([each[y] for each in along])
    rows = rows / rows[rows.shape[0] // 2].sum()
    columns = columns / columns[:, columns.shape[1] // 2].sum()
    return Separable(rows.astype(np.float32), columns.astype(np.float32), gain, offset)


def _replace(model: ir.Model, value: ir.Value, chain: list[ir.Node], found: Separable) -> None:
    names = Names(model)
    old = chain[-1].outputs[0]
    made: list[ir.Node] = []

    def add(
        op_type: str, current: ir.Value, *arrays: tuple[str, Array], domain: str = ""
    ) -> ir.Value:
        constants = [
            add_constant(model.graph, names.fresh(label), array) for label, array in arrays
        ]
        node = ir.node(op_type, [current, *constants], domain=domain)
        node.name = names.fresh(f"{chain[-1].name}/{op_type}")
        node.outputs[0].name = names.fresh(f"{node.name}_out")
        inherit(node.outputs[0], old)
        set_provenance(node, chain, "map-upsample-blur")
        made.append(node)
        return node.outputs[0]

    matrices = (("map_rows", found.rows), ("map_columns", found.columns))
    new = add("MapUpsampleBlur", value, *matrices, domain=DOMAIN)
    if abs(found.gain - 1.0) > 1e-6:
        new = add("Mul", new, ("map_gain", np.array(found.gain, np.float32)))
    if abs(found.offset) > 1e-12:
        new = add("Add", new, ("map_offset", np.array(found.offset, np.float32)))
    model.graph.insert_before(chain[-1], made)
    take_over(old, new, names)
