"""Patterns over ONNX graphs, as values: what a rule looks for.

    op("Relu", op("Conv", Any("x"), Const("w"), Maybe(Const("b")), name="conv"))

A pattern has one root. Semantics:

* ``Any`` binds any value. ``Const`` binds a constant; constants are never removed by a match.
  ``Maybe`` also accepts a missing optional input, which binds to None.
* The same name twice means the same value.
* A value inside the match (an ``Op`` below the root) must have no reader outside of the match and
  must not be a graph output, so that its node can go away; ``shared=True`` lifts that condition.
  It must live in the root's own graph; a shared one may also come from an enclosing graph.
* ``any_order`` tries both orders of a two-input op.
* ``attrs`` compares attributes; an absent attribute has its schema default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from typing import TypeAlias

import onnx_ir as ir

from adcompile.interfaces import Array
from adcompile.ir.attributes import Scalar, attribute
from adcompile.ir.graph import constant, is_constant


@dataclass(frozen=True, slots=True)
class Any:
    """Matches any value; binds it to *name* when that is not empty."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Const:
    """Matches a constant (an initializer that no caller can override)."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class Maybe:
    """Matches what *inner* matches, or an absent input; then inner's names bind to None."""

    inner: Any | Const


@dataclass(frozen=True, slots=True)
class Op:
    """Matches a node of one of *types*; *inputs* None leaves its inputs unconstrained.

    As an input pattern it matches the value that is output number *output* of such a node.
    """

    types: tuple[str, ...]
    inputs: tuple[Pattern, ...] | None = None
    name: str = ""
    attrs: Mapping[str, Scalar] = field(default_factory=dict[str, Scalar])
    domain: str = ""
    any_order: bool = False
    shared: bool = False
    output: int = 0

    def __hash__(self) -> int:
        return id(self)


Pattern: TypeAlias = Any | Const | Maybe | Op


def op(
    types: str | tuple[str, ...],
    *inputs: Pattern,
    name: str = "",
    attrs: Mapping[str, Scalar] | None = None,
    domain: str = "",
    any_order: bool = False,
    shared: bool = False,
    output: int = 0,
    any_inputs: bool = False,
) -> Op:
    """An :class:`Op` pattern. With *any_inputs* the inputs are not looked at."""
    names = (types,) if isinstance(types, str) else types
    if any_order and len(inputs) != 2:
        raise ValueError("any_order needs exactly two inputs")
    return Op(
        names,
        None if any_inputs else inputs,
        name,
        dict(attrs or {}),
        domain,
        any_order,
        shared,
        output,
    )


@dataclass(slots=True)
class Match:
    """What a pattern found: values by name, nodes by name, and every matched node, root first."""

    root: ir.Node
    values: dict[str, ir.Value | None] = field(default_factory=dict[str, "ir.Value | None"])
    named: dict[str, ir.Node] = field(default_factory=dict[str, ir.Node])
    nodes: list[ir.Node] = field(default_factory=list[ir.Node])
    shared: set[ir.Node] = field(default_factory=set[ir.Node])

    def __getitem__(self, name: str) -> ir.Value:
        """The value bound to *name*; KeyError when it was absent (use :meth:`get` for Maybe)."""
        value = self.values[name]
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str) -> ir.Value | None:
        """The value bound to *name*, or None for an absent optional input."""
        return self.values.get(name)

    def node(self, name: str) -> ir.Node:
        """The node that the ``Op`` called *name* matched."""
        return self.named[name]

    def array(self, name: str) -> Array:
        """The constant bound to *name*."""
        found = constant(self.values[name])
        if found is None:
            raise KeyError(name)
        return found

    @property
    def output(self) -> ir.Value:
        """The root's first output: the value a rule replaces."""
        return self.root.outputs[0]


@dataclass(slots=True)
class _State:
    match: Match
    opset: int
    tell: bool
    why: str = ""
    depth: int = -1

    def fail(self, depth: int, why: str) -> bool:
        """Keep the reason from the deepest place: that is where the pattern nearly fitted."""
        if self.tell and depth >= self.depth:
            self.depth, self.why = depth, why
        return False


def match(pattern: Op, node: ir.Node, opset: int = 23) -> Match | None:
    """Match *pattern* with its root at *node*."""
    for variant in variants(pattern):
        state = _State(Match(node), opset, tell=False)
        if _at(variant, node, state):
            return state.match
    return None


def why_not(pattern: Op, node: ir.Node, opset: int = 23) -> str:
    """Where and why *pattern* does not match at *node*; empty when it does.

    Of several orders, the one that got furthest is reported.
    """
    best = _State(Match(node), opset, tell=True)
    for variant in variants(pattern):
        state = _State(Match(node), opset, tell=True)
        if _at(variant, node, state):
            return ""
        best = state if state.depth > best.depth else best
    return best.why or "it does not match"


