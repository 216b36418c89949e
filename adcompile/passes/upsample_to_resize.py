"""upsample-to-resize: Upsample ended with opset 9; Resize of opset 13 computes the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.graph import opset
from adcompile.ir.opset import obstacle, retarget

_RESIZE = 13  # the oldest opset whose Resize needs no region of interest
_IR_VERSION = 7  # the file format that came with it


@dataclass(frozen=True)
class UpsampleToResize(Pass):
    """The accelerators' tools read newer opsets than 9, in which there is no Upsample. The whole model
    is brought to opset 13, when every node has an equal there; else it stays as it is."""

    name: ClassVar[str] = "upsample-to-resize"
    summary: ClassVar[str] = "Upsample (opset 9) to the Resize of opset 13 that computes the same"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Move the model to opset 13 if it has an Upsample."""
        now = opset(model)
        nodes = list(ir.traversal.RecursiveGraphIterator(model.graph))
        found = [n for n in nodes if n.op_type == "Upsample" and n.domain == ""]
        if not found:
            return False
        obstacles = [(node, why) for node in nodes if (why := obstacle(node, now, _RESIZE))]
        for node, why in obstacles:
            report.refused(self.name, node.name or "", f"it keeps the model from opset 13: {why}")
        if obstacles:
            return False
        retarget(model, _RESIZE, max(model.ir_version, _IR_VERSION))
        for node in found:
            report.applied(self.name, node.name or "")
        return True
