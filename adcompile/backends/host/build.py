"""Compile generated parts with the system's C++ compiler, without CMake: tests, benchmarks, runs."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from adcompile.anomaly.statistics import FILE
from adcompile.backends.host.codegen.text import Generated
from adcompile.errors import InputError, ToolMissing

NATIVE = Path(__file__).parent / "native"
RUNTIME = (
    "threads.cpp",
    "part.cpp",
    "weights.cpp",
    "sha256.cpp",
    "c_api.cpp",
    "c_api_parts.cpp",
)
STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off")
OPTIMIZED = ("-O3",)


@dataclass(frozen=True)
class Toolchain:
    """A C++ compiler and its flags (besides the strict ones)."""

    compiler: str
    flags: tuple[str, ...] = OPTIMIZED
    jobs: int = 1


def find_compiler() -> str:
    """``$CXX``, else g++ or clang++. Raises ToolMissing."""
    for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++"):
        if name and shutil.which(name):
            return name
    raise ToolMissing("no C++ compiler", fix="install g++ or clang++, or set CXX")


def write_sources(generated: Generated, folder: Path, *, batch: int = 1) -> list[Path]:
    """Write the generated files below *folder*; returns what to compile.

    With *batch* > 1, that many parts are compiled as one unit (headers are parsed once).
    """
    for name, text in generated.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (folder / "weights.bin").write_bytes(generated.weights.file())
    if generated.statistics is not None:
        (folder / FILE).write_bytes(generated.statistics.data)
    parts = [n for n in generated.files if n.startswith("parts/")]
    others = [folder / n for n in generated.files if not n.startswith("parts/")]
    if batch <= 1:
        return [folder / n for n in parts] + others
    units: list[Path] = []
    for start in range(0, len(parts), batch):
        unit = folder / f"unit_{start // batch}.cpp"
        unit.write_text("".join(f'#include "{n}"\n' for n in parts[start : start + batch]))
        units.append(unit)
    return units + others


def compile_library(
    generated: Generated, folder: Path, toolchain: Toolchain, *, batch: int = 1
) -> Path:
    """Build ``libhost.so`` in *folder*. InputError carries the compiler's first message."""
    sources = write_sources(generated, folder, batch=batch)
    objects: list[Path] = []
    running: list[tuple[Path, subprocess.Popen[str]]] = []
    for source in [*sources, *(NATIVE / n for n in RUNTIME)]:
        target = folder / f"{source.stem}.o"
        objects.append(target)
        command = [toolchain.compiler, *STRICT, *toolchain.flags, "-fPIC", f"-I{NATIVE}"]
        command += [f"-I{folder}", "-c", str(source), "-o", str(target)]
        if len(running) >= toolchain.jobs:
            _finish(*running.pop(0))
        running.append((source, _start(command)))
    for item in running:
        _finish(*item)
    library = folder / "libhost.so"
    link = [toolchain.compiler, *toolchain.flags, "-shared", *map(str, objects)]
    _finish(library, _start([*link, "-o", str(library), "-pthread"]))
    return library


def _start(command: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def _finish(source: Path, process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode != 0:
        lines = [x for x in errors.splitlines() if "error" in x] or errors.splitlines()
        raise InputError(
            "generated C++ does not compile", where=source.name, why="\n".join(lines[:5])
        )
