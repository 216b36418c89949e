"""Compilers for the proof of the generated C++: the core is compiled once each, bundles are linked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adcompile.backends.host.build import NATIVE, STRICT
from adcompile.backends.host.emit import core_sources

SELFTEST = "selftest_main.cpp"
PROGRAM = "app_main.cpp"
_APP = ("app.cpp", "app_anomaly.cpp", "app_detection.cpp", "draw.cpp", "draw_plain.cpp")
_PICTURES = ("image_png.cpp", "image_jpeg.cpp")


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


_CHECKED = ("-g1", "-fno-sanitize-recover=all")
_BOUNDS = (*_CHECKED, "-fsanitize=address,undefined")
_RACES = (*_CHECKED, "-fsanitize=thread")
_QEMU = ("qemu-aarch64",)
TOOLCHAINS = {
    "gcc-asan-ubsan": Toolchain("g++", ("-O0", *_BOUNDS)),
    "arm64": Toolchain("aarch64-linux-gnu-g++", ("-O0", "-static"), _QEMU, pictures=False),
    "gcc": Toolchain("g++", ("-O3",)),
    "gcc-tsan": Toolchain("g++", ("-O1", *_RACES), threads=2),
    "clang": Toolchain("clang++", ("-O3",)),
    "clang-asan-ubsan": Toolchain("clang++", ("-O1", *_BOUNDS)),
    "clang-tsan": Toolchain("clang++", ("-O1", *_RACES), threads=2),
    "arm64-fast": Toolchain("aarch64-linux-gnu-g++", ("-O3", "-static"), _QEMU, pictures=False),
}


class Core:
    """The kernel library and runtime, compiled by one toolchain into *folder*."""

    def __init__(self, toolchain: Toolchain, folder: Path, *, program: bool = True) -> None:
        """Without *program*, only self-tests can be linked."""
        self.toolchain = toolchain
        sources = [*core_sources(), *(_PICTURES if toolchain.pictures else ())]
        mains = [SELFTEST, PROGRAM] if program else [SELFTEST]
        sources += [*(_APP if program else ()), *mains]
        made = dict(
            zip(sources, self._compile([NATIVE / n for n in sources], folder), strict=True)
        )
        self._mains = {name: made.pop(name) for name in mains}
        self._objects = made
        self._parts: dict[Path, list[Path]] = {}  # generated objects of each bundle

    def _compile(
        self, sources: Sequence[Path], folder: Path, more: Sequence[str] = ()
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        flags = [*STRICT, *self.toolchain.flags, f"-I{NATIVE}", *more]
        if self.toolchain.pictures:
            flags += ["-DADC_WITH_PNG", "-DADC_WITH_JPEG"]

        def one(source: Path) -> Path:
            target = folder / f"{source.stem}.o"
            _run([self.toolchain.compiler, *flags, "-c", str(source), "-o", str(target)])
            return target

        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(one, sources))

    def link(
        self,
        bundle: Path,
        out: Path,
        main: str | Path = PROGRAM,
        instead: Mapping[str, Sequence[str]] | None = None,
        libraries: Sequence[str] = (),
        replaced: Mapping[str, Path] | None = None,
    ) -> Path:
        """The program of one bundle: its generated sources with the core.

        *main* is one of ours, or a source file of a test. *instead* compiles files of the core
        again (or engines, which it lacks), with further flags each; *replaced* are other sources for
        them. *libraries* are linked as well.
        """
        out.mkdir(parents=True, exist_ok=True)
        sources = sorted((bundle / "host" / "src").rglob("*.cpp"))
        core = dict(self._objects)
        for name, flags in (instead or {}).items():
            core[name] = self._compile([NATIVE / name], out, flags)[0]
        for name, source in (replaced or {}).items():
            core[name] = self._compile([source], out / "replaced")[0]
        entry = self._mains[main] if isinstance(main, str) else self._compile([main], out)[0]
        if bundle not in self._parts:
            self._parts[bundle] = self._compile(sources, out)
        objects = [*self._parts[bundle], *core.values(), entry]
        program = out / Path(main).stem
        pictures = ["-lpng", "-ljpeg"] if self.toolchain.pictures else []
        command = [self.toolchain.compiler, *self.toolchain.flags, "-pthread"]
        _run([*command, *map(str, objects), *pictures, *libraries, "-o", str(program)])
        return program

    def selftest(self, bundle: Path, out: Path) -> str:
        """Build and run a bundle's self-test; its report. Fails when it does."""
        program = self.link(bundle, out, SELFTEST)
        threads = str(self.toolchain.threads)
        done = self.run(program, str(bundle), "--threads", threads, cwd=out)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout

    def run(self, program: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run a linked program; its exit code is the caller's business."""
        command = [*self.toolchain.runner, str(program), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
