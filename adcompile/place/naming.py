"""What a device part is, read off the graph: backbone, box head, mask head, embedding, head."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from adcompile.ir.graph import DOMAIN, rank
from adcompile.place.cost import work
from adcompile.place.partition import HOST, Flow, graph_of_pieces, is_roi

# ops of our own domain that read patch features
_FEATURE_READERS = ("KnnSearch", "MahalanobisMap", "WhitenedMap")


def roles(flow: Flow, colours: Sequence[str], pieces: Sequence[int]) -> dict[int, str]:
    """Role of every piece.

    The backbone is the biggest device piece that no other feeds; a device piece between two others
    is a neck, any other one a head.
    """
    members: dict[int, list[int]] = {}
    for i, piece in enumerate(pieces):
        members.setdefault(piece, []).append(i)
    device = {p for p, group in members.items() if colours[group[0]] != HOST}
    graph = graph_of_pieces(flow, pieces)
    fed: set[int] = set()  # by a device piece, directly or through others
    feeding: set[int] = set()
    for piece in sorted(graph):  # piece numbers ascend in execution order
        if piece in device or piece in fed:
            fed.update(graph.successors(piece))
    for piece in sorted(graph, reverse=True):
        if any(q in device or q in feeding for q in graph.successors(piece)):
            feeding.add(piece)
    first = [p for p in sorted(device - fed) if not is_roi(colours[members[p][0]])]
    sizes = {p: sum(work(flow.nodes[i]) for i in members[p]) for p in first}
    main = max(first, key=lambda p: (sizes[p], -p), default=None)
    found: dict[int, str] = {}
    for piece, group in members.items():
        if piece not in device:
            found[piece] = "host"
        elif is_roi(colours[group[0]]):
            found[piece] = _roi_role(flow, group)
        elif piece == main:
            found[piece] = "embedding" if _feeds_a_bank(flow, group) else "backbone"
        else:
            found[piece] = "neck" if piece in fed and piece in feeding else "head"
    return found


def names(found: dict[int, str]) -> dict[int, str]:
    """A unique name per piece, in execution order: the role; numbered where a role repeats."""
    seen: dict[str, int] = {}
    result: dict[int, str] = {}
    for piece in sorted(found):
        role = found[piece]
        number = seen.get(role, 0)
        seen[role] = number + 1
        numbered = role == "host" or number > 0
        start = 0 if role == "host" else 1
        result[piece] = f"{role}_{number + start}" if numbered else role
    return result


def _roi_role(flow: Flow, group: Sequence[int]) -> str:
    """Maps per region are masks (or key points, when the model says so); vectors are boxes."""
    inside = {v for i in group for v in flow.nodes[i].outputs}
    readers = {v for i in group for j in flow.after[i] if j not in group for v in flow.reads[j]}
    outputs = [v for v in inside if v in readers or v.is_graph_output()]
    if not any((rank(v) or 0) >= 4 for v in outputs):
        return "box_head"
    text = " ".join(flow.nodes[i].name or "" for i in group).lower()
    return "keypoint_head" if "keypoint" in text or "kps" in text else "mask_head"


def _feeds_a_bank(flow: Flow, group: Sequence[int]) -> bool:
    """True when features reach an op that compares them with stored vectors."""
    seen = set(group)
    todo = list(group)
    while todo:
        for j in flow.after[todo.pop()]:
            if j in seen:
                continue
            seen.add(j)
            if _reads_features(flow.nodes[j]):
                return True
            todo.append(j)
    return False


def _reads_features(node: ir.Node) -> bool:
    return node.domain == DOMAIN and node.op_type.startswith(_FEATURE_READERS)
