"""bind-defaults: inputs that have a default become constants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report


@dataclass(frozen=True)
class BindDefaults(Pass):
    """An initializer that is also a graph input could be overridden by a caller; a deployed model
    has no such caller, so the default becomes a constant and the input disappears.

    Files older than IR version 4 list every weight as an input.
    """

    name: ClassVar[str] = "bind-defaults"
    summary: ClassVar[str] = "turn inputs with a default (weights listed as inputs) into constants"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Take such inputs out of the interface."""
        graph = model.graph
        given = [v for v in graph.inputs if not v.is_initializer()]
        bound = len(graph.inputs) - len(given)
        old = model.ir_version < 4
        if old:
            model.ir_version = 4  # earlier versions demand that initializers are inputs
        if not bound:
            return old
        graph.inputs.clear()
        graph.inputs.extend(given)
        report.applied(self.name, "", detail=f"{bound} inputs with defaults")
        return True
