"""Apply rules everywhere until none applies: a worklist over all graphs of a model.

After a hit only the neighbourhood is looked at again, so the time per node does not depend on the
size of the graph. A last sweep over everything guarantees the fixed point.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.errors import PassError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.ir.graph import all_nodes, opset, set_provenance
from adcompile.rewrite.pattern import Match, match
from adcompile.rewrite.rules import Refuse, Replacement, Rule
from adcompile.rewrite.surgery import Names, inherit, is_dead, remove, take_over

WIDE = 64  # readers of one value that are looked at again after a change


class Driver:
    """Runs a set of rules over one model."""

    def __init__(self, model: ir.Model, rules: Sequence[Rule], report: Report) -> None:
        self.model = model
        self.report = report
        self.opset = opset(model)
        self.names = Names(model)
        self.by_type: dict[str, list[Rule]] = {}
        for each in rules:
            if self.opset >= each.opset:
                for op_type in each.pattern.types:
                    self.by_type.setdefault(op_type, []).append(each)
        self.reach = max((each.depth for each in rules), default=1)
        self.queue: deque[ir.Node] = deque()
        self.queued: set[ir.Node] = set()
        self.hits: dict[str, int] = {}
        self.made: set[ir.Value] = set()  # outputs of the nodes that the current rule built
        self.refused: set[tuple[str, ir.Node]] = set()

    def run(self) -> bool:
        """Rewrite to a fixed point; True when anything changed."""
        changed = False
        limit = 1000 + 50 * sum(1 for _ in all_nodes(self.model))
        while self._sweep(limit):
            changed = True
        return changed

    def _sweep(self, limit: int) -> bool:
        hit = False
        for node in all_nodes(self.model):
            self._push(node)
        while self.queue:
            node = self.queue.popleft()
            self.queued.discard(node)
            while node.graph is not None and self._visit(node):
                hit = True
                if sum(self.hits.values()) > limit:
                    raise PassError(
                        "rules do not settle",
                        why="hits: " + ", ".join(f"{k} {v}" for k, v in self._busiest()),
                        fix="two rules undo each other; remove one",
                    )
        return hit

    def _busiest(self) -> list[tuple[str, int]]:
        return sorted(self.hits.items(), key=lambda item: (-item[1], item[0]))[:5]

    def _push(self, node: ir.Node) -> None:
        if node.op_type in self.by_type and node not in self.queued:
            self.queued.add(node)
            self.queue.append(node)

    def _visit(self, node: ir.Node) -> bool:
        for each in self.by_type.get(node.op_type, ()):
            found = match(each.pattern, node, self.opset)
            if found is None:
                continue
            try:
                self._check_allowed(each)
                self._apply(each, found)
            except Refuse as refusal:
                discard_new(found)
                self._note_refusal(each, node, str(refusal))
                continue
            self.hits[each.name] = self.hits.get(each.name, 0) + 1
            return True
        return False

    def _check_allowed(self, each: Rule) -> None:
        if each.exactness is Exactness.APPROXIMATE and not self.report.allows(each.name):
            raise Refuse(f"approximate; allow it with --allow {each.name}")

    def _note_refusal(self, each: Rule, node: ir.Node, reason: str) -> None:
        if (each.name, node) not in self.refused:
            self.refused.add((each.name, node))
            self.report.refused(each.name, node.name or "", reason)

    def _apply(self, each: Rule, found: Match) -> None:
        root = found.root
        new = as_values(each.build(found), root)
        graph = root.graph
        if not isinstance(graph, ir.Graph):
            raise Refuse("it is inside a function")
        plan = [check_output(old, value) for old, value in zip(root.outputs, new, strict=True)]
        made = new_nodes(new)
        constants = new_constants(made, new)
        if len(made) == 1 and not made[0].name:
            made[0].name = root.name
        wishes = [node.name or "" for node in made]
        self._adopt(graph, root, made, constants, each, found)
        self.made = {value for node in made for value in node.outputs}
        touched: list[ir.Node] = list(made)
        for old, value, how in zip(root.outputs, new, plan, strict=True):
            if value is not None:
                touched += self._replace(old, value, how, each, found)
        touched += self._bury(found)
        self._give_back(made, wishes, found)
        self.report.applied(each.name, root.name or "", each.exactness)
        self._requeue(touched)

    def _adopt(
        self,
        graph: ir.Graph,
        root: ir.Node,
        made: list[ir.Node],
        constants: list[ir.Value],
        each: Rule,
        found: Match,
    ) -> None:
        """Put new nodes before the root and register new constants, all with unused names."""
        base = root.name or root.outputs[0].name or root.op_type
        for value in constants:
            value.name = self.names.fresh(value.name or f"{base}_const")
            graph.initializers.add(value)
        for node in made:
            node.name = self.names.fresh(node.name or f"{base}/{each.name}")
            for value in node.outputs:
                value.name = self.names.fresh(value.name or f"{node.name}_out")
            if not node.metadata_props:
                set_provenance(node, found.nodes, each.name)
        if made:
            graph.insert_before(root, made)

    def _replace(
        self, old: ir.Value, new: ir.Value, how: str, each: Rule, found: Match
    ) -> list[ir.Node]:
        """Let *new* stand for *old*: uses, types, and the name of a graph output."""
        inherit(new, old)
        touched = list(old.consumers())
        fresh = new in self.made
        if how == "identity":
            node = ir.Node("", "Identity", [new], num_outputs=1)
            inherit(node.outputs[0], old)
            graph = found.root.graph
            if isinstance(graph, ir.Graph):
                self._adopt(graph, found.root, [node], [], each, found)
            touched.append(node)
            new = node.outputs[0]
        is_output, name = old.is_graph_output(), old.name
        take_over(old, new, self.names)
        if fresh and name and not is_output:  # a new value goes by the name of the one it replaces
            old.name = self.names.fresh(f"{name}_replaced")
            new.name = name
        return touched

    def _bury(self, found: Match) -> list[ir.Node]:
        """Remove matched nodes that nothing reads any more; returns neighbours."""
        touched: list[ir.Node] = []
        for node in found.nodes:
            graph = node.graph
            if not isinstance(graph, ir.Graph) or not is_dead(node):
                continue
            sources = [v for v in node.inputs if v is not None]
            remove(node)
            for value in sources:
                producer = value.producer()
                if producer is not None:
                    touched.append(producer)
                    if not value.uses() and producer not in found.nodes:
                        touched += self._remove_chain(producer)
        return touched

    def _give_back(self, made: list[ir.Node], wishes: list[str], found: Match) -> None:
        """A new node that was to be called like a matched one may be, now that that is gone."""
        free = {node.name for node in found.nodes if node.graph is None and node.name}
        for node, wish in zip(made, wishes, strict=True):
            if wish in free:
                node.name = wish
                free.discard(wish)

    def _remove_chain(self, node: ir.Node) -> list[ir.Node]:
        """Remove a node that became dead, and what only it needed."""
        touched: list[ir.Node] = []
        pending = [node]
        while pending:
            each = pending.pop()
            graph = each.graph
            if not isinstance(graph, ir.Graph) or not is_dead(each):
                continue
            producers = each.predecessors()
            remove(each)
            touched += producers
            pending += producers
        return touched

    def _requeue(self, nodes: Iterable[ir.Node]) -> None:
        """Look again at *nodes* and at readers within the reach of the deepest pattern."""
        level = [node for node in dict.fromkeys(nodes) if node.graph is not None]
        seen: set[ir.Node] = set(level)
        for _ in range(self.reach):
            following: list[ir.Node] = []
            for node in level:
                self._push(node)
                for value in node.outputs:
                    readers = value.consumers()
                    if len(readers) > WIDE:
                        continue
                    for reader in readers:
                        if reader not in seen:
                            seen.add(reader)
                            following.append(reader)
            level = following
        for node in level:
            self._push(node)


@dataclass(frozen=True)
class RewritePass(Pass):
    """A pass that applies rules to a fixed point. Subclasses set ``rules``."""

    rules: ClassVar[Sequence[Rule]] = ()

    def run(self, model: ir.Model, report: Report) -> bool:
        """Apply the rules everywhere, inside subgraphs too, until none applies."""
        return Driver(model, type(self).rules, report).run()


def discard_new(found: Match) -> None:
    """Take back the nodes that a refusing rule had built already: they count as readers.

    Readers of constants are left alone; there may be very many, and they do no harm.
    """
    values: dict[ir.Value, None] = {}
    for node in found.nodes:
        for value in (*node.inputs, *node.outputs):
            if value is not None and not value.is_initializer():
                values[value] = None
    pending = [use.node for value in values for use in value.uses() if use.node.graph is None]
    while pending:
        node = pending.pop()
        pending += [n for value in node.outputs for n in value.consumers() if n.graph is None]
        for index in range(len(node.inputs)):
            node.replace_input_with(index, None)


def as_values(result: Replacement, root: ir.Node) -> list[ir.Value | None]:
    """A rule's result as one value per output of the root; None keeps an unused output away."""
    if isinstance(result, ir.Node):
        values: list[ir.Value | None] = list(result.outputs)
    elif isinstance(result, ir.Value):
        values = [result]
    else:
        values = list(result)
    values += [None] * (len(root.outputs) - len(values))
    values = values[: len(root.outputs)]
    for old, new in zip(root.outputs, values, strict=True):
        if new is None and (old.uses() or old.is_graph_output()):
            raise Refuse(f"output {old.name} is still needed")
    return values


