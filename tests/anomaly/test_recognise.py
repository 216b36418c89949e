"""Anomaly heads in hand-written graphs, in the spellings that exporters use."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import pytest

from adcompile.anomaly import ops
from adcompile.interfaces import Report
from adcompile.ir.constants import lift_constants
from adcompile.ir.evaluate import evaluate
from adcompile.ir.shapes import infer_shapes
from adcompile.passes.embed_head import EmbedHead
from adcompile.passes.raise_anomaly import RaiseAnomaly

ROWS, COLUMNS, BANK = 12, 6, 20
Array = npt.NDArray[np.generic]


def bank() -> npt.NDArray[np.float32]:
    """A bank of random rows."""
    return np.random.default_rng(1).standard_normal((BANK, COLUMNS)).astype(np.float32)


def graph(body: str, constants: dict[str, Array], results: str, opset: int = 17) -> ir.Model:
    """A graph over rows ``x`` with the bank's products as constants."""
    text = f"""<ir_version: 8, opset_import: ["" : {opset}]>
    g (float[{ROWS}, {COLUMNS}] x) => ({results}) {{ {body} }}"""
    tensors = [ir.tensor(np.asarray(a), name=n) for n, a in constants.items()]
    model = ir.from_onnx_text(text, initializers=tensors)
    lift_constants(model)
    infer_shapes(model)
    return model


def raised(model: ir.Model) -> ir.Model:
    """A copy with heads raised; it gives the same numbers on random rows."""
    copy = model.clone()
    RaiseAnomaly().run(copy, Report())
    x = np.random.default_rng(2).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    wanted, got = evaluate(model, {"x": x}), evaluate(copy, {"x": x})
    for name, value in wanted.items():
        np.testing.assert_allclose(
            got[name].astype(float), value.astype(float), rtol=1e-3, atol=1e-5
        )
    return copy


def count(model: ir.Model, op_type: str) -> int:
    """Nodes of the adcompile op."""
    return sum(n.domain == ops.DOMAIN and n.op_type == op_type for n in model.graph)


def plain(*names: str) -> dict[str, Array]:
    """The constants of the expanded square, by name."""
    rows = bank()
    squares = (rows.astype(np.float64) ** 2).sum(axis=1).astype(np.float32)
    everything: dict[str, Array] = {
        "bt": np.ascontiguousarray(rows.T),
        "bt2": np.ascontiguousarray(-2 * rows.T),
        "b": rows,
        "b3": rows[None],
        "n": squares[None],
        "two": np.array(2.0, np.float32),
        "minus": np.array(-2.0, np.float32),
        "zero": np.array(0.0, np.float32),
        "last": np.array([-1]),
        "one": np.array([1]),
        "k": np.array([3]),
        "eps": np.array(1e-6, np.float32),
    }
    return {name: everything[name] for name in names}


MINIMUM = "m = ReduceMin <axes = [1], keepdims = 0> ({})"
EXPANDED = {
    "as torch writes it": (
        "s = Pow (x, two) q = ReduceSum <keepdims = 1> (s, last) c = MatMul (x, bt) "
        "t = Mul (c, minus) a = Add (t, q) e = Add (a, n) f = Clip (e, zero) d = Sqrt (f) ",
        ("two", "last", "bt", "minus", "n", "zero"),
    ),
    "factor inside the constant, other order": (
        "s = Mul (x, x) q = ReduceSum <keepdims = 1> (s, last) c = MatMul (x, bt2) "
        "a = Add (n, c) e = Add (q, a) f = Max (e, zero) d = Sqrt (f) ",
        ("last", "bt2", "n", "zero"),
    ),
    "Gemm with bias": (
        "q = ReduceSumSquare <axes = [1], keepdims = 1> (x) "
        "c = Gemm <alpha = -2.0, transB = 1> (x, b, n) e = Add (c, q) f = Relu (e) d = Sqrt (f) ",
        ("b", "n"),
    ),
    "subtracted twice the product": (
        "s = Mul (x, x) q = ReduceSum <keepdims = 1> (s, last) c = MatMul (x, bt) "
        "t = Mul (c, two) a = Add (q, n) e = Sub (a, t) f = Clip (e, zero) d = Sqrt (f) ",
        ("last", "bt", "two", "n", "zero"),
    ),
    "broadcast difference": (
        "u = Unsqueeze (x, one) g = Sub (u, b3) s = Pow (g, two) "
        "q = ReduceSum <keepdims = 0> (s, last) d = Sqrt (q) ",
        ("one", "b3", "two", "last"),
    ),
    "pairwise distance with epsilon": (
        "u = Unsqueeze (x, one) g = Sub (u, b3) h = Add (g, eps) v = Abs (h) s = Pow (v, two) "
        "q = ReduceSum <keepdims = 0> (s, last) d = Sqrt (q) ",
        ("one", "b3", "two", "last", "eps"),
    ),
    "norm of the difference": (
        "u = Unsqueeze (x, one) g = Sub (b3, u) d = ReduceL2 <axes = [2], keepdims = 0> (g) ",
        ("one", "b3"),
    ),
}


