"""Compiles the kernels of search and coreset with small test programs: sanitizers, other machines."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from adcompile.native import SOURCES

STRICT = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-pthread")
ARM_ROOT = "/usr/aarch64-linux-gnu"
X86 = ("portable", "avx2", "avx512", "avx512vnni")


@dataclass(frozen=True)
class Build:
    """How to compile and start a test program, and the instruction sets to try."""

    compiler: str
    flags: tuple[str, ...]
    paths: tuple[str, ...]
    launcher: tuple[str, ...] = ()


BUILDS = {
    "gcc-address-undefined": Build(
        "g++",
        ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
        X86,
    ),
    "gcc-thread": Build("g++", ("-O1", "-fsanitize=thread"), ("auto",)),
    "clang": Build("clang++", ("-O2",), X86),
    "aarch64": Build(
        "aarch64-linux-gnu-g++",
        ("-O2", "-static"),
        ("portable", "neon", "neondot"),
        ("qemu-aarch64", "-L", ARM_ROOT),
    ),
}
SLOW = ("gcc-thread", "clang")
PARAMETERS = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name for name in BUILDS
]


class Program:
    """A compiled test program."""

    def __init__(self, build: Build, path: Path) -> None:
        self.build = build
        self._path = path

    def run(self, *arguments: object) -> subprocess.CompletedProcess[bytes]:
        """Start it; sanitizer reports make the return code non-zero."""
        command = [*self.build.launcher, str(self._path), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, check=False, timeout=300)

    def run_paths(self, *arguments: object) -> dict[str, bytes]:
        """What it writes for each instruction set this machine has; at least one."""
        answers: dict[str, bytes] = {}
        for path in self.build.paths:
            done = self.run(*arguments, path)
            if b"not available here" in done.stderr:
                continue
            assert done.returncode == 0, done.stderr.decode()
            answers[path] = done.stdout
        assert answers
        return answers


class Compiler:
    """Compiles each source at most once per build; warnings are errors."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def program(self, name: str, driver: Path, sources: tuple[str, ...]) -> Program:
        """*driver* with kernel *sources* for BUILDS[name]; skips where its tools are missing."""
        build = BUILDS[name]
        for tool in (build.compiler, *build.launcher[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"{tool} is not installed")
        folder = self._folder / name
        folder.mkdir(exist_ok=True)

        def compile_one(source: Path) -> str:
            made = folder / f"{source.stem}.o"
            if not made.exists():
                _run(build, f"-I{SOURCES}", "-c", str(source), "-o", str(made))
            return str(made)

        with ThreadPoolExecutor(2) as pool:
            objects = list(pool.map(compile_one, [driver, *(SOURCES / s for s in sources)]))
        target = folder / driver.stem.removesuffix("_main")
        _run(build, *objects, "-o", str(target))
        return Program(build, target)


def _run(build: Build, *arguments: str) -> None:
    command = [build.compiler, *STRICT, *build.flags, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
