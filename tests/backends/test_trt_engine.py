"""Plans on a GPU: types, shapes, memory and errors of the executor, against a stand-in."""

from __future__ import annotations

import struct
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from adcompile.backends.trt import device
from adcompile.backends.trt.device import Cuda, open_cuda
from adcompile.backends.trt.engine import Engine
from adcompile.backends.trt.executor import TrtExecutor
from adcompile.errors import FormatError, InputError, ToolMissing
from adcompile.manifest import PartRecord, TensorSpec
from tests.backends.fake_gpu import CURRENT, Array, FakeDriver, FakePlan, fake_trt

PLAN = b"plan"


def record(plan: FakePlan, **outputs: str) -> PartRecord:
    """The part of a plan; *outputs* are types that the bundle wants instead of the plan's."""

    def spec(name: str, kind: str, shape: tuple[int, ...]) -> TensorSpec:
        dims = tuple(d if d > 0 else "n" for d in shape)
        return TensorSpec(name=name, dtype=outputs.get(name, kind), shape=dims)

    return PartRecord(
        name="backbone",
        placement="device",
        role="backbone",
        executor="trt",
        precision="fp16",
        inputs=tuple(spec(n, *v) for n, v in plan.inputs.items()),
        outputs=tuple(spec(n, *v) for n, v in plan.outputs.items()),
        files={"plan": "parts/backbone/model.plan"},
    )


def engine(
    plan: FakePlan, driver: FakeDriver | None = None, **outputs: str
) -> tuple[Engine, FakeDriver]:
    """The plan, opened."""
    used = driver or FakeDriver()
    cuda = Cuda(used)  # type: ignore[arg-type]
    return Engine(fake_trt(plan), cuda, PLAN, record(plan, **outputs)), used


def doubled(given: Mapping[str, Array]) -> Mapping[str, Array]:
    return {"y": given["x"] * 2}


def one(kind: str = "float32", **more: Any) -> FakePlan:
    """x [n, 3] doubled."""
    return FakePlan({"x": (kind, (0, 3))}, {"y": (kind, (0, 3))}, doubled, **more)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "uint8", "int64"])
def test_numbers_of_every_type(kind: str) -> None:
    """What the bundle holds goes in as the plan's type and comes out as the bundle's."""
    opened, _ = engine(one(kind), y="float32")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = opened.run({"x": x})["y"]
    assert found.dtype == np.float32
    assert (found == 2 * x).all()
    assert np.dtype(ml_dtypes.bfloat16).itemsize == 2


def test_booleans_and_scalars() -> None:
    """A mask stays one byte per element; a number without axes keeps none."""
    plan = FakePlan(
        {"x": ("float32", (0, 3)), "limit": ("float32", ())},
        {"above": ("bool", (0, 3))},
        lambda given: {"above": given["x"] > given["limit"]},
    )
    opened, _ = engine(plan)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    found = opened.run({"x": x, "limit": np.asarray(2.5, np.float32)})["above"]
    assert found.dtype == np.bool_
    assert (found == (x > 2.5)).all()


def test_views_and_growing_batches() -> None:
    """Transposed input is copied in order; a larger batch gets a larger buffer, the old is freed."""
    opened, driver = engine(one())
    for rows in (2, 5, 1):
        x = np.arange(3 * rows, dtype=np.float32).reshape(3, rows).T
        assert (opened.run({"x": x})["y"] == 2 * x).all()
    assert sorted(block.nbytes for block in driver.blocks.values()) == [60, 60]
    assert opened.run({"x": np.zeros((0, 3), np.float32)})["y"].shape == (0, 3)
    opened.close()
    opened.close()
    assert not driver.blocks
    assert not driver.streams


def test_values_that_shape_others_stay_on_the_host() -> None:
    """TensorRT reads such inputs, and writes such outputs, in host memory."""
    plan = FakePlan(
        {"x": ("float32", (0, 3)), "times": ("int64", (1,))},
        {"y": ("float32", (0, 3)), "size": ("int64", (2,))},
        lambda given: {"y": given["x"] * given["times"][0], "size": np.array(given["x"].shape)},
        on_host=frozenset({"times", "size"}),
    )
    opened, driver = engine(plan)
    x = np.ones((2, 3), np.float32)
    found = opened.run({"x": x, "times": np.array([7])})
    assert (found["y"] == 7).all()
    assert found["size"].tolist() == [2, 3]
    assert len(driver.blocks) == 2  # x and y


