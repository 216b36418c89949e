"""From a colour per node to acyclic, convex pieces of the graph.

Every node has a colour: ``host``, ``device``, or ``roi`` (device, but run once per region of
interest); a device colour may name a precision of its own (``roi@a8w8``). A node's *hop count* is
how often the colour changes on the way to it, at most. Edges never lead to a smaller count, and
neighbours of equal count have equal colours, so the groups of equal (count, colour) form an acyclic
graph of convex pieces. Device groups are then split into connected pieces; pieces of one colour are
merged again wherever that closes no cycle, because a hop count separates more than it must (a side
computation on the host would cut a backbone in two).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, cast

import networkx as nx
import onnx_ir as ir

from adcompile.ir.graph import captured_values

if TYPE_CHECKING:
    Pieces: TypeAlias = nx.DiGraph[int]

HOST, DEVICE, ROI = "host", "device", "roi"
AT = "@"
MERGE_LIMIT = 512  # pieces; beyond it merging is not tried before small pieces are gone


def is_roi(colour: str) -> bool:
    """True for a device colour whose rows are regions of interest."""
    return colour.partition(AT)[0] == ROI


def precision_of(colour: str) -> str:
    """The precision that a colour names, "" when it names none."""
    return colour.partition(AT)[2]


@dataclass(frozen=True, slots=True)
class Flow:
    """The nodes of a graph in execution order and who feeds whom, by position.

    ``reads[i]`` are the values a node reads, those of its subgraphs included; ``before`` and
    ``after`` are the positions of producers and consumers, each once, ascending.
    """

    nodes: tuple[ir.Node, ...]
    reads: tuple[tuple[ir.Value, ...], ...]
    before: tuple[tuple[int, ...], ...]
    after: tuple[tuple[int, ...], ...]


def flow_of(graph: ir.Graph) -> Flow:
    """Read *graph*, whose nodes must be in execution order (``model_io`` sorts them)."""
    nodes = tuple(graph)
    place = {node: i for i, node in enumerate(nodes)}
    reads: list[tuple[ir.Value, ...]] = []
    before: list[tuple[int, ...]] = []
    after: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        values = dict.fromkeys(v for v in (*node.inputs, *captured_values(node)) if v is not None)
        reads.append(tuple(values))
        made_by = {place[p] for v in values if (p := v.producer()) is not None and p in place}
        before.append(tuple(sorted(made_by)))
        for j in before[-1]:
            after[j].append(i)
    return Flow(nodes, tuple(reads), tuple(before), tuple(tuple(a) for a in after))


def hop_counts(flow: Flow, colours: Sequence[str]) -> list[int]:
    """Per node, the largest number of colour changes on any way to it."""
    hops: list[int] = []
    for i, producers in enumerate(flow.before):
        hops.append(max((hops[j] + (colours[j] != colours[i]) for j in producers), default=0))
    return hops


def split(flow: Flow, colours: Sequence[str]) -> list[int]:
    """A piece number per node. Numbers ascend in an order in which the pieces can be executed."""
    pieces = _connected(flow, colours, hop_counts(flow, colours))
    if max(pieces, default=0) < MERGE_LIMIT:
        pieces = _merged(flow, colours, pieces)
    return in_execution_order(flow, pieces)


def _connected(flow: Flow, colours: Sequence[str], hops: Sequence[int]) -> list[int]:
    """Host nodes grouped by hop count; device nodes by hop count and connection."""
    root = list(range(len(flow.nodes)))

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    for i, producers in enumerate(flow.before):
        for j in producers:
            if colours[i] == colours[j] and hops[i] == hops[j]:
                root[find(i)] = find(j)
    numbers: dict[tuple[str, int], int] = {}
    pieces: list[int] = []
    for i, colour in enumerate(colours):
        key = (colour, hops[i] if colour == HOST else find(i))
        pieces.append(numbers.setdefault(key, len(numbers)))
    return pieces


def _merged(flow: Flow, colours: Sequence[str], pieces: list[int]) -> list[int]:
    """Merge connected device pieces of one colour, then host pieces, where no cycle appears."""
    colour = {piece: colours[i] for i, piece in enumerate(pieces)}
    graph = graph_of_pieces(flow, pieces)
    merged: nx.utils.UnionFind[int] = nx.utils.UnionFind(colour)
    changed = True
    while changed:
        changed = False
        for a, b in sorted(graph.edges):
            # an earlier merge of this round may have taken the edge away
            if graph.has_edge(a, b) and colour[a] == colour[b] and _joinable(graph, a, b):
                _join(graph, merged, a, b)
                changed = True
    _merge_hosts(graph, merged, colour)
    return [merged[piece] for piece in pieces]


def _merge_hosts(graph: Pieces, merged: nx.utils.UnionFind[int], colour: dict[int, str]) -> None:
    kept: list[int] = []
    for piece in _order(graph):
        if colour[piece] != HOST:
            continue
        for other in reversed(kept[-16:]):
            if _joinable(graph, other, piece):
                _join(graph, merged, other, piece)
                break
        else:
            kept.append(piece)


def _joinable(graph: Pieces, a: int, b: int) -> bool:
    """True when neither piece reaches the other through a third one."""
    return not _detour(graph, a, b) and not _detour(graph, b, a)


def _detour(graph: Pieces, start: int, goal: int) -> bool:
    direct = graph.has_edge(start, goal)
    if direct:
        graph.remove_edge(start, goal)
    found = bool(nx.has_path(graph, start, goal))
    if direct:
        graph.add_edge(start, goal)
    return found


def _join(graph: Pieces, merged: nx.utils.UnionFind[int], a: int, b: int) -> None:
    """Let *a* stand for both."""
    graph.add_edges_from((a, after) for after in list(graph.successors(b)) if after != a)
    graph.add_edges_from((before, a) for before in list(graph.predecessors(b)) if before != a)
    graph.remove_node(b)
    merged.union(a, b)


def graph_of_pieces(flow: Flow, pieces: Sequence[int]) -> Pieces:
    """Who reads something of whom; nodes in order of appearance, numbered in ``first``."""
    graph: Pieces = nx.DiGraph()
    for piece in pieces:
        if piece not in graph:
            graph.add_node(piece, first=len(graph))
    graph.add_edges_from(
        (pieces[j], pieces[i])
        for i, producers in enumerate(flow.before)
        for j in producers
        if pieces[i] != pieces[j]
    )
    return graph


def in_execution_order(flow: Flow, pieces: Sequence[int]) -> list[int]:
    """Renumber pieces so that a piece's number is above those it reads from; ties by position.

    The graph of pieces must be acyclic (:func:`cycle`).
    """
    rename = {old: new for new, old in enumerate(_order(graph_of_pieces(flow, pieces)))}
    return [rename[piece] for piece in pieces]


def _order(graph: Pieces) -> list[int]:
    """Topological order; among the ready ones the piece that starts earliest comes first."""

    def first(piece: int) -> int:
        return cast(int, graph.nodes[piece]["first"])

    return list(nx.lexicographical_topological_sort(graph, key=first))


def cycle(flow: Flow, pieces: Sequence[int]) -> list[int]:
    """Pieces that need each other in a circle, in order; empty when there are none."""
    try:
        edges = cast("list[tuple[int, int]]", nx.find_cycle(graph_of_pieces(flow, pieces)))  # pyright: ignore[reportUnknownMemberType]
    except nx.NetworkXNoCycle:
        return []
    return [piece for piece, _ in edges]
