"""A deserialized TensorRT plan with its tensors in GPU memory.

Written against the API that TensorRT 8.5 to 11 and TensorRT-RTX share: named tensors, one stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from adcompile.backends.trt.device import Memory
from adcompile.backends.trt.vendor_log import NotCreated, create, error_log, last_words
from adcompile.errors import FormatError, InputError, ToolMissing
from adcompile.manifest import PartRecord
from adcompile.runtime.executor import Array
from adcompile.runtime.narrow import NARROW_BITS, narrow_dtype

# `trt.nptype` lacks bfloat16, and before TensorRT 10 fails on bool with numpy 1.24 and later
_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "FP8": "float8_e4m3fn",
    "INT8": "int8",
    "UINT8": "uint8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}


def _dtype(name: str) -> np.dtype[np.generic]:
    return narrow_dtype(name) if name in NARROW_BITS else np.dtype(name)


def _empty(shape: tuple[int, ...], kind: np.dtype[np.generic]) -> Array:
    return np.empty(shape, kind)


class Engine:
    """Runs *plan* as *part*. Buffers grow when they must; close it before its *memory*'s GPU goes.

    Raises FormatError for a plan that TensorRT refuses or that lacks an output of *part*,
    ToolMissing where TensorRT does not start or the GPU cannot hold the plan.
    """

    def __init__(self, trt: Any, memory: Memory, plan: bytes, part: PartRecord) -> None:
        self._trt, self._memory, self._part = trt, memory, part
        self._buffers: dict[str, tuple[int, int]] = {}
        self._allocators: dict[str, Any] = {}
        self._log = error_log(trt)
        with memory.current():
            self._deserialize(plan)
            self._stream = memory.stream()
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        mode = trt.TensorIOMode.INPUT
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == mode]
        self._outputs = [n for n in names if engine.get_tensor_mode(n) != mode]
        if missing := [s.name for s in part.outputs if s.name not in self._outputs]:
            raise FormatError(
                "the plan lacks outputs that the manifest names",
                where=part.files["plan"],
                why=", ".join(missing),
                fix="build the plan again from this bundle",
            )
        self._kinds = {name: self._kind(name) for name in names}
        # values that shape others (sizes, repeats) are read and written on the host
        host = trt.TensorLocation.HOST
        self._on_host = {n for n in names if engine.get_tensor_location(n) == host}

    def _deserialize(self, plan: bytes) -> None:
        """Runtime, engine and execution context, on the current GPU."""
        part = self._part
        try:
            self._runtime: Any = create(self._log, self._trt.Runtime, self._log)
        except NotCreated as error:
            raise ToolMissing(
                "TensorRT does not start; the driver may be too old for it",
                where=part.name,
                why=str(error),
            ) from error
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise FormatError(
                "TensorRT refused the plan",
                where=part.files["plan"],
                why=self._reason("another TensorRT version, another GPU, or a damaged file"),
                fix="build the plan again on this machine",
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise ToolMissing(
                "the GPU cannot hold the part", where=part.name, why=self._reason("no memory")
            )

    def _kind(self, name: str) -> np.dtype[np.generic]:
        own = str(self._engine.get_tensor_dtype(name).name)
        if own not in _TYPES:
            raise FormatError(
                "the plan has a tensor of a type that cannot be fed",
                where=f"{self._part.files['plan']}: {name}",
                why=own,
                fix="build the part with another precision",
            )
        return _dtype(_TYPES[own])

    def _reason(self, otherwise: str) -> str:
        return last_words(self._log, otherwise)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Copy in, execute, copy out. No rows give empty results without a call."""
        specs = self._part.outputs
        if any(feeds[name].size == 0 for name in self._inputs if name in feeds):
            return {
                s.name: np.zeros(
                    [d if isinstance(d, int) else 0 for d in s.shape], _dtype(s.dtype)
                )
                for s in specs
            }
        with self._memory.current():
            found = self._execute(feeds)
        return {s.name: found[s.name].astype(_dtype(s.dtype), copy=False) for s in specs}

    def _execute(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """All outputs of the plan, in its types; on the current GPU."""
        self._log.messages.clear()
        kept = [self._feed(name, feeds) for name in self._inputs]
        results = {name: self._prepare(name) for name in self._outputs}
        if not self._context.execute_async_v3(self._stream):
            raise InputError(
                "TensorRT could not run the part",
                where=self._part.name,
                why=self._reason("it gives no reason"),
            )
        self._memory.synchronize(self._stream)
        del kept  # the host's inputs had to live until here
        return {name: self._fetch(name, array) for name, array in results.items()}

    def _feed(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """Shape, address and content of an input; the array that must stay alive."""
        if name not in feeds:
            raise InputError("an input is missing", where=name)
        data: Array = np.asarray(feeds[name], dtype=self._kinds[name], order="C")  # 0-d stays
        if not self._context.set_input_shape(name, tuple(data.shape)):
            raise InputError("shape is outside the plan's range", where=name, why=str(data.shape))
        if name in self._on_host:
            self._context.set_tensor_address(name, data.ctypes.data)
        else:
            address = self._buffer(name, data.nbytes)
            self._memory.upload(address, data.ctypes.data, data.nbytes)
        return data

    def _prepare(self, name: str) -> Array | None:
        """Room for an output; None when its shape is known only after the run."""
        shape = tuple(self._context.get_tensor_shape(name))
        if any(size < 0 for size in shape):
            if name not in self._allocators:
                self._allocators[name] = self._allocator()
                self._context.set_output_allocator(name, self._allocators[name])
            self._allocators[name].shape = None
            return None
        array = _empty(shape, self._kinds[name])
        if name in self._on_host:
            self._context.set_tensor_address(name, array.ctypes.data)
        else:
            self._buffer(name, array.nbytes)
        return array

    def _fetch(self, name: str, prepared: Array | None) -> Array:
        array = prepared
        if array is None:
            shape: tuple[int, ...] | None = self._allocators[name].shape
            if shape is None:
                raise InputError("TensorRT gave no shape of an output", where=name)
            array = _empty(shape, self._kinds[name])
        if name not in self._on_host and array.nbytes:
            self._memory.download(array.ctypes.data, self._buffers[name][0], array.nbytes)
        return array

    def _buffer(self, name: str, size: int) -> int:
        address = self._grown(name, size)
        self._context.set_tensor_address(name, address)
        return address

    def _grown(self, name: str, size: int) -> int:
        """The address of a tensor's memory, of at least *size* bytes."""
        address, have = self._buffers.get(name, (0, 0))
        if have < size or not address:
            if address:
                del self._buffers[name]
                self._memory.free(address)
            address = self._memory.allocate(size)
            self._buffers[name] = (address, size)
        return address

    def _allocator(self) -> Any:
        """What TensorRT asks for memory when it has computed an output's size."""
        trt, grown, messages = self._trt, self._grown, self._log.messages

        class Allocator(trt.IOutputAllocator):  # type: ignore[misc,name-defined]
            """``shape`` is the last run's, None before."""

            def __init__(self) -> None:
                trt.IOutputAllocator.__init__(self)
                self.shape: tuple[int, ...] | None = None

            def reallocate_output(self, name: str, old: int, size: int, alignment: int) -> int:
                try:
                    return grown(name, size)
                except ToolMissing as full:  # an exception cannot pass TensorRT; the run fails
                    messages.append(f"{full.what}: {full.why}")
                    return 0

            def reallocate_output_async(
                self, name: str, old: int, size: int, alignment: int, stream: int
            ) -> int:
                return self.reallocate_output(name, old, size, alignment)

            def notify_shape(self, name: str, shape: Any) -> None:
                self.shape = tuple(shape)

        return Allocator()

    def close(self) -> None:
        """Free what depends on what: context, engine, runtime; then device memory and GPU."""
        with self._memory.current():
            self._context = None
            self._engine = None
            self._runtime = None
            self._allocators.clear()
            for address, _ in self._buffers.values():
                self._memory.free(address)
            self._buffers.clear()
        self._memory.close()
