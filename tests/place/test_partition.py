"""The partition's promises, on random graphs and placements."""

from __future__ import annotations

import hypothesis.strategies as st
import networkx as nx
import numpy as np
import onnx_ir as ir
from hypothesis import given

from adcompile.interfaces import Part
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import captured_values
from adcompile.place.partition import DEVICE, HOST, ROI, cycle, flow_of, split
from adcompile.place.plan import Settings, apply_plan, make_plan, parse_plan
from adcompile.place.targets import resolve_target
from tests.place import dags

TARGET = resolve_target("cpu")
colours_of = st.lists(st.sampled_from([HOST, DEVICE, ROI]), min_size=40, max_size=40)


def node_graph(model: ir.Model) -> nx.DiGraph:
    """Who feeds whom, found through values and captures: independent of the code under test."""
    maker = {v.name: n.name for n in model.graph for v in n.outputs}
    graph = nx.DiGraph()
    for node in model.graph:
        graph.add_node(node.name)
        for value in (*node.inputs, *captured_values(node)):
            if value is not None and value.name in maker:
                graph.add_edge(maker[value.name], node.name)
    return graph


def place(model: ir.Model, chosen: set[str], settings: Settings) -> list[Part]:
    return apply_plan(model, make_plan(model, TARGET, dags.choosing(chosen), options=settings))


@given(dags.models(most=24), colours_of)
def test_pieces_cover_all_nodes_and_form_an_acyclic_graph(
    model: ir.Model, colours: list[str]
) -> None:
    """Every node has one piece of its own colour, and pieces can be executed in order of number."""
    flow = flow_of(model.graph)
    pieces = split(flow, colours[: len(flow.nodes)])
    assert len(pieces) == len(flow.nodes)
    assert cycle(flow, pieces) == []
    for i, piece in enumerate(pieces):
        assert all(pieces[j] <= piece for j in flow.before[i])
    kinds = {piece: colours[i] for i, piece in enumerate(pieces)}
    assert [kinds[piece] for piece in pieces] == colours[: len(flow.nodes)]


@given(dags.models(most=24), colours_of)
def test_pieces_are_convex_and_device_pieces_connected(
    model: ir.Model, colours: list[str]
) -> None:
    """No path leaves a piece and comes back; a device piece hangs together."""
    flow = flow_of(model.graph)
    pieces = split(flow, colours[: len(flow.nodes)])
    graph = node_graph(model)
    names = dags.names(model)
    for piece in set(pieces):
        members = {names[i] for i, p in enumerate(pieces) if p == piece}
        below = set().union(*(nx.descendants(graph, n) for n in members)) - members
        above = set().union(*(nx.ancestors(graph, n) for n in members)) - members
        assert not below & above
        if colours[pieces.index(piece)] != HOST:
            assert nx.is_weakly_connected(graph.subgraph(members))


@given(dags.models(), st.data())
def test_parts_in_order_give_the_results_of_the_whole(
    model: ir.Model, data: st.DataObject
) -> None:
    """Executing the parts one after another equals executing the model."""
    names = dags.names(model)
    chosen = set(data.draw(st.lists(st.sampled_from(names), unique=True)))
    settings = data.draw(st.sampled_from([dags.KEEP, Settings()]))
    parts = place(model, chosen, settings)
    given_ = dags.feeds(model)
    expected = evaluate(model, given_)
    got = dags.run(parts, given_)
    for name, array in expected.items():
        np.testing.assert_array_equal(array, got[name])


@given(dags.models(), st.data())
def test_plan_survives_yaml(model: ir.Model, data: st.DataObject) -> None:
    """A plan read back from its own text is the same plan."""
    chosen = set(data.draw(st.lists(st.sampled_from(dags.names(model)), unique=True)))
    plan = make_plan(model, TARGET, dags.choosing(chosen), options=dags.KEEP)
    assert parse_plan(plan.dump()) == plan


@given(dags.models(), st.data())
def test_every_node_is_in_one_part_and_only_chosen_ones_on_the_device(
    model: ir.Model, data: st.DataObject
) -> None:
    """The parts list every node once; nothing unsupported is on the device; reasons are complete."""
    chosen = set(data.draw(st.lists(st.sampled_from(dags.names(model)), unique=True)))
    plan = make_plan(model, TARGET, dags.choosing(chosen), options=dags.KEEP)
    listed = [name for part in plan.parts for name in part.nodes]
    assert sorted(listed) == sorted(dags.names(model))
    device = {n for p in plan.parts if p.placement == "device" for n in p.nodes}
    assert device <= chosen
    for part in plan.parts:
        if part.placement == "host":
            assert sum(why.nodes for why in part.why) == len(part.nodes)


def chain(*ops: str) -> ir.Model:
    """A straight line of ops on one input."""
    first = dags.value("in0")
    last, nodes = first, []
    for i, op in enumerate(ops):
        out = dags.value(f"v{i}")
        nodes.append(ir.Node("", op, [last], outputs=[out], name=f"n{i}"))
        last = out
    graph = ir.Graph([first], [last], nodes=nodes, opset_imports={"": 17}, name="chain")
    return ir.Model(graph, ir_version=9)


def test_a_side_computation_on_the_host_does_not_cut_the_device_part() -> None:
    """a -> b -> d with c (host) feeding d: a, b and d stay one piece, though hop counts differ."""
    x, y = dags.value("x"), dags.value("y")
    values = {name: dags.value(name) for name in "abcd"}
    nodes = [
        ir.Node("", "Relu", [x], outputs=[values["a"]], name="a"),
        ir.Node("", "Relu", [values["a"]], outputs=[values["b"]], name="b"),
        ir.Node("", "Neg", [y], outputs=[values["c"]], name="c"),
        ir.Node("", "Add", [values["b"], values["c"]], outputs=[values["d"]], name="d"),
    ]
    graph = ir.Graph([x, y], [values["d"]], nodes=nodes, opset_imports={"": 17}, name="g")
    pieces = split(flow_of(graph), [DEVICE, DEVICE, HOST, DEVICE])
    assert pieces[0] == pieces[1] == pieces[3] != pieces[2]


def test_a_host_node_between_two_device_nodes_cuts_them() -> None:
    """device -> host -> device cannot be one piece."""
    pieces = split(flow_of(chain("Relu", "Neg", "Relu").graph), [DEVICE, HOST, DEVICE])
    assert pieces == [0, 1, 2]


def test_independent_host_work_is_merged_into_one_part() -> None:
    """Two unconnected host nodes on different levels do not become two parts."""
    x, y = dags.value("x"), dags.value("y")
    a, b, c = (dags.value(n) for n in "abc")
    nodes = [
        ir.Node("", "Neg", [y], outputs=[a], name="a"),
        ir.Node("", "Relu", [x], outputs=[b], name="b"),
        ir.Node("", "Neg", [b], outputs=[c], name="c"),
    ]
    graph = ir.Graph([x, y], [a, c], nodes=nodes, opset_imports={"": 17}, name="g")
    pieces = split(flow_of(graph), [HOST, DEVICE, HOST])
    assert pieces[0] == pieces[2]
