"""Why a rule or a pass did, or did not, apply at a node."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.errors import UsageError
from adcompile.interfaces import Exactness, Pass, Report
from adcompile.ir.graph import all_nodes, opset
from adcompile.rewrite.driver import discard_new
from adcompile.rewrite.options import make_pass
from adcompile.rewrite.pattern import match, why_not
from adcompile.rewrite.pipeline import Pipeline
from adcompile.rewrite.rules import Refuse, Rule


@dataclass(frozen=True, slots=True)
class Explanation:
    """The answer: whether the rule (or pass) applies at the node, where it stopped, and why."""

    rule: str
    node: str
    applies: bool
    stage: str  # opset, pattern, permission, condition, options, or "" when it applies
    why: str


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


def explain_pass(
    kind: type[Pass], name: str, node: ir.Node, model: ir.Model, report: Report
) -> Explanation:
    """Run a pass with its default options on a copy, and say whether it reports *name* at *node*.

    *name* is the pass's own name, or one of its steps.
    """
    where = node.name or ""
    try:
        pipeline = Pipeline((make_pass(kind, {}),))
        pipeline.run(model.clone(), report)
    except UsageError as error:
        stage = "permission" if kind.exactness is Exactness.APPROXIMATE else "options"
        text = ": ".join(part for part in (error.what, error.why, error.fix) if part)
        return Explanation(name, where, False, stage, text)
    hits = [rewrite for rewrite in report.rewrites if rewrite.rule == name]
    details = [rewrite.detail for rewrite in hits if rewrite.node in {where, ""}]
    if any(rewrite.node == where for rewrite in hits):
        return Explanation(name, where, True, "", "it applies here")
    if details:
        return Explanation(name, where, True, "", f"it changes the graph as a whole: {details[0]}")
    refusals = [(at, why) for rule, at, why in report.refusals if rule in {name, kind.name}]
    for at, why in refusals:
        if at == where:
            return Explanation(name, where, False, "condition", why)
    text = (
        f"it changes {len(hits)} other nodes of this model" if hits else "it changes nothing here"
    )
    if refusals:
        text += f"; refused at {refusals[0][0]}: {refusals[0][1]}"
    return Explanation(name, where, False, "condition", text)
