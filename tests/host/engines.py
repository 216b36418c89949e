"""The engines' test program: all of them, on fakes of the vendor runtimes."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from adcompile.backends.host.build import NATIVE, STRICT, find_compiler

FAKE = Path(__file__).parent / "fake_vendor"
ENGINES = ("engine_tensorrt", "engine_drpai", "engine_onnxruntime")
SOURCES = (
    *ENGINES,
    "engine",
    "engine_recorded",
    "manifest",
    "placement_report",
    "provider_session",
    "rows",
    "mosaic",
    "mosaic_layout",
    "mosaic_stage",
    "threads",
    "npy",
    "json",
    "sha256",
    "part",
)
_SANITIZED = ("-O0", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# the DRP-AI driver is a device file
_WRAPPED = ("-Wl,--wrap=open", "-Wl,--wrap=close", "-Wl,--wrap=ioctl")


class Driver:
    """The program in *folder*, with sanitizers; its engines can be replaced. Whoever comes first
    compiles it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self.path = folder / "driver"
        files = [*sorted(FAKE.glob("*.cpp")), *(NATIVE / f"{n}.cpp" for n in SOURCES)]
        self._objects = {f.stem: folder / f"{f.stem}.o" for f in files}
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self.path.exists():
                with ThreadPoolExecutor(2) as pool:
                    list(pool.map(self._compile, files))
                self._link("driver", {})

    def _compile(self, source: Path) -> Path:
        out = self._folder / f"{source.stem}.o"
        macros = [f"-DADC_WITH_{n}" for n in ("TENSORRT", "DRPAI", "ONNXRUNTIME")]
        flags = [*STRICT, *_SANITIZED, *macros, f"-I{NATIVE}", f"-I{FAKE}"]
        command = [find_compiler(), *flags, "-c", str(source), "-o", str(out)]
        subprocess.run(command, check=True)
        return out

    def _link(self, name: str, instead: Mapping[str, Path]) -> Path:
        objects = {**self._objects, **instead}
        out = self._folder / name
        flags = [*_SANITIZED, *_WRAPPED, "-pthread"]
        command = [find_compiler(), *flags, *map(str, objects.values()), "-o", str(out)]
        subprocess.run(command, check=True)
        return out

    def sabotaged(self, engine: str, right: str, wrong: str) -> Path:
        """The program with a slip in one engine."""
        source = (NATIVE / f"{engine}.cpp").read_text()
        assert source.count(right) == 1, right
        # Workers of a test run share the folder: a name for each slip.
        name = f"wrong_{engine}_{hashlib.sha256(right.encode()).hexdigest()[:8]}"
        changed = self._folder / f"{name}.cpp"
        changed.write_text(source.replace(right, wrong))
        return self._link(name, {engine: self._compile(changed)})


def run(
    program: Path,
    kind: str,
    bundle: Path,
    rows: int = 2,
    options: Mapping[str, str] | None = None,
    **variables: str,
) -> tuple[int, list[str]]:
    """Exit code and output lines of one run; *options* are those of the engine.

    Sessions opened in this process left the provider's variables in its environment: not passed on.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("XLNX_")}
    given = [f"{name}={value}" for name, value in (options or {}).items()]
    done = subprocess.run(
        [str(program), kind, str(bundle), str(rows), *given],
        capture_output=True,
        text=True,
        env={**own, **variables},
        timeout=60,
    )
    return done.returncode, done.stdout.splitlines()


def write_bundle(folder: Path) -> Path:
    """The files of a part: text models for the fakes, and session options."""
    place = folder / "parts" / "net"
    place.mkdir(parents=True)
    (folder / "net.plan").write_text("in x 0 -1 3\nout y 1 -1 3\nout extra 0 -1 3\n")
    (folder / "net.onnx").write_text("in x 1 -1 3\nout y 1 -1 3\n")
    options = {"cache_dir": "cache", "cache_key": "net"}
    session = {"provider": "VitisAIExecutionProvider", "provider_options": options}
    (place / "session.json").write_text(json.dumps(session))
    (folder / "manifest.json").write_text('{"files": {}}')
    return folder
