"""Small models for tests of passes and rules: ONNX text in, results compared by execution."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnx.parser
import onnx_ir as ir

from adcompile.interfaces import Pass, Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import all_nodes
from adcompile.ir.shapes import infer_shapes
from adcompile.rewrite.driver import Driver
from adcompile.rewrite.instruments import check_model, difference
from adcompile.rewrite.rules import Rule

Array = npt.NDArray[np.generic]


def model(
    text: str, weights: Mapping[str, Array] | None = None, opset: int = 17, ir_version: int = 9
) -> ir.Model:
    """A model from ONNX text (``g (float[2] x) => (float[2] y) { y = Relu(x) }``)."""
    header = f'<ir_version: {ir_version}, opset_import: ["" : {opset}, "test" : 1]>\n'
    proto = onnx.parser.parse_model(header + text)
    for name, array in (weights or {}).items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(array), name))
    built = model_io.from_proto(proto)
    infer_shapes(built, strict=False)
    return built


def ops(m: ir.Model) -> list[str]:
    """Operator types of all nodes, subgraphs included, in order."""
    return [node.op_type for node in all_nodes(m)]


def feeds(m: ir.Model, seed: int = 0, sizes: Mapping[str, int] | None = None) -> dict[str, Array]:
    """Random inputs; *sizes* gives numbers to symbols (2 otherwise)."""
    rng = np.random.default_rng(seed)
    result: dict[str, Array] = {}
    for value in m.graph.inputs:
        dims = [
            d if isinstance(d, int) else (sizes or {}).get(d.value or "", 2)
            for d in (value.shape.dims if value.shape is not None else ())
        ]
        result[value.name or ""] = _random(rng, dims, np.dtype(value.dtype.numpy()))
    return result


def _random(rng: np.random.Generator, dims: Sequence[int], dtype: np.dtype) -> Array:
    if dtype.kind == "f":
        return rng.normal(size=dims).astype(dtype)
    if dtype.kind == "b":
        return rng.integers(0, 2, dims).astype(bool)
    return rng.integers(-3, 4, dims).astype(dtype)


def assert_same(before: ir.Model, after: ir.Model, inputs: Mapping[str, Array]) -> None:
    """Both models give the same outputs, by name, dtype, shape and value."""
    wanted = {v.name for v in after.graph.inputs}
    a = evaluate(before, inputs)
    b = evaluate(after, {k: v for k, v in inputs.items() if k in wanted})
    assert list(a) == list(b)
    for name in a:
        assert difference(a[name], b[name], 1e-4, 1e-5) == "", name


def run_rules(m: ir.Model, *rules: Rule, allow: Sequence[str] = ()) -> Report:
    """Apply rules to a fixed point, check the model, the results, and that nothing more happens."""
    before = m.clone()
    report = Report(allowed=frozenset(allow))
    changed = Driver(m, rules, report).run()
    assert changed == bool(report.rewrites)
    check_model(m, "rules")
    again = Report(allowed=frozenset(allow))
    assert not Driver(m, rules, again).run(), "a second run changed something"
    if not allow:
        for seed in range(2):
            assert_same(before, m, feeds(before, seed))
    return report


def run_pass(m: ir.Model, each: Pass, *, twice: bool = True, same: bool = True) -> Report:
    """Run one pass; check the model and, unless told otherwise, results and idempotence."""
    before = m.clone()
    report = Report()
    each.run(m, report)
    check_model(m, each.name)
    if twice:
        assert not each.run(m, Report()), "a second run changed something"
    if same:
        for seed in range(2):
            assert_same(before, m, feeds(before, seed))
    return report
