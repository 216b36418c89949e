"""What a target says to a plan that was edited by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import onnx_ir as ir

from adcompile.errors import FormatError
from adcompile.interfaces import Facts, Verdict
from adcompile.place.facts import facts_of
from adcompile.place.schema import Plan
from adcompile.target import Target, check_precision


@dataclass(frozen=True, slots=True)
class Objection:
    """A node that a plan puts on the device against the target's support table."""

    part: str
    node: str
    op: str
    verdict: Verdict


def review(
    model: ir.Model, plan: Plan, target: Target, supports: Callable[[ir.Node, Facts], Verdict]
) -> list[Objection]:
    """Nodes on the device that the target refuses. Unknown ones are the user's risk, no objection.

    Raises FormatError when the plan is for another target, UsageError for a precision it lacks.
    """
    if plan.target != target.name:
        raise FormatError(f"the plan is for {plan.target}", why=f"asked for {target.name}")
    facts = facts_of(model, target, check_precision(target, plan.precision))
    nodes = {node.name: node for node in model.graph}
    found: list[Objection] = []
    for part in plan.parts:
        if part.placement == "host":
            continue
        own = replace(facts, precision=check_precision(target, part.precision))
        for name in part.nodes:
            node = nodes.get(name)
            verdict = supports(node, own) if node is not None else None
            if node is not None and verdict is not None and verdict.state == "unsupported":
                found.append(Objection(part.name, name, node.op_type, verdict))
    return found
