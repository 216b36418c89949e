"""Queries, extraction, text, execution, shape analysis."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adcompile.errors import ModelError
from adcompile.ir import model_io
from adcompile.ir.attributes import attribute
from adcompile.ir.dataflow_contents import analyse
from adcompile.ir.dump import dump
from adcompile.ir.evaluate import evaluate
from adcompile.ir.extract import extract
from adcompile.ir.graph import (
    all_nodes,
    captured_values,
    constant,
    count_nodes,
    dtype_name,
    is_constant,
    macs,
    provenance,
    set_provenance,
    static_shape,
    tensor_spec,
)
from adcompile.ir.symbols import Symbols, equal, less, low_of
from tests.rewrite.build import feeds, model
from tests.rewrite.random_models import random_model

F = np.float32
NESTED = (
    "g (float[2] x, bool c) => (float[2] y) { a = Neg(x) b = Exp(w) y = If(c) "
    "<then_branch = t () => (float[2] p) { p = If(c) "
    "<then_branch = u () => (float[2] q) { q = Add(a, b) }, "
    "else_branch = v () => (float[2] r) { r = Abs(w) }> }, "
    "else_branch = e () => (float[2] s) { s = Relu(a) }> }"
)


def nested() -> ir.Model:
    return model(NESTED, {"w": np.ones(2, F)})


def test_shapes_and_specs() -> None:
    """Static shapes are numbers; open dimensions keep their symbol in a spec."""
    m = model("g (float[N,3] x, int64 k) => (float[N,3] y) { y = Neg(x) }")
    x, k = m.graph.inputs
    assert static_shape(x) is None
    assert static_shape(k) == ()
    assert tensor_spec(x).model_dump() == {"name": "x", "dtype": "float32", "shape": ("N", 3)}
    assert dtype_name(k) == "int64"
    assert dtype_name(ir.Value(name="v")) == ""


def test_constants() -> None:
    """Initializers are constant unless they are inputs as well; strings are no arrays."""
    m = model("g (float[2] x, float[2] d) => (float[2] y) { a = Add(x, w) y = Add(a, d) }",
              {"w": np.ones(2, F), "d": np.zeros(2, F)})  # fmt: skip
    assert constant(m.graph.initializers["w"]) is not None
    assert not is_constant(m.graph.initializers["d"])
    assert constant(m.graph.inputs[0]) is None
    assert constant(None) is None


def test_captured_values_and_nesting() -> None:
    """A node's captures include those of the graphs inside its graphs, each once."""
    m = nested()
    (outer,) = (n for n in m.graph if n.op_type == "If")
    assert sorted(v.name or "" for v in captured_values(outer)) == ["a", "b", "c", "w"]
    (inner,) = (n for n in all_nodes(m) if n.op_type == "If" and n is not outer)
    assert sorted(v.name or "" for v in captured_values(inner)) == ["a", "b", "w"]
    assert count_nodes(m) == (3, 7)
    assert inner.graph is not None


def test_provenance() -> None:
    """A node stands for itself until it is said otherwise; names may hold anything."""
    m = nested()
    first, second, third = m.graph
    first.name, second.name = 'odd, "name"', "b"
    assert provenance(first) == ('odd, "name"',)
    set_provenance(third, [first, second, first], "some-rule")
    assert provenance(third) == ('odd, "name"', "b")
    third.metadata_props["adcompile.source"] = "not json"
    assert provenance(third) == ((third.name,) if third.name else ())


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("y = Conv<group=2>(x, w)", {"w": (6, 2, 3, 3)}, 6 * 4 * 4 * 2 * 9),
        ("y = ConvTranspose<strides=[2,2]>(x, w)", {"w": (4, 5, 2, 2)}, 4 * 36 * 5 * 4),
        ("y = MatMul(x, w)", {"w": (6, 7)}, 4 * 6 * 7 * 6),
        ("y = Relu(x)", {}, 0),
    ],
)
def test_multiply_adds(text: str, weights: dict[str, tuple[int, ...]], expected: int) -> None:
    """Multiply-adds follow from shapes; everything that is no product counts nothing."""
    arrays = {name: np.ones(shape, F) for name, shape in weights.items()}
    m = model(f"g (float[1,4,6,6] x) => (float[?,?,?,?] y) {{ {text} }}", arrays)
    assert macs(m.graph[0]) == expected


def test_multiply_adds_of_gemm_and_unknown_shapes() -> None:
    """Gemm counts with its transposition; an open shape counts 0."""
    m = model(
        "g (float[3,2] x) => (float[?,?] y) { y = Gemm<transA=1>(x, w) }",
        {"w": np.ones((3, 5), F)},
    )
    assert macs(m.graph[0]) == 2 * 3 * 5
    m = model("g (float[N,3] x) => (float[?,?] y) { y = MatMul(x, w) }", {"w": np.ones((3, 5), F)})
    assert macs(m.graph[0]) == 0


def test_attribute_defaults() -> None:
    """An absent attribute has the default of its schema at that opset."""
    (node,) = model("g (float[2,2] x) => (float[2,2] y) { y = Softmax(x) }").graph
    assert attribute(node, "axis", 17) == -1
    assert attribute(node, "axis", 11) == 1
    assert attribute(node, "nothing", 17) is None


# extraction


def test_extract_runs_alone() -> None:
    """A cut with control flow computes what the whole computes, and shares its weights."""
    m = nested()
    nodes = list(m.graph)
    a = nodes[0].outputs[0]
    part = extract(m, nodes[1:], [a, m.graph.inputs[1]], list(m.graph.outputs), "part")
    given = feeds(m) | {"c": np.asarray(True)}
    whole = evaluate(m, given, ["a", "y"])
    alone = evaluate(part, {"a": whole["a"], "c": given["c"]})
    assert np.array_equal(alone["y"], whole["y"])
    assert part.graph.initializers["w"].const_value is m.graph.initializers["w"].const_value
    assert part.graph.inputs[0].dtype == ir.DataType.FLOAT
    assert static_shape(part.graph.inputs[0]) == (2,)
    assert len(list(m.graph)) == 3


