"""Compiled cores, shared by the tests that link generated parts with them."""

from __future__ import annotations

import pytest

from tests.anomaly.conftest import twill, twill_folder
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
