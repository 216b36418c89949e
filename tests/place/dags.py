"""Random small graphs that ONNX Runtime can run, and ways to place and execute them."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import onnx_ir as ir

from adcompile.interfaces import Array, Facts, Part, Verdict
from adcompile.ir.evaluate import evaluate
from adcompile.ir.shapes import infer_shapes
from adcompile.place.plan import Settings

SHAPE = (1, 4, 5, 5)
ONE = ("Relu", "Neg", "Abs", "Conv", "MaxPool", "If")
TWO = ("Add", "Mul", "Sub")
Supports = Callable[[ir.Node, Facts], Verdict]


def weight(name: str, seed: int) -> ir.Value:
    """A constant 1×1 convolution weight."""
    data = np.random.default_rng(seed).normal(0, 0.5, (4, 4, 1, 1)).astype(np.float32)
    return ir.Value(
        name=name,
        type=ir.TensorType(ir.DataType.FLOAT),
        shape=ir.Shape(data.shape),
        const_value=ir.tensor(data, name=name),
    )


def value(name: str) -> ir.Value:
    """A float tensor of the common shape."""
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(SHAPE))


def branch(captured: ir.Value, name: str, op: str) -> ir.Graph:
    """A body of If that only reads *captured*."""
    out = value(f"{name}_out")
    node = ir.Node("", op, [captured], outputs=[out], name=f"{name}_node")
    return ir.Graph([], [out], nodes=[node], name=name)


@st.composite
def models(draw: st.DrawFn, most: int = 14) -> ir.Model:
    """A model of up to *most* nodes with one or two inputs and one to three outputs."""
    inputs = [value("in0"), value("in1")][: draw(st.integers(1, 2))]
    condition = ir.Value(
        name="condition",
        type=ir.TensorType(ir.DataType.BOOL),
        shape=ir.Shape(()),
        const_value=ir.tensor(np.array(draw(st.booleans())), name="condition"),
    )
    made, nodes, constants = list(inputs), [], [condition]
    for i in range(draw(st.integers(1, most))):
        op = draw(st.sampled_from(ONE + TWO))
        first = draw(st.sampled_from(made))
        out = value(f"v{i}")
        if op in TWO:
            node = ir.Node("", op, [first, draw(st.sampled_from(made))], outputs=[out])
        elif op == "Conv":
            constants.append(weight(f"w{i}", i))
            node = ir.Node("", op, [first, constants[-1]], outputs=[out])
        elif op == "MaxPool":
            node = ir.Node("", op, [first], [ir.AttrInt64s("kernel_shape", [1, 1])], outputs=[out])
        elif op == "If":
            bodies = [
                ir.AttrGraph("then_branch", branch(first, f"then{i}", "Neg")),
                ir.AttrGraph("else_branch", branch(first, f"else{i}", "Abs")),
            ]
            node = ir.Node("", op, [condition], bodies, outputs=[out])
        else:
            node = ir.Node("", op, [first], outputs=[out])
        node.name = f"n{i}_{op}"
        nodes.append(node)
        made.append(out)
    free = [v for v in made if not v.uses() and v not in inputs]
    extra = draw(st.lists(st.sampled_from(made[len(inputs) :]), max_size=2, unique=True))
    outputs = list(dict.fromkeys([*free, *extra])) or [made[-1]]
    graph = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=constants, opset_imports={"": 17}, name="dag"
    )
    model = ir.Model(graph, ir_version=9)
    infer_shapes(model)
    return model


def choosing(chosen: set[str]) -> Supports:
    """Support exactly the nodes with these names."""

    def supports(node: ir.Node, facts: Facts) -> Verdict:
        return Verdict.yes() if node.name in chosen else Verdict.no("not chosen")

    return supports


def names(model: ir.Model) -> list[str]:
    """Names of the main graph's nodes."""
    return [node.name or "" for node in model.graph]


def feeds(model: ir.Model, seed: int = 0) -> dict[str, Array]:
    """Random inputs."""
    rng = np.random.default_rng(seed)
    return {v.name or "": rng.normal(0, 1, SHAPE).astype(np.float32) for v in model.graph.inputs}


def run(parts: list[Part], given: dict[str, Array]) -> dict[str, Array]:
    """Execute parts in order, each with exactly the inputs it declares."""
    values = dict(given)
    for part in parts:
        values |= evaluate(part.model, {spec.name: values[spec.name] for spec in part.inputs})
    return values


KEEP = Settings(keep_small=True)