def test_sizes_known_only_after_the_run() -> None:
    """TensorRT asks for the memory of such an output and tells its shape, also when it is empty."""
    plan = FakePlan(
        {"x": ("float32", (0, 3))},
        {"large": ("float32", (-1,))},
        lambda given: {"large": np.tile(given["x"][given["x"] > 2], 1 + (given["x"].max() > 50))},
    )
    opened, driver = engine(plan)
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert opened.run({"x": x})["large"].tolist() == [3, 4, 5]
    assert opened.run({"x": x - 9})["large"].shape == (0,)
    assert opened.run({"x": x + 9})["large"].shape == (6,)
    driver.failing = "cuMemAlloc_v2"
    with pytest.raises(InputError, match="could not run") as full:
        opened.run({"x": x + 99})
    assert "out of memory" in full.value.why


def test_what_goes_wrong_is_said_in_tensorrt_s_words() -> None:
    """Refused plan, unknown type, shape, missing input, failed run, full memory."""
    cuda = Cuda(FakeDriver())  # type: ignore[arg-type]
    with pytest.raises(FormatError) as refused:
        Engine(fake_trt(one()), cuda, b"damaged", record(one()))
    assert refused.value.why == "magic tag failed"
    with pytest.raises(FormatError, match="type that cannot be fed"):
        Engine(fake_trt(one("int4")), cuda, PLAN, record(one("float32")))
    x = np.ones((2, 3), np.float32)
    opened, _ = engine(one())
    with pytest.raises(InputError, match="outside the plan's range"):
        opened.run({"x": np.ones((9, 3), np.float32)})
    with pytest.raises(InputError, match="an input is missing"):
        opened.run({})
    opened, _ = engine(one(error="no kernel for this GPU"))
    with pytest.raises(InputError) as failed:
        opened.run({"x": x})
    assert failed.value.why == "no kernel for this GPU"
    opened, driver = engine(one())
    driver.failing = "cuMemAlloc_v2"
    with pytest.raises(ToolMissing) as full:
        opened.run({"x": x})
    assert full.value.why == "out of memory (2)"


def test_closing_goes_from_the_context_up() -> None:
    """An engine must not die before its context, nor the runtime before its engine."""
    plan = one()
    opened, _ = engine(plan)
    opened.run({"x": np.ones((2, 3), np.float32)})
    opened.close()
    assert plan.order == ["Context", "Engine", "Runtime"]


def test_the_current_gpu_of_others_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan, its memory and its runs are on the first GPU (the stand-in checks that), although
    another is current before and after, also when the run or the opening fails."""
    monkeypatch.setattr(CURRENT, "contexts", [11])
    plan = one(most_rows=2)
    opened, driver = engine(plan)
    assert CURRENT.contexts == [11]
    assert (opened.run({"x": np.ones((2, 3), np.float32)})["y"] == 2).all()
    with pytest.raises(InputError):
        opened.run({"x": np.ones((3, 3), np.float32)})
    assert CURRENT.contexts == [11]
    opened.close()
    assert plan.order == ["Context", "Engine", "Runtime"]
    assert not driver.blocks
    with pytest.raises(ToolMissing, match="stream failed"):
        engine(one(), FakeDriver(failing="cuStreamCreate"))
    assert CURRENT.contexts == [11]


def test_a_plan_without_an_output_of_the_manifest() -> None:
    """Said by name when the plan is opened, not by a result that lacks it."""
    part = record(one())
    scores = part.outputs[0].model_copy(update={"name": "scores"})
    more = part.model_copy(update={"outputs": (*part.outputs, scores)})
    with pytest.raises(FormatError, match="lacks outputs") as refused:
        Engine(fake_trt(one()), Cuda(FakeDriver()), PLAN, more)  # type: ignore[arg-type]
    assert refused.value.why == "scores"


def test_another_thread_may_run_the_part() -> None:
    """CUDA's context belongs to a thread: every run enters it (the stand-in checks that)."""
    opened, _ = engine(one())
    found: list[Array] = []
    x = np.ones((2, 3), np.float32)
    worker = threading.Thread(target=lambda: found.append(opened.run({"x": x})["y"]))
    worker.start()
    worker.join()
    assert (found[0] == 2).all()


