"""Session options against the documented tables; cache identity; placement reports."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from adcompile.backends.npu import executor
from adcompile.backends.npu.executor import NpuExecutor
from adcompile.backends.npu.report import compare, read_report
from adcompile.backends.npu.resolve import read_session
from adcompile.backends.npu.session import (
    PROVIDER,
    RELEASES,
    Wishes,
    cache_identity,
    plan_session,
)
from adcompile.cli import main
from adcompile.compiler import BuildOptions, compile
from adcompile.errors import FormatError, ToolMissing, Unsupported, UsageError
from adcompile.manifest import PartRecord, TensorSpec
from adcompile.runtime.bundle import load
from adcompile.runtime.session import Session, open_session
from tests.compile.models import cnn

_OLD = {"config_file", "cacheDir", "cacheKey"}
_NEW = {"cache_dir", "cache_key"}
_MEMORY = {*_NEW, "enable_cache_file_io_in_mem"}
# release, chip, precision: provider options, environment (Ryzen AI documentation, page history)
TABLE = [
    ("1.2", "phx", "xint8", _OLD, {"XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME"}),
    ("1.2", "stx", "xint8", _OLD, {"XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME"}),
    ("1.3", "stx", "a8w8", _OLD, {"XLNX_VART_FIRMWARE", "XLNX_TARGET_NAME"}),
    ("1.3", "stx", "bf16", _OLD, set()),
    ("1.4", "phx", "xint8", {*_NEW, "xclbin"}, set()),
    ("1.4", "stx", "xint8", {*_NEW, "xclbin"}, set()),
    ("1.4", "krk", "bf16", {*_NEW, "config_file"}, set()),
    ("1.5", "hpt", "xint8", {*_MEMORY, "xclbin"}, {"XLNX_ONNX_EP_REPORT_FILE"}),
    ("1.5", "stx", "bf16", {*_NEW, "config_file"}, {"XLNX_ONNX_EP_REPORT_FILE"}),
    *(
        row
        for release in ("1.6", "1.7", "1.8")
        for row in (
            (
                release,
                "phx",
                "xint8",
                {*_MEMORY, "target", "xclbin"},
                {"XLNX_ONNX_EP_REPORT_FILE"},
            ),
            (release, "stx", "xint8", {*_MEMORY, "target"}, {"XLNX_ONNX_EP_REPORT_FILE"}),
            (release, "krk", "a16w8", {*_MEMORY, "target"}, {"XLNX_ONNX_EP_REPORT_FILE"}),
            (release, "stx", "bf16", {*_NEW, "config_file"}, {"XLNX_ONNX_EP_REPORT_FILE"}),
        )
    ),
]


@pytest.mark.parametrize(("release", "chip", "precision", "options", "environment"), TABLE)
def test_options_are_those_of_the_documented_tables(
    release: str, chip: str, precision: str, options: set[str], environment: set[str]
) -> None:
    """Every release, chip and kind of precision: exactly these options and variables."""
    plan = plan_session(chip, release, precision, "key")
    assert set(plan.provider_options) == options
    assert set(plan.environment) == environment


def test_ep_context_files_are_asked_for() -> None:
    """From 1.4 on; older releases have none."""
    plan = plan_session("stx", "1.4", "xint8", "key", Wishes(ep_context=True))
    assert plan.session_config["ep.context_enable"] == "1"
    with pytest.raises(UsageError, match="EP context"):
        plan_session("stx", "1.3", "xint8", "key", Wishes(ep_context=True))


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
    path.write_text(json.dumps({"provider": PROVIDER, "environment": {"LD_PRELOAD": "x.so"}}))
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


class FakeDevice:
    """Stands for an ONNX Runtime that has the provider: takes what a session is opened with, runs the
    model on the CPU, and writes a placement report as the provider does."""

    def __init__(self, report: dict[str, object] | None = None) -> None:
        self.report = report
        self.opened: list[dict[str, object]] = []

    def open(self, path: Path, providers: list[str], **how: object) -> Session:
        self.opened.append({"path": path, "providers": providers, **how})
        (settings, *_) = how["provider_options"]  # type: ignore[misc]
        if self.report is not None:
            folder = Path(settings["cache_dir"]) / settings["cache_key"]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "vitisai_ep_report.json").write_text(json.dumps(self.report))
        session = open_session(path)
        session.providers = tuple(providers)
        return session


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small bundle, and no trace of a cache or of an installation."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XLNX_ONNX_EP_REPORT_FILE", raising=False)
    options = BuildOptions(precision="xint8", golden_count=1, host_code=False, cache=False)
    return compile(cnn(), "npu:stx", tmp_path / "b", options).path


def fake(monkeypatch: pytest.MonkeyPatch, report: dict[str, object] | None = None) -> FakeDevice:
    device = FakeDevice(report)
    monkeypatch.setattr(
        executor, "available_providers", lambda: (PROVIDER, "CPUExecutionProvider")
    )
    monkeypatch.setattr(executor, "open_session", device.open)
    return device


def test_a_session_is_opened_as_planned(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options, cache key, providers; another driver or model gives another key."""
    device = fake(monkeypatch)
    keys = []
    for options in ({}, {"driver": "32.0"}, {"no_cpu_fallback": "true"}):
        with load(bundle, options=options) as opened:
            assert opened.simulated == ()
        last = device.opened[-1]
        (settings, *_) = last["provider_options"]  # type: ignore[misc]
        assert settings["target"] == "X2"
        keys.append(settings["cache_key"])
    assert len({*keys[:2]}) == 2
    assert device.opened[0]["providers"] == [PROVIDER, "CPUExecutionProvider"]
    assert device.opened[2]["providers"] == [PROVIDER]
    assert device.opened[2]["config"] == {"session.disable_cpu_ep_fallback": "1"}


