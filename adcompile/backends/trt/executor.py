"""Runs a TensorRT part: the plan on a GPU where both are, else the typed ONNX on the CPU."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from adcompile.backends.simulation import PartSessions, simulate
from adcompile.backends.trt.device import DEVICE_TO_HOST, HOST_TO_DEVICE, Cuda, open_cuda
from adcompile.backends.trt.plan_header import check_version, read_header
from adcompile.errors import FormatError, InputError, ToolMissing, UsageError
from adcompile.manifest import PartRecord, check_bundle_path
from adcompile.runtime.executor import Array

if TYPE_CHECKING:
    from typing import Any

_PACKAGES = {"TensorRT-RTX": "tensorrt_rtx", "TensorRT": "tensorrt"}
_MODES = ("auto", "gpu", "cpu")


class TrtExecutor:
    """Options: ``device`` (auto, gpu, cpu), ``require_device``, ``threads``."""

    family: ClassVar[str] = "trt"

    def __init__(self) -> None:
        self.simulated = True
        self.where = "not opened"
        self._sessions: PartSessions | None = None
        self._engine: _Engine | None = None

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
        cuda = open_cuda()
        if cuda is None:
            return "no GPU"
        trt = importlib.import_module(package)
        check_version(header, str(trt.__version__), path.name)
        self._engine = _Engine(trt, cuda, path.read_bytes(), part)
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


class _Engine:
    """A deserialized plan with device buffers that grow when they must."""

    def __init__(self, trt: Any, cuda: Cuda, plan: bytes, part: PartRecord) -> None:
        self._trt, self._cuda, self._part = trt, cuda, part
        self._buffers: dict[str, tuple[int, int]] = {}
        self._logger = trt.Logger(trt.Logger.ERROR)
        self._runtime: Any = trt.Runtime(self._logger)
        engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise FormatError(
                "TensorRT refused the plan",
                where=part.files["plan"],
                why="another TensorRT version, another GPU, or a damaged file",
                fix="build the plan again on this machine",
            )
        self._engine: Any = engine
        self._context: Any = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        mode = trt.TensorIOMode.INPUT
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == mode]
        self._outputs = [n for n in names if engine.get_tensor_mode(n) != mode]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, execute, copy out. No rows give empty results without a call."""
        specs = {s.name: s for s in self._part.outputs}
        if any(feeds[name].size == 0 for name in self._inputs if name in feeds):
            return {
                n: np.zeros([d if isinstance(d, int) else 0 for d in s.shape], np.dtype(s.dtype))
                for n, s in specs.items()
            }
        for name in self._inputs:
            if name not in feeds:
                raise InputError("an input is missing", where=name)
            kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
            data = np.ascontiguousarray(feeds[name], dtype=kind)
            if not self._context.set_input_shape(name, tuple(data.shape)):
                raise InputError(
                    "shape is outside the plan's range", where=name, why=str(data.shape)
                )
            address = self._buffer(name, data.nbytes)
            self._cuda.copy(address, data.ctypes.data, data.nbytes, HOST_TO_DEVICE)
        results = {name: self._prepare(name) for name in self._outputs}
        if not self._context.execute_async_v3(0):
            raise InputError("TensorRT could not run the part", where=self._part.name)
        self._cuda.synchronize()
        for name, array in results.items():
            address = self._buffers[name][0]
            self._cuda.copy(array.ctypes.data, address, array.nbytes, DEVICE_TO_HOST)
        return {n: a.astype(np.dtype(specs[n].dtype), copy=False) for n, a in results.items()}

    def _prepare(self, name: str) -> Array:
        shape = tuple(self._context.get_tensor_shape(name))
        kind = np.dtype(self._trt.nptype(self._engine.get_tensor_dtype(name)))
        array: Array = np.empty(shape, kind)
        self._buffer(name, array.nbytes)
        return array

    def _buffer(self, name: str, size: int) -> int:
        address, have = self._buffers.get(name, (0, 0))
        if have < size or not address:
            if address:
                self._cuda.free(address)
            address = self._cuda.allocate(size)
            self._buffers[name] = (address, size)
        self._context.set_tensor_address(name, address)
        return address

    def close(self) -> None:
        """Free device memory, then the engine."""
        for address, _ in self._buffers.values():
            self._cuda.free(address)
        self._buffers.clear()
        self._context = self._engine = self._runtime = None
