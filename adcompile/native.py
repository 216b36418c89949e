"""Our own C++ kernels, compiled once per machine with whatever compiler is there.

``load`` compiles a list of source files that ship with the package into a shared library in the
user's cache folder and opens it. The library's name is a hash of sources, compiler and flags, so
an upgrade never meets an old build; it is written aside and renamed, so processes that compile at
the same time do not disturb each other. Where there is no compiler, or it fails, ``load`` gives
None and the reason; every caller has a NumPy implementation with the same results.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from adcompile.cache import default_root

SOURCES = Path(__file__).parent / "backends" / "host" / "native"
"""Where the shipped C++ files are."""

FLAGS = ("-std=c++17", "-O3", "-fPIC", "-pthread", "-fvisibility=hidden")
COMPILERS = ("g++", "clang++", "c++")
TIMEOUT_S = 600


@dataclass(frozen=True)
class Loaded:
    """An opened library, or why there is none."""

    library: ctypes.CDLL | None
    reason: str = ""


def find_compiler() -> str | None:
    """``$CXX``, else the first of g++, clang++, c++ on the path."""
    for name in (os.environ.get("CXX", ""), *COMPILERS):
        found = shutil.which(name) if name else None
        if found:
            return found
    return None


@functools.lru_cache(maxsize=16)
def load(name: str, sources: tuple[str, ...], headers: tuple[str, ...] = ()) -> Loaded:
    """The library *name* made of *sources* (file names below ``SOURCES``); None with a reason.

    *headers* are hashed with the sources. The answer is remembered for the life of the process; that
    there is none is said once, as a RuntimeWarning: NumPy takes over, which can be 100 times slower.
    """
    loaded = load_from(name, sources, headers, default_root() / "native", find_compiler())
    if loaded.library is None:
        warnings.warn(
            f"NumPy takes over from the C++ kernels for {name}, slowly: {loaded.reason}",
            RuntimeWarning,
            stacklevel=2,
        )
    return loaded


def load_from(
    name: str, sources: Sequence[str], headers: Sequence[str], folder: Path, compiler: str | None
) -> Loaded:
    """As ``load``, with an explicit cache *folder* and *compiler*, and nothing remembered."""
    if compiler is None:
        return Loaded(None, "no C++ compiler: install g++ or clang++, or set CXX")
    try:
        key = _key(compiler, [*sources, *headers])
        target = folder / f"{name}-{key}.so"
        if not target.is_file():
            _private(folder)
            _build(compiler, sources, target)
        return Loaded(ctypes.CDLL(str(target)))
    except (OSError, subprocess.SubprocessError) as error:
        return Loaded(None, _reason(error))


def _reason(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        lines = str(error.stderr).strip().splitlines()
        return f"the C++ compiler failed: {lines[0] if lines else 'no message'}"
    return f"no native library: {error}"


def _key(compiler: str, files: Sequence[str]) -> str:
    done = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    digest = hashlib.sha256()
    for text in (done.stdout, platform.machine(), *FLAGS):
        digest.update(text.encode() + b"\0")
    for file in files:
        digest.update((SOURCES / file).read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def _private(folder: Path) -> None:
    """Make the folder ours alone: a library that others can write must not be loaded."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    status = folder.stat()
    if hasattr(os, "getuid") and (status.st_uid != os.getuid() or status.st_mode & 0o022):
        raise PermissionError(f"cache folder {folder.name} is writable by other users")


def _build(compiler: str, sources: Sequence[str], target: Path) -> None:
    """Compile each source, link, and rename into place."""
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        objects = [Path(scratch) / f"{i}.o" for i in range(len(sources))]

        def compile_one(job: tuple[str, Path]) -> None:
            source, made = job
            _run([compiler, *FLAGS, "-c", str(SOURCES / source), "-o", str(made)])

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            list(pool.map(compile_one, zip(sources, objects, strict=True)))
        library = Path(scratch) / "library.so"
        _run([compiler, "-shared", "-pthread", "-o", str(library), *map(str, objects)])
        library.replace(target)


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
