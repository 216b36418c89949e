"""Why a rule did, or did not, apply at a node."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Report
from adcompile.ir.graph import all_nodes, opset
from adcompile.rewrite.driver import discard_new
from adcompile.rewrite.pattern import match, why_not
from adcompile.rewrite.pipeline import known_passes, rules_of
from adcompile.rewrite.rules import Refuse, Rule


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: whether the rule applies at the node, where it stopped, and why."""

    rule: str
    node: str
    applies: bool
    stage: str  # opset, pattern, permission, condition, or "" when it applies
    why: str


def find_rule(name: str) -> tuple[str, Rule]:
    """The registered rule called *name*, and the pass that holds it."""
    known: dict[str, tuple[str, Rule]] = {}
    for pass_name, kind in known_passes().items():
        for rule in rules_of(kind):
            known.setdefault(rule.name, (pass_name, rule))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = "did you mean " + ", ".join(near) + "?" if near else "adcompile list rules"
        raise UsageError(f"no rule {name!r}", fix=hint)
    return known[name]


def find_node(model: ir.Model, name: str) -> ir.Node:
    """The node called *name*, or the one that makes the value *name*."""
    nodes = list(all_nodes(model))
    for node in nodes:
        if node.name == name:
            return node
    for node in nodes:
        if any(value.name == name for value in node.outputs):
            return node
    near = difflib.get_close_matches(name, [n.name for n in nodes if n.name], n=3)
    raise UsageError(f"no node {name!r}", fix="did you mean " + ", ".join(near) if near else "")


def explain(rule: Rule, node: ir.Node, model: ir.Model, report: Report) -> Explanation:
    """Try *rule* at *node* without changing anything, and say where it stops."""
    where = node.name or ""
    version = opset(model)
    if version < rule.opset:
        text = f"the model has opset {version}, the rule knows {rule.opset} and newer"
        return Explanation(rule.name, where, False, "opset", text)
    found = match(rule.pattern, node, version)
    if found is None:
        why = why_not(rule.pattern, node, version)
        return Explanation(rule.name, where, False, "pattern", why)
    if rule.exactness is Exactness.APPROXIMATE and not report.allows(rule.name):
        text = f"the rule is approximate; allow it with --allow {rule.name}"
        return Explanation(rule.name, where, False, "permission", text)
    try:
        rule.build(found)
    except Refuse as refusal:
        return Explanation(rule.name, where, False, "condition", str(refusal))
    finally:
        discard_new(found)
    return Explanation(rule.name, where, True, "", "it applies here")
