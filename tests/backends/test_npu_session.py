"""Session options against the documented tables; cache identity; placement reports."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adcompile.backends.npu.executor import NpuExecutor, read_session
from adcompile.backends.npu.report import compare, read_report
from adcompile.backends.npu.session import RELEASES, Wishes, cache_identity, plan_session
from adcompile.errors import FormatError, ToolMissing, UsageError
from adcompile.manifest import PartRecord, TensorSpec


def test_old_releases_choose_firmware_by_environment() -> None:
    """1.2 and 1.3: config_file always, camel-case cache keys, XLNX variables."""
    plan = plan_session("phx", "1.3", "xint8", "key")
    assert set(plan.provider_options) == {"config_file", "cacheDir", "cacheKey"}
    assert plan.environment["XLNX_TARGET_NAME"] == "AMD_AIE2_4x4_Overlay"


@pytest.mark.parametrize(("chip", "overlay"), [("phx", "phoenix/4x4"), ("stx", "strix/AMD_AIE2P")])
def test_middle_releases_name_an_xclbin(chip: str, overlay: str) -> None:
    """1.4 and 1.5: an xclbin for every chip, snake-case keys, no environment for firmware."""
    for release in ("1.4", "1.5"):
        plan = plan_session(chip, release, "xint8", "key")
        assert overlay in plan.provider_options["xclbin"]
        assert "XLNX_VART_FIRMWARE" not in plan.environment


@pytest.mark.parametrize("release", ["1.6", "1.7", "1.8"])
def test_new_releases_choose_the_compiler(release: str) -> None:
    """From 1.6: X2 without xclbin on XDNA 2; X1 with the phoenix xclbin on XDNA."""
    strix = plan_session("stx", release, "a8w8", "key").provider_options
    phoenix = plan_session("hpt", release, "a8w8", "key").provider_options
    assert (strix["target"], "xclbin" in strix) == ("X2", False)
    assert (phoenix["target"], "phoenix/4x4.xclbin" in phoenix["xclbin"]) == ("X1", True)
    assert strix["enable_cache_file_io_in_mem"] == "0"


def test_report_must_be_asked_for_from_1_5_on() -> None:
    """Earlier releases write it by themselves."""
    asked = {
        r
        for r in RELEASES
        if "XLNX_ONNX_EP_REPORT_FILE" in plan_session("phx", r, "xint8", "k").environment
    }
    assert asked == {"1.5", "1.6", "1.7", "1.8"}


@pytest.mark.parametrize(
    ("chip", "release", "precision", "wishes"),
    [
        ("stx", "1.6", "xint8", Wishes(xclbin="my.xclbin")),
        ("phx", "1.6", "xint8", Wishes(target="X2")),
        ("stx", "1.6", "xint8", Wishes(target="X3")),
        ("phx", "1.8", "bf16", Wishes()),
        ("krk", "1.3", "xint8", Wishes()),
        ("stx", "1.2", "bf16", Wishes()),
        ("stx", "1.7", "xint8", Wishes(opt_level="2")),
        ("stx", "1.8", "xint8", Wishes(opt_level="9")),
        ("stx", "1.8", "xint8", Wishes(encryption_key="abc")),
        ("stx", "9.9", "xint8", Wishes()),
        ("xyz", "1.8", "xint8", Wishes()),
    ],
)
def test_contradictions_are_refused(
    chip: str, release: str, precision: str, wishes: Wishes
) -> None:
    """Options that a chip or release does not take are usage errors."""
    with pytest.raises(UsageError):
        plan_session(chip, release, precision, "key", wishes)


def test_fallback_can_be_switched_off() -> None:
    """The session setting that makes a fallback an error."""
    plan = plan_session("stx", "1.8", "xint8", "key", Wishes(cpu_fallback=False))
    assert plan.session_config == {"session.disable_cpu_ep_fallback": "1"}


def test_cache_identity_counts_everything_but_the_place() -> None:
    """Another model, option, provider or driver: another key. The cache folder does not matter."""
    base = cache_identity("m", {"target": "X2", "cache_dir": "a"}, "1.18", "32.0")
    assert base == cache_identity("m", {"target": "X2", "cache_dir": "b"}, "1.18", "32.0")
    others = [
        cache_identity("n", {"target": "X2"}, "1.18", "32.0"),
        cache_identity("m", {"target": "X1"}, "1.18", "32.0"),
        cache_identity("m", {"target": "X2"}, "1.19", "32.0"),
        cache_identity("m", {"target": "X2"}, "1.18", "33.0"),
    ]
    assert len({base, *others}) == 5


@pytest.mark.parametrize("label", ["NPU", "DPU"])
def test_report_is_read_with_both_labels(tmp_path: Path, label: str) -> None:
    """The provider's own placement, and what it did other than planned."""
    stats = [
        {"name": "all", "nodeNum": 10, "supportedOpType": ["::Conv", "::Resize"]},
        {"name": "CPU", "nodeNum": 2, "supportedOpType": ["::Resize", "::QuantizeLinear"]},
        {"name": label, "nodeNum": 8, "supportedOpType": ["::Conv"]},
    ]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"deviceStat": stats, "new": 1}))
    placement = read_report(path)
    assert (placement.total, placement.npu, placement.cpu) == (10, 8, 2)
    assert not placement.complete
    lines = {line.op: line for line in compare({"Conv": 5, "Resize": 1, "Relu": 5}, placement)}
    assert {op: line.ran for op, line in lines.items()} == {
        "Conv": "NPU",
        "Relu": "not in the report",
        "Resize": "CPU",
    }
    assert [op for op, line in lines.items() if line.surprise] == ["Resize"]
    assert "linear Resize" in lines["Resize"].why


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"deviceStat": 3}', "{"])
def test_a_damaged_report_is_refused(tmp_path: Path, text: str) -> None:
    """Damaged JSON is a format error, not a crash."""
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(FormatError):
        read_report(path)


def test_session_file_may_not_set_foreign_variables(tmp_path: Path) -> None:
    """A bundle cannot change PATH or preload a library."""
    path = tmp_path / "session.json"
    path.write_text(json.dumps({"environment": {"LD_PRELOAD": "x.so"}}))
    with pytest.raises(FormatError, match="environment variable"):
        read_session(path)


def test_required_npu_is_missing_here(tmp_path: Path) -> None:
    """Without the provider the error names those that are there."""
    spec = TensorSpec(name="x", dtype="float32", shape=(1,))
    part = PartRecord(
        name="p", placement="device", role="backbone", executor="npu", precision="xint8",
        inputs=(spec,), outputs=(spec,), files={},
    )  # fmt: skip
    with pytest.raises(ToolMissing, match="CPUExecutionProvider"):
        NpuExecutor().open(part, tmp_path, {"require_device": "true"})