def test_extract_refuses_an_open_cut() -> None:
    """A value that is neither made, given nor constant is an error; captured ones count too."""
    m = nested()
    nodes = list(m.graph)
    with pytest.raises(ModelError, match="the cut is open") as error:
        extract(m, nodes[2:], [m.graph.inputs[1]], list(m.graph.outputs), "part")
    assert "'a'" in error.value.why
    with pytest.raises(ModelError, match="is not made inside"):
        extract(m, nodes[:1], [m.graph.inputs[0]], list(m.graph.outputs), "part")
    inner = [n for n in all_nodes(m) if n.op_type in ("Relu", "Neg")]
    with pytest.raises(ModelError, match="several graphs"):
        extract(m, inner, [], [], "part")


def test_extract_keeps_functions_in_use() -> None:
    """Functions that the part calls come along, others do not; opset imports likewise."""
    from onnx import helper

    imports = [helper.make_opsetid("", 17), helper.make_opsetid("adcompile", 1)]
    info = [helper.make_tensor_value_info(n, 1, [2]) for n in "xyz"]
    nodes = [helper.make_node(f, [a], [b], domain="adcompile") for f, a, b in ("fxy", "gyz")]
    proto = helper.make_model(
        helper.make_graph(nodes, "g", info[:1], info[2:]), opset_imports=imports, ir_version=9
    )
    for name in "fg":
        body = [helper.make_node("Neg", ["p"], ["q"])]
        proto.functions.append(
            helper.make_function("adcompile", name, ["p"], ["q"], body, imports[:1])
        )
    m = model_io.from_proto(proto)
    part = extract(m, [m.graph[0]], list(m.graph.inputs), [m.graph[0].outputs[0]], "part")
    assert [key[1] for key in part.functions] == ["f"]
    assert part.opset_imports == {"": 17, "adcompile": 1}
    assert evaluate(part, {"x": np.ones(2, F)})["y"].tolist() == [-1, -1]


# text and execution


def test_dump_is_complete_and_stable() -> None:
    """Everything that matters is in the text: constants by content, names, subgraphs, types."""
    a, b = dump(nested()), dump(nested())
    assert a == b
    assert "%w = float[2] [1.0, 1.0]" in a
    assert "then_branch()" in a
    other = nested()
    other.graph.initializers["w"].const_value = ir.tensor(np.asarray([1, 2], F), name="w")
    assert dump(other) != a
    big = model("g (float[9] x) => (float[9] y) { y = Add(x, w) }", {"w": np.ones(9, F)})
    assert "sha256:" in dump(big)


def test_evaluate_inner_values_and_errors() -> None:
    """Inner values can be asked for; unknown ones and runtime failures are ModelErrors."""
    m = model("g (float[2] x) => (float[2] y) { a = Neg(x) y = Relu(a) }")
    found = evaluate(m, {"x": np.asarray([1, -1], F)}, ["a", "x"])
    assert found["a"].tolist() == [-1, 1]
    with pytest.raises(ModelError, match="no value is called 'q'"):
        evaluate(m, {"x": np.zeros(2, F)}, ["q"])
    with pytest.raises(ModelError, match="could not run"):
        evaluate(m, {"x": np.zeros(3, F)})


# analysis


@given(seed=st.integers(0, 10_000), size=st.integers(1, 25))
def test_the_analysis_is_right(seed: int, size: int) -> None:
    """What Flow says of shapes and elements holds when the model runs; equal symbols are equal."""
    proto, given_ = random_model(seed, size)
    m = model_io.from_bytes(proto.SerializeToString())
    flow = analyse(m)
    values = [v for node in m.graph for v in node.outputs if v.name]
    found = evaluate(m, given_, [str(v.name) for v in values])
    meaning: dict[object, int] = {}
    for value in values:
        array = found[str(value.name)]
        pairs: list[tuple[object, int]] = []
        dims, content = flow.shape(value), flow.content(value)
        if dims is not None:
            assert len(dims) == array.ndim, value.name
            pairs += list(zip(dims, array.shape, strict=True))
        if content is not None:
            assert content.shape == array.shape, value.name
            pairs += list(zip(content.ravel().tolist(), array.ravel().tolist(), strict=True))
        for said, is_ in pairs:
            if isinstance(said, int):
                assert said == is_, value.name
            else:
                assert meaning.setdefault(said, is_) == is_, value.name
                low = low_of(said)  # type: ignore[arg-type]
                assert low is None or is_ >= low, value.name


def test_symbol_arithmetic() -> None:
    """Equal expressions are one symbol; what is certain is decided, what is not stays open."""
    s = Symbols()
    n, k = s.dim("n", 0), s.dim("k", 0)
    assert s.add(n, k) is s.add(k, n)
    assert s.mul(n, 1) is n
    assert s.mul(0, n) == 0
    assert s.sub(n, n) == 0
    assert s.div(n, 1) is n
    assert s.div(-7, 2) == -3
    assert s.mod(-7, 2) == 1
    assert s.add(2**62, 2**62) is None
    assert s.maximum(n, -1) is n
    assert s.minimum(n, -1) == -1
    assert equal(n, -1) == 0
    assert equal(n, 0) is None
    assert less(-1, n) == 1
    assert less(n, 0) == 0
    assert less(n, k) is None
    product = s.mul(n, k)
    assert product is not None
    assert low_of(product) == 0
    assert low_of(s.sub(n, k) or 0) is None
