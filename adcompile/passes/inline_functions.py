"""inline-functions: expand a model's own functions, except those of the adcompile domain."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from adcompile.errors import ModelError
from adcompile.interfaces import Pass, Report
from adcompile.ir.constants import lift_constants
from adcompile.ir.graph import DOMAIN

MAX_NODES = 1 << 20
MAX_DEPTH = 200  # functions that call functions that call functions


@dataclass(frozen=True)
class InlineFunctions(Pass):
    """Replaces calls of model functions by their bodies, so that rules can see them.

    Functions of the ``adcompile`` domain stay: backends know them. A model whose functions expand
    to more than a million nodes is refused.
    """

    name: ClassVar[str] = "inline-functions"
    summary: ClassVar[str] = "expand the model's own functions"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Inline everything at once; nested calls too."""
        own = [key for key in model.functions if key[0] != DOMAIN]
        if not own:
            return False
        _check_size(model)
        done = InlinePass(criteria=lambda function: function.domain != DOMAIN)(model)
        if done.modified:
            lift_constants(model)
            report.applied(self.name, "", detail=", ".join(f"{d}::{n}" for d, n, _ in own))
        return bool(done.modified)


def _check_size(model: ir.Model) -> None:
    """Count the nodes after expansion, callees first; loading has made sure there is no circle."""
    calls = {
        key: Counter(n.op_identifier() for n in function.all_nodes())
        for key, function in model.functions.items()
    }
    sizes: dict[ir.OperatorIdentifier, int] = {}
    depths: dict[ir.OperatorIdentifier, int] = {}
    pending = list(calls)
    while pending:
        key = pending[-1]
        missing = [c for c in calls[key] if c in calls and c not in sizes]
        if missing and key not in sizes:
            pending += missing
            continue
        pending.pop()
        sizes[key] = sum(sizes.get(c, 1) * count for c, count in calls[key].items())
        depths[key] = 1 + max((depths.get(c, 0) for c in calls[key]), default=0)
    total = sum(sizes.get(n.op_identifier(), 1) for n in model.graph.all_nodes())
    deepest = max(depths.values(), default=0)
    if total > MAX_NODES or deepest > MAX_DEPTH:
        raise ModelError(
            "the model's functions expand to too many nodes"
            if total > MAX_NODES
            else "the model's functions call each other too deeply",
            where=model.graph.name or "model",
            why=f"{total:,} nodes, {deepest:,} levels; the limits are {MAX_NODES:,} and {MAX_DEPTH}",
        )