@lru_cache(maxsize=1024)
def variants(pattern: Op) -> tuple[Op, ...]:
    """The pattern with every choice of input order that ``any_order`` leaves open."""
    if pattern.inputs is None:
        return (pattern,)
    choices = [variants(p) if isinstance(p, Op) else (p,) for p in pattern.inputs]
    orders = [tuple(chosen) for chosen in product(*choices)]
    if pattern.any_order:
        orders += [(second, first) for first, second in orders]
    if len(orders) == 1:
        return (pattern,)
    return tuple(replace(pattern, inputs=order, any_order=False) for order in orders)


def _at(pattern: Op, node: ir.Node, state: _State) -> bool:
    return _node(pattern, node, state, 0) and _private(state)


def _label(node: ir.Node) -> str:
    return f"{node.name or 'a node'} ({node.op_type})"


def _node(pattern: Op, node: ir.Node, state: _State, depth: int) -> bool:
    if node.op_type not in pattern.types or node.domain != pattern.domain:
        wanted = " or ".join(pattern.types)
        return state.fail(depth, f"{_label(node)} is not {wanted}")
    for key, wanted_value in pattern.attrs.items():
        found = attribute(node, key, state.opset)
        if found != wanted_value:
            text = f"{_label(node)} has {key}={found!r}, the pattern wants {wanted_value!r}"
            return state.fail(depth + 1, text)
    found_match = state.match
    if pattern.name and found_match.named.setdefault(pattern.name, node) is not node:
        return state.fail(depth + 1, f"{_label(node)}: another node was taken as {pattern.name}")
    if node not in found_match.nodes:
        found_match.nodes.append(node)
    if pattern.shared:
        found_match.shared.add(node)
    if pattern.inputs is None:
        return True
    return _inputs(pattern.inputs, node, state, depth)


def _inputs(patterns: tuple[Pattern, ...], node: ir.Node, state: _State, depth: int) -> bool:
    given = node.inputs
    if any(value is not None for value in given[len(patterns) :]):
        text = f"{_label(node)} has {len(given)} inputs, the pattern has {len(patterns)}"
        return state.fail(depth + 1, text)
    for index, pattern in enumerate(patterns):
        value = given[index] if index < len(given) else None
        if not _value(pattern, value, node, index, state, depth + 1):
            return False
    return True


def _value(
    pattern: Pattern,
    value: ir.Value | None,
    reader: ir.Node,
    index: int,
    state: _State,
    depth: int,
) -> bool:
    if isinstance(pattern, Maybe):
        if value is None:
            return _bind(pattern.inner.name, None, state, depth)
        return _value(pattern.inner, value, reader, index, state, depth)
    if value is None:
        return state.fail(depth, f"{_label(reader)}: input {index} is absent")
    if isinstance(pattern, Any):
        return _bind(pattern.name, value, state, depth)
    if isinstance(pattern, Const):
        if not is_constant(value):
            text = f"{_label(reader)}: input {index} ({value.name}) is not a constant"
            return state.fail(depth, text)
        return _bind(pattern.name, value, state, depth)
    producer = value.producer()
    if producer is None:
        text = f"{_label(reader)}: input {index} ({value.name}) is made by no node"
        return state.fail(depth, text)
    if value.index() != pattern.output:
        text = f"{_label(reader)}: input {index} is output {value.index()} of {_label(producer)}"
        return state.fail(depth, text)
    return _node(pattern, producer, state, depth)


def _bind(name: str, value: ir.Value | None, state: _State, depth: int) -> bool:
    if not name:
        return True
    bound = state.match.values
    if name in bound and bound[name] is not value:
        return state.fail(depth, f"{name} is already another value")
    bound[name] = value
    return True


def _private(state: _State) -> bool:
    """Inner values have no reader outside of the match, and live in the root's graph."""
    found = state.match
    inside = set(found.nodes)
    for node in found.nodes[1:]:
        if node in found.shared:
            continue
        if node.graph is not found.root.graph:
            return state.fail(99, f"{_label(node)} is in another graph")
        for value in node.outputs:
            if value.is_graph_output():
                return state.fail(99, f"{value.name}, inside the match, is a graph output")
            other = next((u.node for u in value.uses() if u.node not in inside), None)
            if other is not None:
                return state.fail(
                    99, f"{value.name}, inside the match, is read by {_label(other)}"
                )
    return True


def depth_of(pattern: Pattern) -> int:
    """Longest path of ops from the root to a leaf: 1 for a single op."""
    if not isinstance(pattern, Op):
        return 0
    return 1 + max((depth_of(p) for p in pattern.inputs or ()), default=0)


def ops_of(pattern: Pattern) -> Iterator[Op]:
    """Every op of a pattern, the root first."""
    if isinstance(pattern, Op):
        yield pattern
        for inner in pattern.inputs or ():
            yield from ops_of(inner)