def check_output(old: ir.Value, new: ir.Value | None) -> str:
    """How *new* can stand for *old*: "plain", or "identity" when a graph output needs a node."""
    if new is None or not old.is_graph_output():
        return "plain"
    producer = new.producer()
    foreign = producer is None or (producer.graph is not None and producer.graph is not old.graph)
    if not foreign and not new.is_graph_output():
        return "plain"
    root = old.producer()
    if root is not None and root.op_type == "Identity" and root.inputs[0] is new:
        raise Refuse(f"{old.name} is a graph output and needs a node of its own")
    return "identity"


def new_nodes(values: Iterable[ir.Value | None]) -> list[ir.Node]:
    """The nodes a rule built, in execution order: those before *values* without a graph."""
    order: list[ir.Node] = []
    done: set[ir.Node] = set()
    stack: list[tuple[ir.Node, bool]] = []
    for value in values:
        producer = None if value is None else value.producer()
        if producer is not None:
            stack.append((producer, False))
        while stack:
            node, ready = stack.pop()
            if node.graph is not None or (node in done and not ready):
                continue
            if ready:
                order.append(node)
                continue
            done.add(node)
            stack.append((node, True))
            stack += [(p, False) for p in reversed(node.predecessors())]
    return order


def new_constants(nodes: Iterable[ir.Node], values: Iterable[ir.Value | None]) -> list[ir.Value]:
    """Constants a rule made: values with data that belong to no graph yet."""
    found: dict[ir.Value, None] = {}
    for value in (*(v for n in nodes for v in n.inputs), *values):
        if value is not None and value.producer() is None and value.graph is None:
            if value.const_value is None:
                raise Refuse(f"{value.name or 'a new value'} has neither a producer nor data")
            found[value] = None
    return list(found)
