"""The plan builder's refusals: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from adcompile.backends.trt import build_plan
from tests.backends.fake_gpu import SEVERITY, ILogger

DRIVER = "CUDA initialization failure with error: 35"


class Builder:
    """TensorRT's builder as its Python package answers where one call has a null pointer."""

    failing = ""

    def __init__(self, log: Any) -> None:
        self.log = log
        self._say("Builder")
        if self.failing == "Builder":
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def _say(self, call: str) -> None:
        if call == self.failing:
            self.log.log(SEVERITY.ERROR, DRIVER)

    def _made(self, call: str) -> Any:
        self._say(call)
        return None if call == self.failing else SimpleNamespace()

    def create_network(self, flags: int) -> Any:
        return self._made("create_network")

    def create_builder_config(self) -> Any:
        return self._made("create_builder_config")

    def build_serialized_network(self, network: Any, config: Any) -> bytes | None:
        self._say("build_serialized_network")
        return None if self.failing == "build_serialized_network" else b"plan"


class Parser:
    """Accepts every file."""

    def __init__(self, network: Any, log: Any) -> None:
        if Builder.failing == "OnnxParser":
            log.log(SEVERITY.ERROR, DRIVER)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def parse(self, data: bytes, path: str) -> bool:
        return True


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package ``tensorrt``, a stand-in."""
    module: Any = ModuleType("tensorrt")
    module.__spec__ = SimpleNamespace(name="tensorrt")
    module.ILogger, module.Builder, module.OnnxParser = ILogger, Builder, Parser
    module.NetworkDefinitionCreationFlag = SimpleNamespace()
    module.BuilderFlag = SimpleNamespace(FP16=1)
    monkeypatch.setitem(sys.modules, "tensorrt", module)


def build(folder: Path) -> int:
    """The exit code of building ``model.onnx`` into ``model.plan``."""
    (folder / "model.onnx").write_bytes(b"")
    files = ["--onnx", str(folder / "model.onnx"), "--output", str(folder / "model.plan")]
    return build_plan.main(["--package", "tensorrt", *files])


@pytest.mark.usefixtures("tensorrt")
@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ("Builder", "the driver may be too old for it"),
        ("create_network", "the driver may be too old for it"),
        ("OnnxParser", "the driver may be too old for it"),
        ("create_builder_config", "the driver may be too old for it"),
        ("build_serialized_network", "builder: "),
    ],
)
def test_a_null_pointer_is_told_in_a_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    call: str,
    sentence: str,
) -> None:
    """With TensorRT's own words, whichever object it cannot make; no plan is left."""
    monkeypatch.setattr(Builder, "failing", call)
    assert build(tmp_path) == build_plan.FAILED
    said = capsys.readouterr().err
    assert sentence in said
    assert said.endswith(f"{DRIVER}\n")
    assert said.count("\n") == 1
    assert not (tmp_path / "model.plan").exists()


@pytest.mark.usefixtures("tensorrt")
def test_the_stand_in_builds_when_nothing_fails(tmp_path: Path) -> None:
    """So that the refusals above are those of the failing call."""
    assert build(tmp_path) == 0
    assert (tmp_path / "model.plan").read_bytes() == b"plan"


def test_a_package_that_does_not_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wheel whose libraries are absent is a missing tool."""
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.10: not found')")
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert build(tmp_path) == build_plan.TOOL_MISSING
    assert "does not load: libnvinfer.so.10: not found" in capsys.readouterr().err
