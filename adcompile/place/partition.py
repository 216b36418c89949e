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

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.ir.graph import captured_values

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
    links = links_between(flow, pieces)
    parent = {piece: piece for piece in colour}
    changed = True
    while changed:
        changed = False
        for a in sorted(links):
            for b in sorted(links.get(a, ())):
                if colour[a] == colour[b] and b in links[a] and _joinable(links, a, b):
                    _join(links, parent, a, b)
                    changed = True
    _merge_hosts(links, parent, colour)
    return [_final(parent, piece) for piece in pieces]


def _merge_hosts(
    links: dict[int, set[int]], parent: dict[int, int], colour: dict[int, str]
) -> None:
    kept: list[int] = []
    for piece in _order(links):
        if colour[piece] != HOST:
            continue
        for other in reversed(kept[-16:]):
            if _joinable(links, other, piece):
                _join(links, parent, other, piece)
                break
        else:
            kept.append(piece)


def _joinable(links: dict[int, set[int]], a: int, b: int) -> bool:
    """True when neither piece reaches the other through a third one."""
    return not _detour(links, a, b) and not _detour(links, b, a)


def _detour(links: dict[int, set[int]], start: int, goal: int) -> bool:
    todo = [x for x in links[start] if x != goal]
    seen = set(todo)
    while todo:
        for x in links[todo.pop()]:
            if x == goal:
                return True
            if x not in seen:
                seen.add(x)
                todo.append(x)
    return False


def _join(links: dict[int, set[int]], parent: dict[int, int], a: int, b: int) -> None:
    parent[b] = a
    links[a] |= links.pop(b)
    for targets in links.values():
        if b in targets:
            targets.discard(b)
            targets.add(a)
    links[a].discard(a)


def _final(parent: dict[int, int], piece: int) -> int:
    while parent[piece] != piece:
        piece = parent[piece]
    return piece


def links_between(flow: Flow, pieces: Sequence[int]) -> dict[int, set[int]]:
    """Piece to the pieces that read something of it."""
    links: dict[int, set[int]] = {piece: set() for piece in pieces}
    for i, producers in enumerate(flow.before):
        for j in producers:
            if pieces[i] != pieces[j]:
                links[pieces[j]].add(pieces[i])
    return links


def in_execution_order(flow: Flow, pieces: Sequence[int]) -> list[int]:
    """Renumber pieces so that a piece's number is above those it reads from; ties by position.

    The graph of pieces must be acyclic (:func:`cycle`).
    """
    rename = {old: new for new, old in enumerate(_order(links_between(flow, pieces)))}
    return [rename[piece] for piece in pieces]


def _order(links: dict[int, set[int]]) -> list[int]:
    """Topological order; among the ready ones the piece that starts earliest comes first."""
    waiting = dict.fromkeys(links, 0)
    for targets in links.values():
        for b in targets:
            waiting[b] += 1
    first = {piece: i for i, piece in enumerate(links)}  # links are in order of appearance
    ready = [(first[p], p) for p, n in waiting.items() if n == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        _, piece = heapq.heappop(ready)
        order.append(piece)
        for b in sorted(links[piece]):
            waiting[b] -= 1
            if waiting[b] == 0:
                heapq.heappush(ready, (first[b], b))
    return order


def cycle(flow: Flow, pieces: Sequence[int]) -> list[int]:
    """Pieces that need each other in a circle, in order; empty when there are none."""
    links = links_between(flow, pieces)
    left = set(links) - set(_order(links))
    if not left:
        return []
    # every piece left over either is on a circle or follows one: walk backwards until one repeats
    sources = {b: min(a for a in left if b in links[a]) for b in left if _fed(links, left, b)}
    walk = [min(sources)]
    while walk[-1] not in walk[:-1]:
        walk.append(sources[walk[-1]])
    return list(reversed(walk[walk.index(walk[-1]) :]))[:-1]


def _fed(links: dict[int, set[int]], left: Iterable[int], piece: int) -> bool:
    return any(piece in links[a] for a in left)