def test_why_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """No driver, no GPU, a driver that does not start: each by name."""

    def load(name: str) -> FakeDriver:
        if driver is None:
            raise OSError(f"{name}: cannot open shared object file")
        return driver

    monkeypatch.setattr(device.ctypes, "CDLL", load)
    driver: FakeDriver | None = None
    with pytest.raises(ToolMissing, match="no NVIDIA driver") as absent:
        open_cuda()
    assert "cannot open" in absent.value.why
    driver = FakeDriver(devices=0)
    with pytest.raises(ToolMissing, match="no NVIDIA GPU"):
        open_cuda()
    driver = FakeDriver(failing="cuInit")
    with pytest.raises(ToolMissing, match="CUDA: start failed"):
        open_cuda()
    driver = FakeDriver()
    cuda = open_cuda()
    with cuda.current():
        assert cuda.allocate(4) in driver.blocks


@pytest.mark.cuda
def test_the_real_driver() -> None:
    """A megabyte to a real GPU and back, on a stream, from two threads, beside other users of it."""
    try:
        cuda = open_cuda()
    except ToolMissing as missing:
        pytest.skip(missing.why)
    sent: Array = np.random.default_rng(0).integers(0, 256, 1 << 20).astype(np.uint8)
    got: Array = np.zeros_like(sent)
    with cuda.current():
        stream = cuda.stream()
        assert stream
        address = cuda.allocate(sent.nbytes)
        cuda.upload(address, sent.ctypes.data, sent.nbytes)

    def fetch() -> None:
        with cuda.current():
            cuda.synchronize(stream)
            cuda.download(got.ctypes.data, address, got.nbytes)

    worker = threading.Thread(target=fetch)
    worker.start()
    worker.join()
    assert (got == sent).all()
    with cuda.current():
        with pytest.raises(ToolMissing) as full:
            cuda.allocate(1 << 50)
        assert "memory" in full.value.why
        cuda.free(address)
    cuda.close()
    cuda.close()


def installed(
    monkeypatch: pytest.MonkeyPatch, bundle: Path, plan: FakePlan, driver: FakeDriver
) -> PartRecord:
    """The part with its plan file in *bundle*, where TensorRT-RTX and a GPU are."""
    part = record(plan)
    path = bundle / part.files["plan"]
    path.parent.mkdir(parents=True)
    head = b"vtrt".ljust(16, b"\0") + struct.pack("<Q", 64) + bytes((1, 7, 1, 0))
    path.write_bytes(head.ljust(64, b"\0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake_trt(plan))
    where = "adcompile.backends.trt.executor."
    monkeypatch.setattr(where + "importlib.util.find_spec", lambda name: object())
    monkeypatch.setattr(where + "open_cuda", lambda: Cuda(driver))  # type: ignore[arg-type]
    monkeypatch.setattr(where + "compute_capability", lambda: "8.9")
    return part


def test_the_executor_opens_a_plan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The whole way with a plan file, then a GPU that TensorRT-RTX does not run on."""
    driver = FakeDriver()
    part = installed(monkeypatch, tmp_path, one(), driver)
    executor = TrtExecutor()
    executor.open(part, tmp_path, {"require_device": "true"})
    assert not executor.simulated
    assert executor.where == "GPU through TensorRT-RTX 1.7.1"
    x = np.ones((2, 3), np.float32)
    assert (executor.run({"x": x})["y"] == 2).all()
    executor.close()
    assert not driver.blocks
    monkeypatch.setattr("adcompile.backends.trt.executor.compute_capability", lambda: "9.0")
    with pytest.raises(ToolMissing) as refused:
        TrtExecutor().open(part, tmp_path, {"device": "gpu"})
    assert "compute capability 9.0" in refused.value.why


@pytest.mark.parametrize(
    ("old_driver", "failing", "reason"),
    [
        ("CUDA initialization failure with error: 35", "", "failure with error: 35"),
        ("", "cuStreamCreate", "stream failed, out of memory"),
        ("", "cuCtxPushCurrent_v2", "context failed, out of memory"),
    ],
)
def test_a_gpu_that_cannot_run_the_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old_driver: str, failing: str, reason: str
) -> None:
    """``auto`` simulates and says why; ``gpu`` refuses for the same reason."""
    driver = FakeDriver(failing)
    part = installed(monkeypatch, tmp_path, one(old_driver=old_driver), driver)
    monkeypatch.setattr(
        "adcompile.backends.trt.executor.simulate", lambda part, bundle, opts: None
    )
    executor = TrtExecutor()
    executor.open(part, tmp_path, {})
    assert executor.simulated
    assert reason in executor.where
    with pytest.raises(ToolMissing) as refused:
        TrtExecutor().open(part, tmp_path, {"device": "gpu"})
    assert reason in refused.value.why
