"""dead-code: remove what no output needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.rewrite.surgery import remove_dead_nodes


@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes unread nodes, constants, functions and opset imports, inside subgraphs too.

    Inputs of the model stay: they are its interface.
    """

    name: ClassVar[str] = "dead-code"
    summary: ClassVar[str] = "remove nodes, constants and functions that nothing reads"

    def run(self, model: ir.Model, report: Report) -> bool:
        """Remove dead parts; one sweep from the end finds them all."""
        nodes = remove_dead_nodes(model.graph)
        constants = sum(remove_unread_constants(graph) for graph in model.graphs())
        others = _remove_functions(model) + _remove_imports(model)
        if nodes or constants:
            report.applied(self.name, "", detail=f"{nodes} nodes, {constants} constants")
        return bool(nodes or constants or others)


def remove_unread_constants(graph: ir.Graph) -> int:
    """Remove initializers of *graph* that nothing reads; those that are inputs stay."""
    unread = [
        name
        for name, value in graph.initializers.items()
        if not value.uses() and not value.is_graph_output() and not value.is_graph_input()
    ]
    for name in unread:
        del graph.initializers[name]
    return len(unread)


def _remove_functions(model: ir.Model) -> int:
    used: set[ir.OperatorIdentifier] = set()
    pending = [node.op_identifier() for node in model.graph.all_nodes()]
    while pending:
        key = pending.pop()
        if key in used or key not in model.functions:
            continue
        used.add(key)
        pending += [node.op_identifier() for node in model.functions[key].all_nodes()]
    unused = [key for key in model.functions if key not in used]
    for key in unused:
        del model.functions[key]
    return len(unused)


def _remove_imports(model: ir.Model) -> int:
    used = {""} | {node.domain for node in model.graph.all_nodes()}
    for function in model.functions.values():
        used.add(function.domain)
        used |= {node.domain for node in function.all_nodes()}
    unused = [domain for domain in model.graph.opset_imports if domain not in used]
    for domain in unused:
        del model.graph.opset_imports[domain]
    return len(unused)
