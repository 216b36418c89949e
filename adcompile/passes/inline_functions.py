"""inline-functions: expand a model's own functions, except those of the adcompile domain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from adcompile.errors import ModelError
from adcompile.interfaces import Pass, Report
from adcompile.ir.constants import lift_constants
from adcompile.ir.graph import DOMAIN

MAX_NODES = 1 << 20


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
    sizes: dict[ir.OperatorIdentifier, int] = {}

    def size(key: ir.OperatorIdentifier) -> int:
        if key not in sizes:
            sizes[key] = sum(
                size(n.op_identifier()) if n.op_identifier() in model.functions else 1
                for n in model.functions[key].all_nodes()
            )
        return sizes[key]

    total = sum(
        size(n.op_identifier()) if n.op_identifier() in model.functions else 1
        for n in model.graph.all_nodes()
    )
    if total > MAX_NODES:
        raise ModelError(
            "the model's functions expand to too many nodes",
            where=model.graph.name or "model",
            why=f"{total:,} nodes; the limit is {MAX_NODES:,}",
        )
