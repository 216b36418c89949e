"""``adcompile doctor``: what this machine can quantize, build, simulate and run, per target family.

Nothing is started and no vendor package is imported: programs are looked up in PATH, packages by
their metadata, devices by their files, a GPU by its driver.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from adcompile.backends.trt.driver import RTX_CAPABILITIES, compute_capability, runs_rtx
from adcompile.cli import console
from adcompile.errors import ToolMissing, UsageError

ABILITIES = ("quantize", "build", "simulate", "run")


@dataclass(frozen=True, slots=True)
class Probe:
    """A tool: how it is found, and how to get it."""

    name: str
    find: Callable[[], str]
    get: str


def package(module: str, distribution: str, get: str) -> Probe:
    """A Python package, looked up without importing it."""

    def find() -> str:
        if importlib.util.find_spec(module) is None:
            return ""
        try:
            return importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            return "installed"

    return Probe(distribution, find, get)


def program(name: str, get: str, *places: str) -> Probe:
    """A program in PATH or in one of the vendor's usual places."""

    def find() -> str:
        found = shutil.which(name)
        candidates = [Path(place) / name for place in places]
        return found or next((str(p) for p in candidates if p.is_file()), "")

    return Probe(name, find, get)


def device(name: str, path: str, get: str) -> Probe:
    """A device file."""
    return Probe(name, lambda: path if Path(path).exists() else "", get)


def variables(name: str, needed: tuple[str, ...], get: str) -> Probe:
    """Environment variables that a vendor's scripts want; all of them."""

    def find() -> str:
        return ", ".join(needed) if all(os.environ.get(v) for v in needed) else ""

    return Probe(name, find, get)


def _provider() -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return ""
    import onnxruntime  # type: ignore[import-untyped]

    name = "VitisAIExecutionProvider"
    found: list[str] = onnxruntime.get_available_providers()  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportAttributeAccessIssue]
    return name if name in found else ""


def _gpu() -> str:
    found = compute_capability()
    if found:
        return f"compute capability {found}"
    return "/dev/nvidiactl" if Path("/dev/nvidiactl").exists() else ""


ORT = package("onnxruntime", "onnxruntime", "pip install onnxruntime")
QUARK = package("quark", "amd-quark", 'pip install "adcompile[npu]"')
VAI_Q = package("vai_q_onnx", "vai-q-onnx", "part of Ryzen AI 1.2 and older")
VITIS = Probe("VitisAI provider", _provider, "install Ryzen AI on the target machine")
RTX = package("tensorrt_rtx", "tensorrt-rtx", 'pip install "adcompile[trt]"')
TRT = package("tensorrt", "tensorrt", "JetPack, or pip install tensorrt")
TRTEXEC = program("trtexec", "part of TensorRT and JetPack", "/usr/src/tensorrt/bin")
NVIDIA = Probe("NVIDIA GPU", _gpu, "install the NVIDIA driver")
RTX_GPU = Probe(
    "GPU for TensorRT-RTX",
    lambda: gpu if runs_rtx(gpu := compute_capability()) else "",
    "a GPU of compute capability " + ", ".join(sorted(RTX_CAPABILITIES, key=float)),
)
JETSON = device("Jetson board", "/etc/nv_tegra_release", "run on the Jetson")
DRP_SDK = variables(
    "DRP-AI TVM environment",
    ("TVM_ROOT", "SDK", "TRANSLATOR", "QUANTIZER", "PRODUCT"),
    "install rzv_drp-ai_tvm with the RZ/V SDK and set these variables",
)
DRP_DEVICE = device("DRP-AI device", "/dev/drpai0", "run on the board")
GXX = program("g++", "apt install g++")
CMAKE = program("cmake", "apt install cmake")
CROSS = program("aarch64-linux-gnu-g++", "apt install g++-aarch64-linux-gnu")
QEMU = program("qemu-aarch64", "apt install qemu-user")

