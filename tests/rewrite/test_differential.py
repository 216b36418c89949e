"""The canonical pipeline on random models: ONNX Runtime gives the same before and after."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from adcompile.errors import ModelError
from adcompile.interfaces import Report
from adcompile.ir import model_io
from adcompile.ir.evaluate import evaluate
from adcompile.rewrite.canonical import canonical
from adcompile.rewrite.instruments import Verify, difference
from tests.rewrite.random_models import random_model


def check(seed: int, size: int) -> None:
    """One random model through the whole pipeline, checked after every pass."""
    proto, feeds = random_model(seed, size)
    data = proto.SerializeToString()
    original = model_io.from_bytes(data)
    try:
        before = evaluate(original, feeds)
    except ModelError as error:
        raise AssertionError(f"the generator made a bad model: {error.why}") from error
    optimized = model_io.from_bytes(data)
    canonical().run(optimized, Report(), [Verify([feeds])])
    after = evaluate(optimized, feeds)
    assert list(before) == list(after)
    for name, array in before.items():
        assert difference(array, after[name], 1e-4, 1e-5) == "", name
    again = model_io.from_bytes(model_io.to_bytes(optimized))
    assert not any(p.run(again, Report()) for p in canonical().passes[:3])


@given(seed=st.integers(0, 2**32), size=st.integers(1, 40))
@settings(max_examples=60)
def test_random_models_keep_their_results(seed: int, size: int) -> None:
    """Pipeline output equals ONNX Runtime on the original, for any model of the generator."""
    check(seed, size)


def test_the_generator_reaches_everything() -> None:
    """Over many seeds the random models hold control flow, every type, empty and 0-d tensors."""
    seen: set[str] = set()
    for seed in range(60):
        proto, feeds = random_model(seed, 30)
        seen |= {node.op_type for node in proto.graph.node}
        seen |= {"empty" for array in feeds.values() if array.size == 0}
        seen |= {"0-d" for array in feeds.values() if array.ndim == 0}
        seen |= {array.dtype.name for array in feeds.values()}
        seen |= {
            "open" for v in proto.graph.input for d in v.type.tensor_type.shape.dim if d.dim_param
        }
    wanted = {"If", "Loop", "Scan", "Reshape", "Shape", "Split", "Where", "empty", "0-d", "open"}
    assert wanted | {"float32", "int64", "bool"} <= seen
