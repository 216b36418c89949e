"""Give every node a name of its own, so that plans, reports and errors can point at it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir.graph import all_nodes


@dataclass(frozen=True)
class NameNodes(Pass):
    """Nodes without a name, or with one that is taken, are called ``<OpType>_<n>``."""

    name: ClassVar[str] = "name-nodes"
    summary: ClassVar[str] = "Give every node a name of its own"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Rename only what has to be renamed; the first holder keeps its name."""
        taken: set[str] = set()
        unnamed: list[ir.Node] = []
        for node in all_nodes(model):
            if node.name and node.name not in taken:
                taken.add(node.name)
            else:
                unnamed.append(node)
        number = 0
        for node in unnamed:
            while (name := f"{node.op_type}_{number}") in taken:
                number += 1
            node.name = name
            taken.add(name)
        return bool(unnamed)