def test_the_providers_report_stands_beside_the_plan(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was planned for the NPU and ran on the CPU is named, with what is known about it."""
    stats = [
        {"name": "all", "nodeNum": 9, "supportedOpType": ["::Conv", "::Add", "::MaxPool"]},
        {"name": "CPU", "nodeNum": 1, "supportedOpType": ["::Add"]},
        {"name": "NPU", "nodeNum": 8, "supportedOpType": ["::Conv", "::MaxPool"]},
    ]
    fake(monkeypatch, {"deviceStat": stats})
    assert main(["bench", str(bundle), "--runs", "1", "--warmup", "0", "--json"]) == 0
    (lines,) = json.loads(capsys.readouterr().out)["placements"].values()
    ran = {line["op"]: (line["planned"], line["ran"]) for line in lines}
    assert ran["Conv"] == (3, "NPU")
    assert ran["Add"] == (1, "CPU")
    assert ran["Relu"] == (3, "not in the report")
    with load(bundle) as opened:
        (where,) = [text for text in opened.where.values() if text.startswith("NPU")]
    assert "8 of 9 operators" in where
    assert "ran on CPU: Add" in where


STATS = {
    "kept": [{"name": "CPU", "nodeNum": 2, "supportedOpType": ["::QuantizeLinear"]},
             {"name": "NPU", "nodeNum": 9, "supportedOpType": ["::Conv", "::Add"]}],
    "moved": [{"name": "CPU", "nodeNum": 1, "supportedOpType": ["::Add"]},
              {"name": "NPU", "nodeNum": 8, "supportedOpType": ["::Conv"]}],
    "damaged": [{"name": "CPU"}],
}  # fmt: skip


@pytest.mark.parametrize(
    ("stats", "refusal"),
    [
        ("kept", ""),
        ("moved", "ran on CPU: Add"),
        ("damaged", "not a placement report"),
        ("", "left no report"),
    ],
)
def test_who_insists_on_the_plan(
    stats: str, refusal: str, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``as_planned`` refuses what ran elsewhere or is not known; without it the bundle opens."""
    fake(monkeypatch, {"deviceStat": STATS[stats]} if stats else None)
    with load(bundle) as opened:
        assert any(text.startswith("NPU") for text in opened.where.values())
    with load(bundle, options={"as_planned": "true"}) as opened:
        if not refusal:
            assert any("9 of 11 operators" in text for text in opened.where.values())
            return
        with pytest.raises(Unsupported) as refused:
            assert opened.where
    assert refusal in refused.value.why


def test_device_options_of_the_command_line(
    bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """They reach the provider; a name that does not exist is refused."""
    device = fake(monkeypatch)
    words = ["bench", str(bundle), "--runs", "1", "--warmup", "0", "--device-option"]
    assert main([*words, f"cache_dir={tmp_path / 'elsewhere'}"]) == 0
    (settings, *_) = device.opened[-1]["provider_options"]  # type: ignore[misc]
    assert settings["cache_dir"] == str(tmp_path / "elsewhere")
    assert main([*words, "cachedir=x"]) == 2
    assert "no option 'cachedir'" in capsys.readouterr().err


def test_no_fallback_needs_the_provider(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without the NPU, ``--no-cpu-fallback`` is a missing tool, not a silent simulation."""
    assert main(["bench", str(bundle), "--no-cpu-fallback"]) == 3
    assert PROVIDER in capsys.readouterr().err


def test_options_that_contradict_are_found_before_the_work(tmp_path: Path) -> None:
    """Unknown names and contradictions stop the build before anything is quantized or written."""
    base = BuildOptions(precision="xint8", golden_count=1, host_code=False, cache=False)
    wrong = [
        ("roi_polcy", "loop", "roi_policy"),
        ("xclbin", "my.xclbin", "must not name an xclbin"),
        ("opt_level", "9", "no such opt_level"),
        ("npu_target", "X3", "no such compiler target"),
    ]
    for name, value, words in wrong:
        with pytest.raises(UsageError, match=words):
            compile(cnn(), "npu:stx", tmp_path / "b", replace(base, backend_options={name: value}))
    floats = {"cpu_fallback": "false", "float_nodes": "stem"}
    with pytest.raises(UsageError, match="left in float"):
        compile(cnn(), "npu:stx", tmp_path / "b", replace(base, backend_options=floats))
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("target", "words"),
    [("npu:phx", "no float format"), ("npu:stx@1.2", "no float format"), ("npu:stx", "bfloat16")],
)
def test_what_becomes_of_a_float_part_is_said(target: str, words: str, tmp_path: Path) -> None:
    """Float32 is no format of any NPU: it becomes bfloat16, or is no work for the NPU at all."""
    options = BuildOptions(precision="fp32", golden_count=1, host_code=False, cache=False)
    result = compile(cnn(), target, tmp_path / "b", options)
    assert any(words in note for note in result.notes)
    (part,) = result.manifest.parts
    plan = json.loads((tmp_path / "b" / part.files["session"]).read_text())
    assert bool(plan["planned"]) == (target == "npu:stx")
