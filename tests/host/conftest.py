"""Compiled cores, shared by the tests that link generated parts with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.anomaly.conftest import twill, twill_folder
from tests.host.device_models import OnnxRuntime, find_onnxruntime
from tests.host.engines import Driver, write_bundle
from tests.host.kernel_builds import Compiler
from tests.host.toolchains import TOOLCHAINS, Core

__all__ = ["arm64", "checked", "twill", "twill_folder"]


@pytest.fixture(scope="session")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """GCC with AddressSanitizer and UndefinedBehaviorSanitizer."""
    return Core(TOOLCHAINS["gcc-asan-ubsan"], tmp_path_factory.mktemp("checked"))


@pytest.fixture(scope="session")
def arm64(tmp_path_factory: pytest.TempPathFactory) -> Core:
    """The cross compiler for aarch64; programs run under qemu."""
    toolchain = TOOLCHAINS["arm64"]
    if toolchain.missing:
        pytest.skip(f"needs {toolchain.missing}")
    return Core(toolchain, tmp_path_factory.mktemp("arm64"), program=False)


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """All engines on fakes of the vendor runtimes; compiled once for all workers of a test run."""
    own = tmp_path_factory.getbasetemp()
    return Driver(
        own.parent / "engines" if "PYTEST_XDIST_WORKER" in os.environ else own / "engines"
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The files of a part "net" for the driver."""
    return write_bundle(tmp_path / "bundle")


@pytest.fixture(scope="session")
def ort(tmp_path_factory: pytest.TempPathFactory) -> OnnxRuntime:
    """The real ONNX Runtime, to be linked with."""
    return find_onnxruntime(tmp_path_factory.mktemp("onnxruntime"))


@pytest.fixture(scope="session")
def kernel_compiler(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """Compiles the kernels of search and coreset, once for all their tests."""
    return Compiler(tmp_path_factory.mktemp("kernels"))
