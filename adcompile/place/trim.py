"""Nodes that a device could run and should not: loose ends of a device piece, and small pieces.

*Tail*: what stands between a piece's last layer and the host (reshapes, box arithmetic, selection)
gains nothing on the device, and loses precision there. *Head*: arithmetic before the first layer
(normalisation of the image), where the device quantizes everything it runs. *Small*: a piece whose
saving does not pay for its boundary.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.interfaces import Verdict
from adcompile.place.cost import boundary_us, host_us, nbytes, work
from adcompile.place.partition import HOST, Flow, is_roi
from adcompile.place.support import words

_MOVES = words(
    """Cast Concat Expand Flatten Gather GatherElements GatherND Identity Pad Reshape
    ScatterElements ScatterND Slice Split Squeeze Tile Transpose Unsqueeze"""
)
_ARITHMETIC = words(
    """Abs Add And ArgMax ArgMin Ceil CumSum Div Equal Exp Floor Greater GreaterOrEqual Less
    LessOrEqual Log Max Min Mod Mul Neg Not Or Pow Reciprocal ReduceL1 ReduceL2 ReduceMax
    ReduceMean ReduceMin ReduceProd ReduceSum Round Sign Sqrt Sub Sum TopK Where Xor"""
)
# activations: part of the layer that they follow directly, loose anywhere else
ACTIVATIONS = frozenset(words("Clip HardSigmoid LogSoftmax Sigmoid Softmax Tanh"))
SQUASH = ACTIVATIONS - {"Clip"}
TAIL = frozenset((*_MOVES, *_ARITHMETIC)) | ACTIVATIONS
HEAD = frozenset((*_MOVES, *words("Add Div Mul Resize Sub Upsample")))
# these make a tail coordinate or selection work, which needs full precision
SELECTION = frozenset(
    words(
        """ArgMax ArgMin CumSum Equal Exp Gather GatherElements GatherND Greater GreaterOrEqual
        Less LessOrEqual ScatterElements ScatterND TopK Where"""
    )
)
LOOSE = TAIL | HEAD
LAYERS = frozenset(words("BatchNormalization InstanceNormalization GroupNormalization"))

TAIL_REASON = Verdict.no(
    "work after the last layer of a part stays on the host, in full precision",
    source="cost",
    about="after the last layer, in float",
)
HEAD_REASON = Verdict.no(
    "work before the first layer of a part stays on the host, in full precision",
    source="cost",
    about="before the first layer, in float",
)


@dataclass(frozen=True, slots=True)
class Trimming:
    """What the trimming depends on.

    ``float_inside``: the device can run part of a piece unquantized; ``calls`` of a ROI piece per
    image; ``min_layers``: fewer of them in a part and the vendor's runtime leaves it on its CPU;
    ``pinned`` positions are never moved.
    """

    float_inside: bool
    rows: int
    roi_calls: int
    min_macs: int
    keep_small: bool
    min_layers: int
    pinned: frozenset[int]


def loose_ends(
    flow: Flow, colours: Sequence[str], pieces: Sequence[int], how: Trimming
) -> dict[int, Verdict]:
    """Positions to give back to the host, with the reason. Pieces without any layer are left."""
    layers = {p for i, p in enumerate(pieces) if flow.nodes[i].op_type not in LOOSE}
    layers |= {p for i, p in enumerate(pieces) if work(flow.nodes[i], how.rows)}
    found = dict.fromkeys(_tails(flow, colours, pieces, how), TAIL_REASON)
    if not how.float_inside:
        found |= dict.fromkeys(_heads(flow, colours, pieces, how), HEAD_REASON)
    return {i: reason for i, reason in found.items() if pieces[i] in layers}


def _tails(flow: Flow, colours: Sequence[str], pieces: Sequence[int], how: Trimming) -> list[int]:
    loose: set[int] = set()
    for i in range(len(flow.nodes) - 1, -1, -1):
        node = flow.nodes[i]
        if colours[i] == HOST or i in how.pinned or node.op_type not in TAIL or node.domain:
            continue
        if any(v.is_graph_output() for v in node.outputs) or work(node, how.rows):
            continue
        if node.op_type in ACTIVATIONS and _belongs_to_a_layer(flow, i, how):
            continue
        if flow.after[i] and all(colours[j] == HOST or j in loose for j in flow.after[i]):
            loose.add(i)
    crossing = {v for i, c in enumerate(colours) if c == HOST for v in flow.reads[i]}
    crossing.update(v for node in flow.nodes for v in node.outputs if v.is_graph_output())
    kept: list[int] = []
    for group in _groups(flow, loose, pieces):
        if _worth_cutting_tail(flow, group, crossing, how.rows):
            kept += group
    return kept


def _belongs_to_a_layer(flow: Flow, i: int, how: Trimming) -> bool:
    """An activation right behind a layer is fused with it; not so a squashing one that would be
    quantized, which the host computes better."""
    if not how.float_inside and flow.nodes[i].op_type in SQUASH:
        return False
    producers = [flow.nodes[j] for j in flow.before[i]]
    return any(node.op_type in LAYERS or work(node, how.rows) for node in producers)


def _worth_cutting_tail(
    flow: Flow, group: list[int], free: AbstractSet[ir.Value], rows: int
) -> bool:
    """Box and selection arithmetic always; else when the boundary does not grow by a quarter.

    *free* values, which cross it anyway, cost nothing more.
    """
    if any(flow.nodes[i].op_type in SELECTION for i in group):
        return True
    members = set(group)
    before = _bytes(_crossing(flow, group, members), rows)
    cut = [v for v in _made_outside(flow, group, members) if v not in free]
    after = _bytes(cut, rows)
    return after <= before + (before >> 2)


def _heads(flow: Flow, colours: Sequence[str], pieces: Sequence[int], how: Trimming) -> list[int]:
    loose: set[int] = set()
    for i, node in enumerate(flow.nodes):
        if colours[i] == HOST or i in how.pinned or node.op_type not in HEAD or node.domain:
            continue
        if work(node, how.rows) or any(v.is_graph_output() for v in node.outputs):
            continue
        if all(colours[j] == HOST or j in loose for j in flow.before[i]) and flow.after[i]:
            loose.add(i)
    kept: list[int] = []
    for group in _groups(flow, loose, pieces):
        members = set(group)
        before = _bytes(_read_from_outside(flow, group, members), how.rows)
        after = _bytes(_crossing(flow, group, members), how.rows)
        if after <= before + (before >> 2):
            kept += group
    return kept


def _groups(flow: Flow, loose: AbstractSet[int], pieces: Sequence[int]) -> list[list[int]]:
    """Groups of loose positions inside one piece, each ascending.

    Positions belong together when one feeds the other or both read the same value.
    """
    root = {i: i for i in sorted(loose)}

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    reader: dict[tuple[ir.Value, int], int] = {}
    for i in root:
        for value in flow.reads[i]:
            if value.producer() is not None:
                root[find(i)] = find(reader.setdefault((value, pieces[i]), i))
        for j in flow.before[i]:
            if j in root and pieces[j] == pieces[i]:
                root[find(i)] = find(j)
    groups: dict[int, list[int]] = {}
    for i in root:
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def _crossing(flow: Flow, group: Sequence[int], inside: AbstractSet[int]) -> list[ir.Value]:
    """Values made in the group that somebody reads who is not *inside*."""
    made = {v for i in group for v in flow.nodes[i].outputs}
    readers = sorted({j for i in group for j in flow.after[i] if j not in inside})
    return list(dict.fromkeys(v for j in readers for v in flow.reads[j] if v in made))


def _made_outside(flow: Flow, group: Sequence[int], members: AbstractSet[int]) -> list[ir.Value]:
    """Values the group reads from nodes that are not in it."""
    made = {
        v for i in group for j in flow.before[i] if j not in members for v in flow.nodes[j].outputs
    }
    return list(dict.fromkeys(v for i in group for v in flow.reads[i] if v in made))


def _read_from_outside(
    flow: Flow, group: Sequence[int], members: AbstractSet[int]
) -> list[ir.Value]:
    """Like :func:`_made_outside`, with the graph's inputs."""
    inputs = [v for i in group for v in flow.reads[i] if v.is_graph_input()]
    return list(dict.fromkeys([*inputs, *_made_outside(flow, group, members)]))


