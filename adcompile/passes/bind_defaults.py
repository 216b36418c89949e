"""bind-defaults: inputs that have a default become constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report


@dataclass(frozen=True)
class BindDefaults(Pass):
    """An initializer that is also a graph input could be overridden by a caller; a deployed model
    has no such caller, so the default becomes a constant and the input disappears."""

    name: ClassVar[str] = "bind-defaults"
    summary: ClassVar[str] = "turn inputs with a default (weights listed as inputs) into constants"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Take such inputs out of the interface."""
        graph = model.graph
        given = [v for v in graph.inputs if not v.is_initializer()]
        bound = len(graph.inputs) - len(given)
        if not bound:
            return False
        graph.inputs.clear()
        graph.inputs.extend(given)
        report.applied(self.name, "", detail=f"{bound} inputs with defaults")
        return True
