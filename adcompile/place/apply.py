"""Cut a model into the parts that a plan lists, after checking that the plan fits."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import onnx_ir as ir

from adcompile.errors import FormatError
from adcompile.interfaces import Part
from adcompile.ir.extract import extract
from adcompile.ir.graph import tensor_spec
from adcompile.place.cost import work
from adcompile.place.partition import Flow, cycle, flow_of, in_execution_order
from adcompile.place.planner import boundary
from adcompile.place.schema import PartPlan, Plan

FIX = "make the plan again with `adcompile plan`, or undo the edit"


def apply_plan(model: ir.Model, plan: Plan) -> list[Part]:
    """The parts of *plan* as models of their own, in execution order.

    Every node must be listed exactly once and the parts must not need each other in a circle;
    otherwise FormatError with the names. The model is not changed. Outputs of the model that are
    constants get a host part of their own; an input that is also an output needs none.
    """
    flow = flow_of(model.graph)
    owner = _owners(flow, plan)
    circle = cycle(flow, owner)
    if circle:
        raise _circular(flow, owner, plan, circle)
    order = _order(flow, owner)
    members: dict[int, list[int]] = {}
    for i, part in enumerate(owner):
        members.setdefault(part, []).append(i)
    rows = plan.settings.roi_rows
    parts = [_part(model, flow, plan.parts[p], members[p], rows) for p in order]
    return _with_constants(model, parts)


def _owners(flow: Flow, plan: Plan) -> list[int]:
    """Position in the plan of every node's part."""
    place = {node.name or "": i for i, node in enumerate(flow.nodes)}
    names = [part.name for part in plan.parts]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise FormatError("two parts of the plan have one name", where=twice[0], fix="rename one")
    owner: dict[int, int] = {}
    for number, part in enumerate(plan.parts):
        for name in part.nodes:
            if name not in place:
                raise FormatError(
                    f"the plan names a node that the model does not have: {name!r}",
                    where=f"part {part.name!r}",
                    why=_near(name, list(place)),
                    fix=FIX,
                )
            i = place[name]
            if i in owner:
                other = plan.parts[owner[i]].name
                raise FormatError(
                    f"the plan lists node {name!r} twice",
                    where=f"parts {other!r} and {part.name!r}",
                    fix="leave it in one of them",
                )
            owner[i] = number
    missing = [node.name for i, node in enumerate(flow.nodes) if i not in owner]
    if missing:
        raise FormatError(
            f"the plan leaves out {len(missing)} nodes of the model",
            where=", ".join(repr(m) for m in missing[:5]),
            fix="list them in a part, or " + FIX,
        )
    return [owner[i] for i in range(len(flow.nodes))]


def _near(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2)
    return "close names: " + ", ".join(near) if near else "the plan may belong to another model"


def _order(flow: Flow, owner: Sequence[int]) -> list[int]:
    """Plan positions in execution order; parts without nodes have nothing to run."""
    rank = dict(zip(owner, in_execution_order(flow, owner), strict=True))
    return sorted(rank, key=lambda part: rank[part])


def _circular(flow: Flow, owner: Sequence[int], plan: Plan, circle: list[int]) -> FormatError:
    names = [plan.parts[p].name for p in circle]
    edges: list[str] = []
    for a, b in zip(circle, [*circle[1:], circle[0]], strict=True):
        for i, before in enumerate(flow.before):
            source = next((j for j in before if owner[j] == a), None)
            if owner[i] == b and source is not None:
                edges.append(
                    f"{plan.parts[b].name}: {flow.nodes[i].name!r} reads "
                    f"{flow.nodes[source].name!r} of {plan.parts[a].name}"
                )
                break
    return FormatError(
        "parts of the plan need each other in a circle",
        where=" -> ".join([*names, names[0]]),
        why="; ".join(edges),
        fix="move one of these nodes to the other part",
    )


def _part(model: ir.Model, flow: Flow, part: PartPlan, members: list[int], rows: int) -> Part:
    inputs, outputs = boundary(flow, members)
    nodes = [flow.nodes[i] for i in members]
    return Part(
        name=part.name,
        placement=part.placement,
        role=part.role,
        model=extract(model, nodes, inputs, outputs, part.name),
        inputs=tuple(tensor_spec(v) for v in inputs),
        outputs=tuple(tensor_spec(v) for v in outputs),
        precision=part.precision,
        rows=part.rows,
        options=dict(part.options),
        macs=sum(work(node, rows) for node in nodes),
    )


def _with_constants(model: ir.Model, parts: list[Part]) -> list[Part]:
    """A host part for those model outputs that are constants; inputs need none to be outputs."""
    loose = dict.fromkeys(
        v for v in model.graph.outputs if v.producer() is None and not v.is_graph_input()
    )
    if not loose:
        return parts
    part = Part(
        name=_free_name({p.name for p in parts}),
        placement="host",
        role="host",
        model=extract(model, [], [], list(loose), "constants"),
        inputs=(),
        outputs=tuple(tensor_spec(v) for v in loose),
    )
    return [*parts, part]


def _free_name(taken: set[str]) -> str:
    number = 0
    while f"host_{number}" in taken:
        number += 1
    return f"host_{number}"
