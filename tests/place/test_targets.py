"""Targets as data: names, versions, near misses, and what the rows hold."""

from __future__ import annotations

import subprocess
import sys

import pytest

from adcompile.errors import UsageError
from adcompile.place.targets import TargetRow, resolve_target, target_rows
from adcompile.target import PRECISIONS, check_precision, finer_precision

DEFAULTS = {"trt": "trt:rtx-ada", "npu": "npu:stx", "drpai": "drpai:v2h", "cpu": "cpu:host"}
REQUIRED = """trt:rtx-ada trt:rtx-ampere trt:rtx-blackwell trt:orin-nano trt:orin-nx trt:agx-orin
trt:xavier-nx trt:agx-xavier npu:phx npu:hpt npu:stx npu:krk drpai:v2h drpai:v2n drpai:v2l
drpai:v2m"""


@pytest.mark.parametrize(("family", "name"), DEFAULTS.items())
def test_a_bare_family_is_its_default(family: str, name: str) -> None:
    """The default is one of the family's own rows."""
    assert resolve_target(family).name == name
    assert [r.target.name for r in target_rows(family) if r.is_default] == [name]


@pytest.mark.parametrize("name", REQUIRED.split())
def test_promised_targets_exist(name: str) -> None:
    """Chip, toolchain, precisions and a source."""
    target = resolve_target(name)
    assert target.name.partition("@")[0] == name
    assert target.toolchain
    assert target.precisions
    assert target.source


@pytest.mark.parametrize("row", target_rows(), ids=lambda row: row.target.name)
def test_every_target_is_consistent(row: TargetRow) -> None:
    """Canonical names resolve to themselves, aliases to their chip, fp32 is always accepted."""
    target = row.target
    assert resolve_target(target.name) == target
    assert all(resolve_target(f"{target.family}:{alias}") == target for alias in row.aliases)
    assert "fp32" in target.precisions
    assert set(target.precisions) <= set(PRECISIONS)
    assert len(set(target.precisions)) == len(target.precisions)
    assert target.facts["roi_policy"] in {"auto", "loop", "profile", "whole"}


def test_aliases_and_spelling() -> None:
    """Case, underscores and the vendor's own names are understood."""
    assert resolve_target("trt:Orin_NX@8.6").name == "trt:orin-nx@8.6"
    assert resolve_target("npu:strix") == resolve_target("npu:stx")
    assert resolve_target("drpai:rzv2n").name == "drpai:v2n"
    assert resolve_target("trt:xavier").name == "trt:agx-xavier@8.5"


def test_versions_change_the_limits() -> None:
    """The same board with an older TensorRT reads fewer opsets."""
    old, new = resolve_target("trt:orin-nx@8.5"), resolve_target("trt:orin-nx@10.16")
    assert old.limits["opset_max"] == 17 < new.limits["opset_max"]
    assert old.facts["jetpack"].startswith("5.1")
    assert resolve_target("npu:stx").name == "npu:stx"
    assert resolve_target("npu:stx@1.4").name == "npu:stx@1.4"
    assert "bf16" not in resolve_target("npu:stx@1.2").precisions
    assert "bf16" not in resolve_target("npu:phx").precisions


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("tr", "trt"),
        ("trt:orinnx", "trt:orin-nx"),
        ("npu:stz", "npu:stx"),
        ("npu:stx@9.9", "@1.8"),
        ("drpai:v3h", "drpai:v2h"),
        ("", "known"),
        ("tensorflow", "known"),
        ("jetson", "trt:orin-nano, trt:orin-nx"),
        ("orin-nx", "trt:orin-nx?"),
        ("Strix", "npu:stx"),
        ("ryzen-ai", "npu:stx"),
        ("RZV2H", "drpai:v2h"),
        ("rz/v2h", "drpai:v2h"),
        ("jetson_orin", "trt:orin-nx"),
        ("trt:orin-nx@", None),
    ],
)
def test_near_names_are_suggested(text: str, hint: str | None) -> None:
    """A wrong name is an error that shows the nearest right ones."""
    if hint is None:
        assert resolve_target(text).name == "trt:orin-nx@10.3"
        return
    with pytest.raises(UsageError) as caught:
        resolve_target(text)
    assert hint in caught.value.fix


def test_precisions_are_checked() -> None:
    """The first is the default, an unknown one names those that exist."""
    npu = resolve_target("npu")
    assert check_precision(npu, None) == "xint8"
    assert check_precision(npu, "a16w8") == "a16w8"
    with pytest.raises(UsageError, match="int4") as caught:
        check_precision(npu, "int4")
    assert "xint8" in caught.value.fix


def test_the_next_finer_precision() -> None:
    """One step up the target's own ladder; full float runs on the CPU and is no step."""
    npu, trt = resolve_target("npu:stx"), resolve_target("trt")
    assert [finer_precision(npu, p) for p in ("xint8", "a8w8", "bf16")] == ["a8w8", "a16w8", ""]
    assert [finer_precision(trt, p) for p in ("int8", "fp16", "fp32")] == ["fp16", "", ""]


def test_listing_targets_imports_no_backend() -> None:
    """Targets are data: neither the IR nor a vendor package is loaded to list them."""
    code = (
        "from adcompile.place.targets import target_rows; import sys; target_rows();"
        "print([m for m in sys.modules if m in ('onnx_ir', 'onnx', 'onnxruntime', 'numpy') "
        "or m.endswith('.backend')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
