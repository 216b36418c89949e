"""What generated C++ does earlier than the graph says, because there is less to do there."""

from __future__ import annotations

import onnx_ir as ir

from adcompile.backends.host.codegen import selections, transposes
from adcompile.interfaces import Report
from adcompile.ir.graph import all_nodes
from adcompile.rewrite.driver import Driver

RULES = (*selections.RULES, *transposes.RULES)
_MOVED = frozenset({"Gather", "Transpose"})
_PASSED = frozenset({"Concat", "Resize"})


def with_early_moves(model: ir.Model) -> ir.Model:
    """*model*, or a changed copy of it that computes the same."""
    if not any(_candidate(node) for node in all_nodes(model)):
        return model
    copy = model.clone()
    return copy if Driver(copy, RULES, Report()).run() else model


def _candidate(node: ir.Node) -> bool:
    before = node.inputs[0].producer() if node.op_type in _MOVED and node.inputs[0] else None
    return before is not None and before.op_type in _PASSED
