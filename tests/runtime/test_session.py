"""Sessions: providers, threads, refusals, and the executor and backend that stand on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adcompile.backends.cpu.backend import CpuBackend
from adcompile.backends.cpu.executor import CpuExecutor
from adcompile.errors import FormatError, InputError, UsageError
from adcompile.fileset import FileSet
from adcompile.interfaces import Facts
from adcompile.ir import model_io
from adcompile.manifest import PartRecord
from adcompile.place.targets import resolve_target
from adcompile.runtime import session as session_module
from adcompile.runtime.session import (
    available_providers,
    default_threads,
    open_session,
    runtime,
    runtime_errors,
)
from tests.check import handmade

WHOLE = handmade.model()
DATA = model_io.to_bytes(WHOLE)
IMAGE = np.full((1, 3, 32, 32), 0.5, np.float32)


def test_interface_and_result() -> None:
    """Names, types and shapes are the model's; results come by name, or only those asked for."""
    session = open_session(DATA, threads=1)
    assert [(s.name, s.dtype, s.shape) for s in session.inputs] == [
        ("image", "float32", (1, 3, 32, 32))
    ]
    assert [s.dtype for s in session.outputs] == ["float32", "int64", "float32", "float32"]
    assert list(session.run({"image": IMAGE})) == ["boxes", "labels", "scores", "masks"]
    assert list(session.run({"image": IMAGE}, ["scores"])) == ["scores"]


def test_unknown_providers_name_the_known() -> None:
    """A provider that is not installed is an error that lists those that are."""
    with pytest.raises(UsageError) as caught:
        open_session(DATA, ("VitaminExecutionProvider",))
    assert "VitaminExecutionProvider" in str(caught.value)
    assert all(name in str(caught.value) for name in available_providers())
    with pytest.raises(UsageError):
        open_session(DATA, ())


def test_a_model_that_the_optimizer_spoils_is_opened_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """ONNX Runtime breaks some valid models itself; what it refuses either way keeps its reason."""
    real = runtime()
    off = real.GraphOptimizationLevel.ORT_DISABLE_ALL

    class Spoiling:
        """Fails as ONNX Runtime does, unless the optimizer is off."""

        SessionOptions = real.SessionOptions
        GraphOptimizationLevel = real.GraphOptimizationLevel
        get_available_providers = staticmethod(real.get_available_providers)

        def InferenceSession(self, model: bytes, options: Any, **how: Any) -> object:
            if options.graph_optimization_level != off:
                raise RuntimeError("Node input 'v18' is not a graph input")
            return real.InferenceSession(model, options, **how)

    monkeypatch.setattr(session_module, "runtime", Spoiling)
    opened = open_session(DATA, threads=1)
    assert list(opened.run({"image": IMAGE}, ["scores"])) == ["scores"]
    with pytest.raises(FormatError) as refused:
        open_session(b"no model", threads=1)
    assert "v18" in refused.value.why


@pytest.mark.parametrize("threads", [0, -1, 1000])
def test_threads_are_bounded(threads: int) -> None:
    """A useless thread count is refused; the default is what this process may use."""
    with pytest.raises(UsageError):
        open_session(DATA, threads=threads)
    assert 1 <= default_threads() <= 16


def test_what_is_no_model(tmp_path: Path) -> None:
    """Garbage, a missing file and an empty one are format errors, without noise on stderr."""
    (tmp_path / "empty.onnx").write_bytes(b"")
    for source in (b"garbage", tmp_path / "missing.onnx", tmp_path / "empty.onnx"):
        with pytest.raises(FormatError, match="cannot load"):
            open_session(source)


@pytest.mark.parametrize(
    "feeds",
    [
        {},
        {"image": IMAGE.astype(np.float64)},
        {"image": IMAGE[:, :2]},
        {"other": IMAGE},
    ],
)
def test_refusals_of_the_runtime_are_input_errors(feeds: dict[str, np.ndarray]) -> None:
    """Whatever ONNX Runtime raises at run time carries the model's name and its reason."""
    with pytest.raises(InputError, match="could not be run"):
        open_session(DATA, where="part x").run(feeds)


def test_every_runtime_error_is_known() -> None:
    """ONNX Runtime's errors derive from Exception alone: they must be listed by name."""
    names = {kind.__name__ for kind in runtime_errors()}
    assert {"Fail", "InvalidArgument", "InvalidGraph", "NoSuchFile", "RuntimeException"} <= names


def test_options_do_not_change_results() -> None:
    """Threads and optimisation change times, not answers."""
    plain = open_session(DATA, threads=1, optimize=False).run({"image": IMAGE})
    fast = open_session(DATA, threads=2).run({"image": IMAGE})
    for name, array in plain.items():
        np.testing.assert_allclose(fast[name], array, rtol=1e-5, atol=1e-6)


def head(folder: Path, **files: str) -> PartRecord:
    part = handmade.parts(WHOLE)[2]
    out = FileSet()
    record = handmade.record_of(part, out)
    out.write_into(folder)
    return record.model_copy(
        update={"files": {use.replace("_at_", "@"): f for use, f in files.items()}}
    )


MODEL = "parts/box_head/model.onnx"


def test_fixed_row_models_are_chosen_by_count(tmp_path: Path) -> None:
    """``simulation@8`` runs eight rows, the free model any other number."""
    executor = CpuExecutor()
    executor.open(head(tmp_path, model=MODEL, simulation_at_8=MODEL), tmp_path, {"threads": "1"})
    for rows in (8, 3):
        assert len(executor.run({"rows": np.ones((rows, 8), np.float32)})["logits"]) == rows
    executor.close()
    executor.close()
    with pytest.raises(FormatError, match="not open"):
        executor.run({"rows": np.ones((8, 8), np.float32)})


def test_only_fixed_row_models(tmp_path: Path) -> None:
    """Without a free model another row count is refused in words."""
    executor = CpuExecutor()
    executor.open(head(tmp_path, simulation_at_8=MODEL), tmp_path, {})
    with pytest.raises(FormatError, match="number of rows"):
        executor.run({"rows": np.ones((3, 8), np.float32)})


def test_a_part_without_onnx(tmp_path: Path) -> None:
    """A part that has only a vendor plan cannot be simulated, and says so."""
    with pytest.raises(FormatError, match="no ONNX model"):
        CpuExecutor().open(head(tmp_path, plan=MODEL), tmp_path, {})


def test_reference_backend() -> None:
    """It supports every node, needs no passes, and emits the part as it is."""
    target = resolve_target("cpu")
    backend = CpuBackend()
    assert all(backend.supports(node, Facts(target, "fp32")) for node in WHOLE.graph)
    assert list(backend.prepare(target)) == []
    out = FileSet()
    for part in handmade.parts(WHOLE):
        record = handmade.record_of(part, out)
        assert record.files == {"model": f"parts/{part.name}/model.onnx"}
        assert record.rows == part.rows
    assert len(out) == 4
    assert out.actions == ()