# family -> ability -> alternatives; each alternative is a set of probes that are all needed
NEEDS: Mapping[str, Mapping[str, tuple[tuple[Probe, ...], ...]]] = {
    "trt": {
        "quantize": ((ORT,),),
        "build": ((RTX,), (TRT,), (TRTEXEC,)),
        "simulate": ((ORT,),),
        "run": ((RTX, RTX_GPU), (TRT, NVIDIA), (TRT, JETSON)),
    },
    "npu": {
        "quantize": ((QUARK,), (VAI_Q,), (ORT,)),
        "build": ((VITIS,),),
        "simulate": ((ORT,),),
        "run": ((VITIS,),),
    },
    "drpai": {
        "quantize": ((ORT,),),
        "build": ((DRP_SDK,),),
        "simulate": ((ORT,),),
        "run": ((DRP_DEVICE,),),
    },
    "host": {
        "build": ((GXX, CMAKE),),
        "simulate": ((CROSS, QEMU),),
        "run": ((ORT,),),
    },
}


def command(
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="only this family: trt, npu, drpai, host")
    ] = None,
    require: Annotated[
        list[str] | None,
        typer.Option(help=f"exit 3 unless possible here: {', '.join(ABILITIES)} (repeat)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print the result as JSON")] = False,
) -> None:
    """Say what this machine can do for each target, and how to get what is missing."""
    families = _families(target)
    wanted = _wanted(require or [])
    tools = {probe.name: probe.find() for probe in _probes(families)}
    report = {f: {a: _how(NEEDS[f][a], tools) for a in NEEDS[f]} for f in families}
    if as_json:
        console.emit_json({"python": _python(), "tools": tools, "abilities": report})
    else:
        _show(families, tools, report)
    missing = [(f, a) for f in families for a in wanted if not report[f].get(a)]
    if missing:
        family, ability = missing[0]
        options = NEEDS[family].get(ability, ())
        raise ToolMissing(
            f"this machine cannot {ability} for {family}",
            fix=" or ".join(p.get for option in options for p in option if not tools[p.name]),
        )


def _families(target: str | None) -> list[str]:
    if target is None:
        return list(NEEDS)
    family = target.partition(":")[0].partition("@")[0]
    if family not in NEEDS:
        raise UsageError(f"unknown family {family!r}", fix="known: " + ", ".join(NEEDS))
    return [family]


def _wanted(require: list[str]) -> list[str]:
    wrong = [r for r in require if r not in ABILITIES]
    if wrong:
        raise UsageError(f"--require {wrong[0]!r}", fix="one of: " + ", ".join(ABILITIES))
    return require


def _probes(families: list[str]) -> list[Probe]:
    found: dict[str, Probe] = {}
    for family in families:
        for alternatives in NEEDS[family].values():
            found |= {p.name: p for option in alternatives for p in option}
    return list(found.values())


def _how(alternatives: tuple[tuple[Probe, ...], ...], tools: Mapping[str, str]) -> str:
    """What would be used: the first alternative of which everything is here, else ""."""
    for option in alternatives:
        if all(tools[p.name] for p in option):
            return " and ".join(p.name for p in option)
    return ""


def _python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def _show(
    families: list[str], tools: Mapping[str, str], report: Mapping[str, Mapping[str, str]]
) -> None:
    console.table(
        "What this machine can do (Python " + _python() + ")",
        ("target", *ABILITIES),
        [(f, *(_cell(report[f], NEEDS[f], ability) for ability in ABILITIES)) for f in families],
    )
    rows = [
        (p.name, tools[p.name] or "missing", "" if tools[p.name] else p.get)
        for p in _probes(families)
    ]
    console.table("Tools", ("tool", "found", "how to get it"), rows)


def _cell(
    report: Mapping[str, str], needs: Mapping[str, tuple[tuple[Probe, ...], ...]], ability: str
) -> str:
    if ability not in needs:
        return "-"
    return f"yes: {report[ability]}" if report[ability] else "no"
