"""Cut a stand-alone model out of a larger one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from adcompile.errors import ModelError
from adcompile.ir.graph import captured_values, walk


def extract(
    model: ir.Model,
    nodes: Iterable[ir.Node],
    inputs: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    name: str,
) -> ir.Model:
    """A model of its own that computes *outputs* from *inputs* with copies of *nodes*.

    Nodes must belong to one graph; they are put into that graph's order. Weights are shared, not
    copied; names, dtypes, shapes, metadata, opset imports and the functions in use are carried
    along. An output may also be an input or a constant: it gets an Identity of its own.
    Raises ModelError when a node reads a value that is neither made inside, given, nor constant.
    """
    wanted = set(nodes)
    graph = _common_graph(model, wanted)
    ordered = [node for node in graph if node in wanted]
    given = set(inputs)
    made = {value for node in ordered for value in node.outputs}
    initializers: dict[ir.Value, None] = {}
    for node in ordered:
        for value in (*node.inputs, *captured_values(node)):
            if value is None or value in made or value in given:
                continue
            if value.const_value is None or not value.is_initializer():
                raise ModelError(
                    f"cannot cut out {name!r}: the cut is open",
                    where=f"node {node.name!r} ({node.op_type})",
                    why=f"it reads {value.name!r}, which is neither made inside nor an input",
                )
            initializers[value] = None
    for value in outputs:
        if value in made or value in given:
            continue
        if not value.is_initializer() or value.const_value is None:
            raise ModelError(
                f"cannot cut out {name!r}: output {value.name!r} is not made inside",
            )
        initializers[value] = None
    view = ir.GraphView(
        list(inputs),
        list(outputs),
        nodes=ordered,
        initializers=list(initializers),
        opset_imports=dict(model.graph.opset_imports),
        name=name,
    )
    copy = view.clone()
    for value in copy.inputs:
        value.const_value = None
    return _as_model(model, copy)


def _common_graph(model: ir.Model, nodes: set[ir.Node]) -> ir.Graph:
    graphs = {id(node.graph): node.graph for node in nodes}
    if not graphs:
        return model.graph
    (graph, *others) = graphs.values()
    if others or not isinstance(graph, ir.Graph):
        raise ModelError("cannot cut out nodes of several graphs at once")
    return graph


def _as_model(model: ir.Model, graph: ir.Graph) -> ir.Model:
    functions = _functions_used(model, graph)
    domains = {node.domain for node in walk(graph)}
    for function in functions:
        domains |= {node.domain for node in walk(function)}
    imports = {
        domain: version
        for domain, version in graph.opset_imports.items()
        if domain == "" or domain in domains
    }
    graph.opset_imports.clear()
    graph.opset_imports.update(imports)
    return ir.Model(
        graph,
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=[function.clone() for function in functions],
        metadata_props=dict(model.metadata_props),
    )


def _functions_used(model: ir.Model, graph: ir.Graph) -> list[ir.Function]:
    """Functions that *graph* calls, directly or through others, in the model's order."""
    used: set[ir.OperatorIdentifier] = set()
    pending = [node.op_identifier() for node in walk(graph)]
    while pending:
        key = pending.pop()
        function = model.functions.get(key)
        if function is None or key in used:
            continue
        used.add(key)
        pending += [node.op_identifier() for node in walk(function)]
    return [function for key, function in model.functions.items() if key in used]
