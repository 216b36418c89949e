"""Where every value of a part lives: arena offsets and slots, from life times.

Time runs through the nodes in the order in which they are emitted, bodies included. A value either
looks at memory that others own (its *roots*) or owns a new storage. Storages of known shape share
one arena, the others share growing slots; two share memory only when their life times are apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from adcompile.backends.host.codegen.facts import Facts, subgraphs
from adcompile.backends.host.codegen.registry import Step

ALIGNMENT = 64
FOREVER = 1 << 60

Roots = frozenset[int]
NONE: Roots = frozenset()


@dataclass
class Storage:
    """Memory of one value. ``bytes`` is None when the shape is only known while running."""

    first: int
    last: int
    bytes: int | None
    place: int = -1  # arena offset or slot number


@dataclass
class LoopPlan:
    """Storages of a Loop or Scan: one per carried value, one per scan output.

    ``in_place[i]``: the body appends to the carried buffer itself, nothing has to be moved.
    ``spare[i]`` is a second place for a carried value whose next value looks at carried memory.
    """

    carried: list[int] = field(default_factory=list[int])
    in_place: list[bool] = field(default_factory=list[bool])
    spare: list[int | None] = field(default_factory=list["int | None"])
    scanned: list[int] = field(default_factory=list[int])


@dataclass
class Plan:
    """The result: storage of each owning output, loop storages, sizes of the workspace."""

    storages: list[Storage]
    owner: dict[ir.Value, int]
    loops: dict[ir.Node, LoopPlan]
    grown: set[ir.Value] = field(default_factory=set["ir.Value"])
    arena: int = 0
    slots: int = 0

    def place(self, storage: int) -> Storage:
        """The storage record by number."""
        return self.storages[storage]


class Planner:
    """One pass over a graph that collects storages and life times."""

    def __init__(self, facts: Facts, steps: dict[ir.Node, Step]) -> None:
        self._facts = facts
        self._steps = steps
        self._time = 0
        self._roots: dict[ir.Value, Roots] = {}
        self._given: dict[ir.Value, int] = {}
        self.plan = Plan([], {}, {})

    def run(self) -> Plan:
        """Plan the whole graph; its outputs live until the next run."""
        graph = self._facts.graph
        self._graph(graph)
        for value in graph.outputs:
            self._touch(value, FOREVER)
        _assign(self.plan)
        return self.plan

    # --- life times -------------------------------------------------------------------------

    def _new(self, value: ir.Value | None) -> int:
        size = None
        if value is not None:
            dims = self._facts.shape(value)
            if dims is not None:
                size = self._facts.cpp(value).size
                for d in dims:
                    size *= d
        self.plan.storages.append(Storage(self._time, self._time, size))
        return len(self.plan.storages) - 1

    def _touch(self, value: ir.Value | None, time: int | None = None) -> None:
        if value is None:
            return
        for root in self._roots.get(value, NONE):
            storage = self.plan.storages[root]
            storage.last = max(storage.last, self._time if time is None else time)

    def roots(self, value: ir.Value | None) -> Roots:
        """Storages whose memory *value* may look at."""
        return NONE if value is None else self._roots.get(value, NONE)

    # --- nodes ------------------------------------------------------------------------------

    def _graph(self, graph: ir.Graph) -> None:
        for node in graph:
            if node not in self._steps:
                continue  # constants and what a later node absorbed
            self._time += 1
            for value in self._steps[node].reads:
                self._touch(value)
            self._node(node)
            self._time += 1

    def _node(self, node: ir.Node) -> None:
        op = self._steps[node].op
        if op.control:
            {"If": self._branch, "Loop": self._loop, "Scan": self._loop}[node.op_type](node)
            return
        looks = NONE
        for i in op.views:
            looks |= self.roots(node.inputs[i] if i < len(node.inputs) else None)
        for value in node.outputs:
            if op.owns:
                storage = self._given.get(value)
                if storage is None:
                    storage = self._new(value)
                self.plan.owner[value] = storage
                self._roots[value] = looks | {storage}
            else:
                self._roots[value] = looks

    def _branch(self, node: ir.Node) -> None:
        found: list[Roots] = [NONE] * len(node.outputs)
        for body in subgraphs(node):
            self._graph(body)
            for i, value in enumerate(body.outputs):
                self._touch(value)
                found[i] |= self.roots(value)
        for value, roots in zip(node.outputs, found, strict=True):
            self._roots[value] = roots
            self._touch(value)

    def _loop(self, node: ir.Node) -> None:
        before = len(self.plan.storages)
        start = self._time
        body = next(iter(subgraphs(node)))
        plan = LoopPlan()
        shape = loop_shape(node, body)
        for value, initial in zip(shape.inner, shape.initial, strict=True):
            storage = self._new(value)
            plan.carried.append(storage)
            self._roots[value] = self.roots(initial) | {storage}
        for _ in shape.scan_outputs:
            plan.scanned.append(self._new(None))
        plan.in_place = [self._appends(shape, i, plan.carried[i]) for i in range(len(shape.inner))]
        self._graph(body)
        carried = frozenset(plan.carried)
        for i, value in enumerate(shape.next_values):
            self._touch(value)
            unchanged = value is shape.inner[i]
            stays = unchanged or plan.in_place[i]
            crosses = bool(self.roots(value) & carried) and not stays
            plan.spare.append(self._new(shape.inner[i]) if crosses else None)
        for value in body.outputs:
            self._touch(value)
        self._time += 1
        for earlier in self.plan.storages[:before]:
            # What the body reads must survive every trip, not only the first.
            if earlier.last >= start:
                earlier.last = max(earlier.last, self._time)
        for storage in [*plan.carried, *plan.scanned]:
            self.plan.storages[storage].last = self._time
        for i, value in enumerate(node.outputs):
            if i < len(plan.carried):
                self._roots[value] = self._roots[shape.inner[i]]
            else:
                self._roots[value] = frozenset({plan.scanned[i - len(plan.carried)]})
            self._touch(value)
        self.plan.loops[node] = plan

    def _appends(self, shape: LoopShape, i: int, storage: int) -> bool:
        """True when carried value *i* only ever grows along axis 0 (``v = Concat(v, more)``).

        The Concat then gets the carried buffer as its place and appends without copying ``v``.
        """
        value, grown = shape.inner[i], shape.next_values[i]
        node = grown.producer()
        growing = self.plan.place(storage).bytes is None and appends(node, value)
        alone = len(value.uses()) == 1 and len(grown.uses()) == 0
        once = sum(v is grown for v in shape.next_values) == 1
        if not (growing and alone and once):
            return False
        self._given[grown] = storage
        self.plan.grown.add(grown)
        return True


def appends(node: ir.Node | None, value: ir.Value | None) -> bool:
    """True for ``Concat(value, one more)`` along axis 0."""
    if node is None or node.op_type != "Concat" or len(node.inputs) != 2:
        return False
    axis = node.attributes.get("axis")
    return axis is not None and axis.value == 0 and node.inputs[0] is value


@dataclass(frozen=True)
class LoopShape:
    """The parts of a Loop or Scan: carried values inside, before and after a trip; scans."""

    inner: Sequence[ir.Value]
    initial: Sequence[ir.Value | None]
    next_values: Sequence[ir.Value]
    scan_inputs: Sequence[tuple[ir.Value, ir.Value]]  # (outer, inner)
    scan_outputs: Sequence[ir.Value]  # inner


def loop_shape(node: ir.Node, body: ir.Graph) -> LoopShape:
    """Sort out which input and output of a Loop or Scan is what."""
    if node.op_type == "Loop":
        carried = len(body.inputs) - 2
        return LoopShape(
            body.inputs[2:],
            node.inputs[2:],
            body.outputs[1 : 1 + carried],
            (),
            body.outputs[1 + carried :],
        )
    scans = node.attributes["num_scan_inputs"].as_int()
    carried = len(node.inputs) - scans
    outer: list[ir.Value] = [v for v in node.inputs[carried:] if v is not None]
    return LoopShape(
        body.inputs[:carried],
        node.inputs[:carried],
        body.outputs[:carried],
        tuple(zip(outer, body.inputs[carried:], strict=True)),
        body.outputs[carried:],
    )


# --- places -----------------------------------------------------------------------------------


def _assign(plan: Plan) -> None:
    fixed = [s for s in plan.storages if s.bytes is not None]
    plan.arena = _pack(fixed)
    plan.slots = _colour([s for s in plan.storages if s.bytes is None])


def _rounded(size: int) -> int:
    return max(-(-size // ALIGNMENT) * ALIGNMENT, ALIGNMENT)


def _pack(storages: Iterable[Storage]) -> int:
    """Offsets by first fit, largest first; returns the arena's size."""
    placed: list[tuple[int, int, Storage]] = []  # (offset, size, storage)
    total = 0
    for storage in sorted(storages, key=lambda s: (-(s.bytes or 0), s.first)):
        size = _rounded(storage.bytes or 0)
        busy = sorted(
            (offset, length)
            for offset, length, other in placed
            if other.first <= storage.last and storage.first <= other.last
        )
        offset = 0
        for start, length in busy:
            if offset + size <= start:
                break
            offset = max(offset, start + length)
        storage.place = offset
        placed.append((offset, size, storage))
        total = max(total, offset + size)
    return total


def _colour(storages: Iterable[Storage]) -> int:
    """Slot numbers: the lowest slot that is free over the whole life time."""
    until: list[int] = []
    for storage in sorted(storages, key=lambda s: (s.first, s.last)):
        for number, last in enumerate(until):
            if last < storage.first:
                storage.place = number
                until[number] = storage.last
                break
        else:
            storage.place = len(until)
            until.append(storage.last)
    return len(until)
