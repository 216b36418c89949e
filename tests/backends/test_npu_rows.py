"""Region parts on the NPU: every policy gives the values of row-by-row execution, for any count."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from adcompile.backends.npu import executor as npu_executor
from adcompile.backends.npu.backend import NpuBackend
from adcompile.backends.npu.executor import NpuExecutor
from adcompile.backends.npu.session import PROVIDER
from adcompile.fileset import FileSet
from adcompile.interfaces import Array, LowerContext, Part, Report
from adcompile.ir.evaluate import evaluate
from adcompile.ir.graph import tensor_spec
from adcompile.lower.calibration import MemoryCalibration
from adcompile.lower.mosaic import mosaic
from adcompile.lower.rows import MosaicCalibration
from adcompile.manifest import PartRecord
from adcompile.place.targets import resolve_target
from adcompile.runtime.roi import RowPlan, run_rows
from adcompile.runtime.session import Session, open_session
from adcompile.runtime.tiles import unpack
from tests.lower.networks import Net, head, samples

COUNTS = (0, 1, 7, 100, 1000)
POLICIES = {
    "loop": {"roi_policy": "loop"},
    "bucket": {"roi_policy": "bucket", "roi_buckets": "1,8,32"},
    "mosaic": {"roi_policy": "mosaic", "roi_capacity": "100"},
}


def vectors() -> ir.Model:
    """A head whose rows arrive flattened: two products and an activation."""
    net = Net(3)
    names = ["x", net.weight("fw", 12, 196), net.weight("fb", 12, scale=0.1)]
    f = net.node("Relu", [net.node("Gemm", names, "fc", transB=1)], "r")
    net.node("Gemm", [f, net.weight("gw", 3, 12), net.weight("gb", 3, scale=0.1)], "y", transB=1)
    return net.model({"x": ["n", 196]}, {"y": ["n", 3]})


HEADS = {"box": head, "mask": lambda: head(deconv=True), "vectors": vectors}


def head_part(kind: str) -> Part:
    model = HEADS[kind]()
    inputs = tuple(tensor_spec(v) for v in model.graph.inputs)
    outputs = tuple(tensor_spec(v) for v in model.graph.outputs)
    return Part("head", "device", "box_head", model, inputs, outputs, "fp32", "roi")


def build(
    part: Part, options: dict[str, str], folder: Path, data: MemoryCalibration | None = None
) -> PartRecord:
    """Lower and emit one part into *folder*."""
    ctx = LowerContext(
        resolve_target("npu:stx"), part.precision, data, (), folder, options, Report()
    )
    out = FileSet()
    backend = NpuBackend()
    record = backend.emit(part, backend.lower(part, ctx), ctx, out)
    out.write_into(folder)
    return record.model_copy(update={"options": {**options, **record.options}})


def rows(count: int, kind: str = "box") -> Array:
    values = np.random.default_rng(count).standard_normal((count, 4, 7, 7)).astype(np.float32)
    return values.reshape(count, 196) if kind == "vectors" else values


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("policy", POLICIES)
def test_values_are_those_of_rows(policy: str, kind: str, tmp_path: Path) -> None:
    """0, 1, 7, 100 and 1,000 regions; more than the largest size are cut into several calls
    (sizes are those of whole grids: 32 regions lie in 6 by 6 tiles)."""
    part = head_part(kind)
    record = build(part, POLICIES[policy], tmp_path)
    executor = NpuExecutor()
    executor.open(record, tmp_path, {})
    plan = RowPlan.of(record)
    assert plan is not None
    for count in COUNTS:
        found, calls = run_rows(plan, executor, {"x": rows(count, kind)})
        assert found["y"].shape[0] == count
        if count:
            expected = evaluate(part.model, {"x": rows(count, kind)})["y"]
            np.testing.assert_allclose(found["y"], expected, rtol=0, atol=1e-5)
        wanted = {"loop": count, "mosaic": -(-count // 100), "bucket": -(-count // 36)}[policy]
        assert calls == wanted
    executor.close()


@pytest.mark.parametrize("precision", ["xint8", "a8w8", "bf16"])
@pytest.mark.parametrize("policy", POLICIES)
def test_no_regions_in_any_format(policy: str, precision: str, tmp_path: Path) -> None:
    """Nothing is called and nothing is lost when an image has no region; one row works as well."""
    part = replace(head_part("box"), precision=precision)
    record = build(part, POLICIES[policy], tmp_path, samples(part.model, 3, rows=5))
    executor = NpuExecutor()
    executor.open(record, tmp_path, {})
    plan = RowPlan.of(record)
    assert plan is not None
    found, calls = run_rows(plan, executor, {"x": rows(0)})
    assert (found["y"].shape, calls) == ((0, 3), 0)
    found, calls = run_rows(plan, executor, {"x": rows(1)})
    assert (found["y"].shape, calls) == ((1, 3), 1)


def test_padding_never_reaches_the_calibration() -> None:
    """A seeded defect of others: zero rows are added to a sample until the batch is full, and bias the
    statistics. The empty tiles of a mosaic repeat real rows instead: every value it shows is real."""
    part = head_part("box")
    real = rows(3) + 2.0
    _, layout = mosaic(part.model, (10, 10))
    (image,) = MosaicCalibration(MemoryCalibration([{"x": real}]), layout)
    spec = layout.inputs["x"]
    tiles = unpack(image["x"], spec, (10, 10), 100)
    assert {tile.tobytes() for tile in tiles} == {row.tobytes() for row in real}
    assert tiles.mean() == pytest.approx(real.mean(), rel=0.02)
    padded = np.zeros((100, 4, 7, 7), np.float32)
    padded[:3] = real
    assert padded.mean() != pytest.approx(real.mean(), rel=0.5)  # what the defect would give
    assert (real != 0).all()


def test_every_size_has_its_own_compiled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sessions for different numbers of regions never share a cache key: the provider would run the
    model that was compiled for the other size."""
    record = build(head_part("box"), POLICIES["bucket"], tmp_path)
    keys: dict[str, str] = {}

    def opened(path: Path, _providers: list[str], **how: object) -> Session:
        (settings, *_) = how["provider_options"]  # type: ignore[misc]
        keys[path.name] = settings["cache_key"]
        return open_session(path)

    monkeypatch.setattr(npu_executor, "available_providers", lambda: (PROVIDER,))
    monkeypatch.setattr(npu_executor, "open_session", opened)
    executor = NpuExecutor()
    executor.open(record, tmp_path, {})
    for count in (1, 9, 36):
        executor.run({"x": rows(count)})
    assert set(keys) == {"rows1.onnx", "rows9.onnx", "rows36.onnx"}
    assert len(set(keys.values())) == 3
