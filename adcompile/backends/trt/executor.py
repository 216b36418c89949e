"""Runs a TensorRT part: the plan on a GPU where both are, else the typed ONNX on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar

from adcompile.backends.simulation import PartSessions, simulate
from adcompile.backends.trt.device import open_cuda
from adcompile.backends.trt.driver import compute_capability, runs_rtx
from adcompile.backends.trt.engine import Engine
from adcompile.backends.trt.plan_header import check_version, read_header
from adcompile.errors import ToolMissing, UsageError
from adcompile.manifest import PartRecord, check_bundle_path
from adcompile.runtime.executor import Array

_PACKAGES = {"TensorRT-RTX": "tensorrt_rtx", "TensorRT": "tensorrt"}
_MODES = ("auto", "gpu", "cpu")


class TrtExecutor:
    """Options: ``device`` (auto, gpu, cpu), ``require_device``, ``threads``."""

    family: ClassVar[str] = "trt"

    def __init__(self) -> None:
        self.simulated = True
        self.where = "not opened"
        self._sessions: PartSessions | None = None
        self._engine: Engine | None = None

    def open(self, part: PartRecord, bundle: Path, options: Mapping[str, str]) -> None:
        """Open the plan, or the simulation. Raises ToolMissing when the GPU is required."""
        mode = options.get("device", "auto")
        if mode not in _MODES:
            raise UsageError(f"unknown device {mode!r}", fix=f"one of {', '.join(_MODES)}")
        required = options.get("require_device") == "true" or mode == "gpu"
        reason = "the simulation was asked for"
        if mode != "cpu":
            reason = self._try_device(part, bundle)
            if not reason:
                return
            if required:
                raise ToolMissing(
                    "the part cannot run on a GPU here", where=f"part {part.name!r}", why=reason
                )
        self._sessions = simulate(part, bundle, options)
        self.simulated = True
        self.where = f"ONNX Runtime CPU, simulating trt ({part.precision}): {reason}"

    def _try_device(self, part: PartRecord, bundle: Path) -> str:
        """Open the engine; returns why that is impossible, "" when it is open."""
        name = part.files.get("plan")
        if name is None or not (path := bundle / check_bundle_path(name)).is_file():
            return "no plan was built yet"
        header = read_header(path)
        package = _PACKAGES.get(header.family, "")
        if not package or importlib.util.find_spec(package) is None:
            return f"{package or header.family} is not installed"
        capability = compute_capability()
        if capability and package == "tensorrt_rtx" and not runs_rtx(capability):
            return f"{header.family} does not run on a GPU of compute capability {capability}"
        try:
            trt = importlib.import_module(package)
        except (ImportError, OSError, RuntimeError) as error:
            return f"{package} is installed but does not load: {error}"
        try:
            cuda = open_cuda()
            with ExitStack() as failed:
                failed.callback(cuda.close)
                check_version(header, str(trt.__version__), path.name)
                self._engine = Engine(trt, cuda, path.read_bytes(), part)
                failed.pop_all()  # the engine closes it
        except ToolMissing as missing:
            return f"{missing.what}, {missing.why}"
        self.simulated = False
        self.where = f"GPU through {header.family} {trt.__version__}"
        return ""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once."""
        if self._engine is not None:
            return self._engine.run(feeds)
        if self._sessions is None:
            raise UsageError("executor is not open")
        return self._sessions.run(feeds)

    def close(self) -> None:
        """Free the engine, its memory, or the session."""
        if self._engine is not None:
            self._engine.close()
        self._engine = None
        self._sessions = None
