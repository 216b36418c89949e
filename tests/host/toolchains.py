"""Compilers for the proof of the generated C++: the core is compiled once each, bundles are linked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adcompile.backends.host.build import NATIVE, STRICT
from adcompile.backends.host.emit import core_sources

SELFTEST = ("selftest_main.cpp",)
PROGRAM = (
    "app_main.cpp",
    "app.cpp",
    "app_anomaly.cpp",
    "app_detection.cpp",
    "draw.cpp",
    "draw_plain.cpp",
)
PICTURES = ("image_png.cpp", "image_jpeg.cpp")


@dataclass(frozen=True)
class Toolchain:
    """A compiler with its flags, and what runs its programs."""

    compiler: str
    flags: tuple[str, ...]
    runner: tuple[str, ...] = ()
    threads: int = 1
    pictures: bool = True  # the picture libraries are there

    @property
    def missing(self) -> str:
        """A tool that this machine lacks, else nothing."""
        tools = (self.compiler, *self.runner[:1])
        return next((t for t in tools if shutil.which(t) is None), "")


_CHECKED = ("-O1", "-g1", "-fno-sanitize-recover=all")
TOOLCHAINS = {
    "gcc": Toolchain("g++", ("-O2",)),
    "gcc-fast": Toolchain("g++", ("-O0",)),
    "gcc-asan-ubsan": Toolchain("g++", (*_CHECKED, "-fsanitize=address,undefined")),
    "gcc-tsan": Toolchain("g++", (*_CHECKED, "-fsanitize=thread"), threads=2),
    "clang": Toolchain("clang++", ("-O2",)),
    "clang-asan-ubsan": Toolchain("clang++", (*_CHECKED, "-fsanitize=address,undefined")),
    "clang-tsan": Toolchain("clang++", (*_CHECKED, "-fsanitize=thread"), threads=2),
    "arm64": Toolchain(
        "aarch64-linux-gnu-g++", ("-O0", "-static"), runner=("qemu-aarch64",), pictures=False
    ),
    "arm64-fast": Toolchain(
        "aarch64-linux-gnu-g++", ("-O2", "-static"), runner=("qemu-aarch64",), pictures=False
    ),
}


class Core:
    """The kernel library and runtime, compiled by one toolchain into *folder*."""

    def __init__(self, toolchain: Toolchain, folder: Path, program: Sequence[str]) -> None:
        self.toolchain = toolchain
        sources = [*core_sources(), *program, *(PICTURES if toolchain.pictures else ())]
        self._objects = self._compile([NATIVE / n for n in sources], folder)

    def _compile(self, sources: Sequence[Path], folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        flags = [*STRICT, *self.toolchain.flags, f"-I{NATIVE}"]
        if self.toolchain.pictures:
            flags += ["-DADC_WITH_PNG", "-DADC_WITH_JPEG"]

        def one(source: Path) -> Path:
            target = folder / f"{source.stem}.o"
            _run([self.toolchain.compiler, *flags, "-c", str(source), "-o", str(target)])
            return target

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, sources))

    def link(self, bundle: Path, out: Path) -> Path:
        """The program of one bundle: its generated sources with the core."""
        sources = sorted((bundle / "host" / "src").rglob("*.cpp"))
        objects = [*self._compile(sources, out), *self._objects]
        program = out / "program"
        libraries = ["-lpng", "-ljpeg"] if self.toolchain.pictures else []
        flags = [*self.toolchain.flags, "-pthread"]
        names = [str(o) for o in objects]
        _run([self.toolchain.compiler, *flags, *names, *libraries, "-o", str(program)])
        return program

    def run(self, program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a linked program; its exit code is the caller's business."""
        command = [*self.toolchain.runner, str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