def _bytes(values: Sequence[ir.Value], rows: int) -> int:
    return sum(nbytes(v, rows) for v in values)


@dataclass(frozen=True, slots=True)
class Worth:
    """What a device piece saves and costs per image, in estimated microseconds."""

    macs: int
    saved_us: float
    boundary_us: float
    calls: int
    crossing: int  # bytes between this piece and other pieces

    @property
    def pays(self) -> bool:
        """True when the saving exceeds the boundary, or when there is no boundary."""
        return self.crossing == 0 or self.saved_us > self.boundary_us


def worth(flow: Flow, colours: Sequence[str], members: Sequence[int], how: Trimming) -> Worth:
    """Weigh one piece. Inputs and outputs of the whole model are not part of its boundary."""
    nodes, own = [flow.nodes[i] for i in members], set(members)
    out = _crossing(flow, members, own)
    values = dict.fromkeys([*_made_outside(flow, members, own), *out])
    calls = how.roi_calls if is_roi(colours[members[0]]) else 1
    return Worth(
        macs=sum(work(node, how.rows) for node in nodes),
        saved_us=host_us(nodes, how.rows),
        boundary_us=boundary_us(values, calls, how.rows) if values else 0.0,
        calls=calls,
        crossing=sum(max(1, nbytes(v, how.rows)) for v in values),
    )


def small(
    flow: Flow, colours: Sequence[str], pieces: Sequence[int], how: Trimming
) -> dict[int, Verdict]:
    """Positions of device pieces that do not pay, with the reason."""
    members: dict[int, list[int]] = {}
    for i, piece in enumerate(pieces):
        if colours[i] != HOST:
            members.setdefault(piece, []).append(i)
    found: dict[int, Verdict] = {}
    for group in members.values():
        if how.keep_small or not how.pinned.isdisjoint(group):
            continue
        reason = _too_small(flow, group, worth(flow, colours, group, how), how)
        if reason:
            why = Verdict.no(reason, source="cost", about="too small a part")
            found |= dict.fromkeys(group, why)
    return found


def _too_small(flow: Flow, group: Sequence[int], value: Worth, how: Trimming) -> str:
    if all(flow.nodes[i].op_type == "Constant" for i in group):
        return "a constant needs no device"
    if value.macs < how.min_macs:
        return f"the part is too small (below {how.min_macs} multiply-adds)"
    if not value.pays:
        return "the part is not worth its boundary"
    layers = sum(work(flow.nodes[i], how.rows) > 0 for i in group)
    if value.crossing and not layers:
        return "the part has no layer, only arithmetic and copies"
    if value.crossing and layers < how.min_layers:
        return (
            f"the vendor's runtime leaves parts with fewer than {how.min_layers} layers on its CPU"
        )
    return ""