@pytest.mark.parametrize("spelling", EXPANDED)
def test_every_spelling_of_a_distance(spelling: str) -> None:
    """Minimum and position of a distance become one search, in every spelling."""
    body, names = EXPANDED[spelling]
    text = body + MINIMUM.format("d") + " i = ArgMin <axis = 1, keepdims = 0> (d)"
    found = raised(graph(text, plain(*names), f"float[{ROWS}] m, int64[{ROWS}] i"))
    assert count(found, "KnnSearch") == 1
    assert not any(n.op_type in {"MatMul", "Gemm", "Pow"} for n in found.graph)


def test_concatenated_cdist() -> None:
    """[-2x, |x|², 1] · [B, 1, |B|²], which torch.cdist is decomposed into."""
    rows = bank()
    norms = (rows**2).sum(axis=1)
    matrix = np.concatenate([rows.T, np.ones((1, BANK), np.float32), norms[None]])
    constants: dict[str, Array] = {
        **plain("minus", "last", "zero"),
        "m3": matrix.astype(np.float32),
        "ones": np.ones((ROWS, 1), np.float32),
    }
    body = (
        "s = Mul (x, x) q = ReduceSum <keepdims = 1> (s, last) w = Mul (x, minus) "
        "r = Concat <axis = 1> (w, q, ones) e = MatMul (r, m3) f = Clip (e, zero) d = Sqrt (f) "
    )
    found = raised(graph(body + MINIMUM.format("d"), constants, f"float[{ROWS}] m"))
    assert count(found, "KnnSearch") == 1


def test_k_neighbours_and_squared_distances() -> None:
    """TopK of squared distances, and of negated distances, keeps order and scale."""
    body, names = EXPANDED["as torch writes it"]
    squared = body.replace("d = Sqrt (f)", "d = Identity (f)")
    shape = f"float[{ROWS}, 3] v, int64[{ROWS}, 3] i"
    constants = plain(*names, "k")
    ascending = "v, i = TopK <axis = 1, largest = 0> (d, k)"
    assert count(raised(graph(squared + ascending, constants, shape)), "KnnSearch") == 1
    negated = "e2 = Neg (d) v, i = TopK <axis = 1, largest = 1> (e2, k)"
    assert count(raised(graph(body + negated, constants, shape)), "KnnSearch") == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"n": np.zeros((1, BANK), np.float32)}, "norms that are not the bank's"),
        ({"minus": np.array(-1.0, np.float32)}, "half the product"),
    ],
)
def test_what_is_no_distance_stays(change: dict[str, Array], why: str) -> None:
    """Sums that look alike but are no distances are left alone."""
    body, names = EXPANDED["as torch writes it"]
    model = graph(body + MINIMUM.format("d"), plain(*names) | change, f"float[{ROWS}] m")
    copy = model.clone()
    RaiseAnomaly().run(copy, Report())
    assert count(copy, "KnnSearch") == 0, why


def test_the_largest_distance_is_no_search() -> None:
    """ReduceMax and ArgMax of distances, and TopK of the largest, stay."""
    body, names = EXPANDED["as torch writes it"]
    text = body + "m = ReduceMax <axes = [1], keepdims = 0> (d) i = ArgMax <axis = 1> (d)"
    model = graph(text, plain(*names), f"float[{ROWS}] m, int64[{ROWS}, 1] i")
    RaiseAnomaly().run(model, Report())
    assert count(model, "KnnSearch") == 0


