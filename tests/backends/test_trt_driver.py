"""What the NVIDIA driver is asked, through a fake of its library; which GPUs TensorRT-RTX runs on."""

from __future__ import annotations

import ctypes
import json
from typing import Any

import pytest

from adcompile.backends.trt.driver import compute_capability, runs_rtx
from adcompile.cli import main as cli


class FakeDriver:
    """The three calls of the CUDA driver API; each may fail."""

    def __init__(self, capability: tuple[int, int], failing: str = "") -> None:
        self.capability, self.failing, self.started = capability, failing, False

    def cuInit(self, flags: int) -> int:
        assert flags == 0
        self.started = True
        return int(self.failing == "cuInit")

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        assert self.started
        device._obj.value = 40 + ordinal
        return int(self.failing == "cuDeviceGet")

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: ctypes.c_int) -> int:
        assert device.value == 40
        value._obj.value = self.capability[{75: 0, 76: 1}[attribute]]
        return int(self.failing == "cuDeviceGetAttribute")


def use(monkeypatch: pytest.MonkeyPatch, driver: FakeDriver | None) -> None:
    """Give every load of a library this driver; None: there is none."""

    def load(name: str) -> FakeDriver:
        if driver is None:
            raise OSError(name)
        return driver

    monkeypatch.setattr("adcompile.backends.trt.driver.ctypes.CDLL", load)


def test_capability_is_read_from_the_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """Major and minor; nothing where there is no driver, no device, or a call fails."""
    use(monkeypatch, FakeDriver((8, 9)))
    assert compute_capability() == "8.9"
    for call in ("cuInit", "cuDeviceGet", "cuDeviceGetAttribute"):
        use(monkeypatch, FakeDriver((8, 9), call))
        assert compute_capability() == ""
    use(monkeypatch, None)
    assert compute_capability() == ""


@pytest.mark.parametrize(
    ("capability", "runs"),
    [("7.5", True), ("8.6", True), ("8.7", False), ("9.0", False), ("10.0", False),
     ("12.0", True), ("12.2", True), ("13.0", True), ("7.2", False), ("", False)],
)  # fmt: skip
def test_where_tensorrt_rtx_runs(capability: str, runs: bool) -> None:
    """As its runtime says when it refuses a GPU: Hopper and Jetson boards are not among them."""
    assert runs_rtx(capability) is runs


def test_doctor_does_not_promise_a_run_on_another_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """TensorRT-RTX on a data-centre GPU: the plan can be built, not run."""
    report: dict[str, Any] = {}
    for capability in ((9, 0), (8, 9)):
        use(monkeypatch, FakeDriver(capability))
        assert cli(["doctor", "-t", "trt", "--json"]) == 0
        report[str(capability[0])] = json.loads(capsys.readouterr().out)
    assert report["9"]["tools"]["NVIDIA GPU"] == "compute capability 9.0"
    assert report["9"]["tools"]["GPU for TensorRT-RTX"] == ""
    assert "tensorrt-rtx" not in report["9"]["abilities"]["trt"]["run"]
    if report["8"]["tools"]["tensorrt-rtx"]:
        assert report["8"]["abilities"]["trt"]["run"] == "tensorrt-rtx and GPU for TensorRT-RTX"