def test_chunks_become_one_search() -> None:
    """anomalib searches 1,024 rows at a time; the pieces are joined again."""
    body, names = EXPANDED["as torch writes it"]
    pieces: list[str] = []
    starts: dict[str, Array] = {}
    for index, (low, high) in enumerate([(0, 5), (5, 10), (10, ROWS)]):
        for label, value in (("lo", low), ("hi", high), ("ax", 0)):
            starts[f"{label}{index}"] = np.array([value])
        words = body.replace("(x", f"(x{index}").replace(", x)", f", x{index})")
        for name in "sqctaefd":
            words = words.replace(f" {name} =", f" {name}{index} =").replace(
                f"({name},", f"({name}{index},"
            )
            words = words.replace(f", {name})", f", {name}{index})").replace(
                f"({name})", f"({name}{index})"
            )
        words = words.replace("s = Pow", f"s{index} = Pow")
        pieces.append(f"x{index} = Slice (x, lo{index}, hi{index}, ax{index}) {words}")
        pieces.append(f"m{index} = ReduceMin <axes = [1], keepdims = 0> (d{index})")
        pieces.append(f"i{index} = ArgMin <axis = 1, keepdims = 0> (d{index})")
    pieces.append("m = Concat <axis = 0> (m0, m1, m2) i = Concat <axis = 0> (i0, i1, i2)")
    constants = plain(*names) | starts
    results = f"float[{ROWS}] m, int64[{ROWS}] i"
    found = raised(graph(" ".join(pieces), constants, results))
    assert count(found, "KnnSearch") == 1


def test_map_chain_and_normalisation() -> None:
    """Nearest enlargement, reflected Gaussian blur and min-max normalisation behind a search."""
    taps = np.exp(-0.5 * np.arange(-4, 5) ** 2 / 2.0)
    taps /= taps.sum()
    kernel = np.outer(taps, taps)[None, None].astype(np.float32)
    body, names = EXPANDED["as torch writes it"]
    text = (
        body + MINIMUM.format("d") + ' p = Reshape (m, grid) z = Resize <mode = "nearest", '
        'coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (p, , , size) '
        'w = Pad <mode = "reflect"> (z, pads) y = Conv (w, kernel) l = Sub (y, low) '
        "r = Div (l, range) h = Add (r, half) o = Clip (h, zero, full)"
    )
    constants: dict[str, Array] = {
        **plain(*names),
        "grid": np.array([1, 1, 3, 4]),
        "size": np.array([1, 1, 24, 32]),
        "pads": np.array([0, 0, 4, 4, 0, 0, 4, 4]),
        "kernel": kernel,
        "low": np.array(1.5, np.float32),
        "range": np.array(4.0, np.float32),
        "half": np.array(0.5, np.float32),
        "full": np.array(1.0, np.float32),
    }
    found = raised(graph(text, constants, "float[1, 1, 24, 32] o"))
    assert count(found, "MapUpsampleBlur") == 1
    node = next(n for n in found.graph if n.op_type == "NormalizeScore")
    assert node.attributes["threshold"].as_float() == pytest.approx(1.5)
    assert node.attributes["maximum"].as_float() == pytest.approx(4.0)


def test_embedded_search_is_the_same_in_blocks() -> None:
    """The search as plain operators, over one block and over several, equals the function."""
    body, names = EXPANDED["as torch writes it"]
    text = body + "v, i = TopK <axis = 1, largest = 0> (d, k)"
    shape = f"float[{ROWS}, 3] v, int64[{ROWS}, 3] i"
    model = raised(graph(text, plain(*names, "k"), shape))
    x = np.random.default_rng(3).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    wanted = evaluate(model, {"x": x})
    for block in (4096, 7):
        copy = model.clone()
        assert EmbedHead(block=block).run(copy, Report())
        assert not any(n.domain for n in copy.graph)
        got = evaluate(copy, {"x": x})
        np.testing.assert_array_equal(got["i"], wanted["i"])
        np.testing.assert_allclose(got["v"].astype(float), wanted["v"].astype(float), rtol=1e-6)
