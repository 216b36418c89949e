"""A stand-in for the NVIDIA driver and for TensorRT: GPU memory is the host's, a plan is a function.

The driver is called as the real one is, through ctypes' types, so that addresses and sizes are
checked; it keeps account of what is not given back. As with CUDA, each thread has its own current
context, which driver and TensorRT share.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]
NAMES = {
    "float32": "FLOAT", "float16": "HALF", "bfloat16": "BF16", "int8": "INT8", "uint8": "UINT8",
    "int32": "INT32", "int64": "INT64", "bool": "BOOL", "int4": "INT4",
}  # fmt: skip


PRIMARY = 77  # the first GPU's context


class _Current(threading.local):
    """A thread's contexts, the current one last."""

    def __init__(self) -> None:
        self.contexts: list[int] = []


CURRENT = _Current()


def in_context() -> bool:
    """The first GPU is the thread's current one."""
    return CURRENT.contexts[-1:] == [PRIMARY]


class FakeDriver:
    """The calls of :mod:`adcompile.backends.trt.device`; ``failing`` names one that returns 2."""

    def __init__(self, failing: str = "", devices: int = 1) -> None:
        self.failing, self.devices = failing, devices
        self.blocks: dict[int, Array] = {}
        self.streams: set[int] = set()

    def _code(self, name: str) -> int:
        if name.startswith(("cuMem", "cuStream")):
            assert in_context(), f"{name} outside the context"
        return 2 if name == self.failing else 0

    def cuInit(self, flags: ctypes.c_uint) -> int:
        return self._code("cuInit")

    def cuGetErrorString(self, code: ctypes.c_int, text: Any) -> int:
        text._obj.value = b"out of memory"
        return 0

    def cuDeviceGetCount(self, count: Any) -> int:
        count._obj.value = self.devices
        return self._code("cuDeviceGetCount")

    def cuDeviceGet(self, device: Any, index: int) -> int:
        device._obj.value = 40
        return self._code("cuDeviceGet")

    def cuDevicePrimaryCtxRetain(self, context: Any, device: ctypes.c_int) -> int:
        assert device.value == 40
        context._obj.value = PRIMARY
        return self._code("cuDevicePrimaryCtxRetain")

    def cuCtxPushCurrent_v2(self, context: ctypes.c_void_p) -> int:
        code = self._code("cuCtxPushCurrent_v2")
        if not code:
            CURRENT.contexts.append(context.value or 0)
        return code

    def cuCtxPopCurrent_v2(self, context: Any) -> int:
        context._obj.value = CURRENT.contexts.pop()
        return self._code("cuCtxPopCurrent_v2")

    def cuMemAlloc_v2(self, address: Any, size: ctypes.c_size_t) -> int:
        block: Array = np.full(size.value, 0xAB, np.uint8)
        address._obj.value = block.ctypes.data
        self.blocks[block.ctypes.data] = block
        return self._code("cuMemAlloc_v2")

    def cuMemFree_v2(self, address: ctypes.c_uint64) -> int:
        del self.blocks[address.value]
        return self._code("cuMemFree_v2")

    def cuMemcpyHtoD_v2(
        self, to: ctypes.c_uint64, source: ctypes.c_void_p, size: ctypes.c_size_t
    ) -> int:
        assert size.value <= self.blocks[to.value].nbytes
        ctypes.memmove(to.value, source, size.value)
        return self._code("cuMemcpyHtoD_v2")

    def cuMemcpyDtoH_v2(
        self, to: ctypes.c_void_p, source: ctypes.c_uint64, size: ctypes.c_size_t
    ) -> int:
        assert size.value <= self.blocks[source.value].nbytes
        ctypes.memmove(to, source.value, size.value)
        return self._code("cuMemcpyDtoH_v2")

    def cuStreamCreate(self, stream: Any, flags: int) -> int:
        stream._obj.value = 900 + len(self.streams)
        self.streams.add(stream._obj.value)
        return self._code("cuStreamCreate")

    def cuStreamDestroy_v2(self, stream: ctypes.c_void_p) -> int:
        self.streams.remove(stream.value or 0)
        return 0

    def cuStreamSynchronize(self, stream: ctypes.c_void_p) -> int:
        assert stream.value in self.streams
        return self._code("cuStreamSynchronize")


@dataclass
class FakePlan:
    """Tensors as name to (dtype, shape), -1 for what is known only later; what they compute."""

    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    outputs: Mapping[str, tuple[str, tuple[int, ...]]]
    compute: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    on_host: frozenset[str] = frozenset()
    most_rows: int = 8
    error: str = ""
    old_driver: str = ""
    order: list[str] = field(default_factory=list[str])


class _Base:
    """TensorRT's classes must be initialised by name."""

    def __init__(self) -> None:
        self.ready = True


SEVERITY = SimpleNamespace(ERROR=1, INTERNAL_ERROR=2, WARNING=3)


class _OfPlan:
    """What a runtime makes of its plan; its end is noted, with the place if it is a wrong one."""

    def __init__(self, plan: FakePlan, log: Any) -> None:
        self.plan, self.log = plan, log
        assert in_context(), f"{type(self).__name__} made outside the context"
        self.tensors = {**plan.inputs, **plan.outputs}

    def __del__(self) -> None:
        self.plan.order.append(type(self).__name__ + ("" if in_context() else " outside"))


class Context(_OfPlan):
    """One execution's shapes and addresses."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.plan, engine.log)
        self.engine = engine
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.allocators: dict[str, Any] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return not shape or shape[0] <= self.plan.most_rows

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def set_output_allocator(self, name: str, allocator: Any) -> bool:
        assert allocator.ready
        self.allocators[name] = allocator
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        rows = next(iter(self.shapes.values()))[:1]
        return tuple(rows[0] if d == 0 else d for d in self.tensors[name][1])

    def execute_async_v3(self, stream: int) -> bool:
        assert stream
        assert in_context()
        if self.plan.error:
            self.log.log(SEVERITY.WARNING, "not of interest")
            self.log.log(SEVERITY.ERROR, self.plan.error)
            return False
        given = {n: self._view(n, self.shapes[n]).copy() for n in self.plan.inputs}
        results = self.plan.compute(given)
        return all(self._put(name, array, stream) for name, array in results.items())

    def _put(self, name: str, array: Array, stream: int) -> bool:
        if name in self.allocators:
            there = self.allocators[name]
            address = there.reallocate_output_async(name, 0, array.nbytes, 256, stream)
            if not address:
                return False
            self.addresses[name] = address
            there.notify_shape(name, array.shape)
        if array.size:
            self._view(name, array.shape)[...] = array
        return True

    def _view(self, name: str, shape: tuple[int, ...]) -> Array:
        kind = np.dtype(self.tensors[name][0])
        size = int(np.prod(shape)) * kind.itemsize
        raw = (ctypes.c_uint8 * size).from_address(self.addresses[name])
        return np.frombuffer(raw, np.uint8).view(kind).reshape(shape)


class Engine(_OfPlan):
    """Names, kinds and places of the tensors."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.plan, runtime.log)
        self.runtime = runtime
        self.num_io_tensors = len(self.tensors)

    def create_execution_context(self) -> Context:
        return Context(self)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "in" if name in self.plan.inputs else "out"

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=NAMES[self.tensors[name][0]])

    def get_tensor_location(self, name: str) -> str:
        return "host" if name in self.plan.on_host else "device"


class Runtime(_OfPlan):
    """Makes engines; refuses a damaged plan."""

    def __init__(self, plan: FakePlan, log: Any) -> None:
        assert log.ready
        super().__init__(plan, log)
        if plan.old_driver:
            log.log(SEVERITY.ERROR, plan.old_driver)
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        if data == b"damaged":
            self.log.log(SEVERITY.ERROR, "magic tag\n  failed")
            return None
        return Engine(self)


class ILogger(_Base):
    Severity = SEVERITY


def fake_trt(plan: FakePlan) -> Any:
    """A module with the calls of :mod:`adcompile.backends.trt.engine`; every plan is *plan*."""
    return SimpleNamespace(
        __version__="1.7.1",
        Runtime=partial(Runtime, plan),
        ILogger=ILogger,
        IOutputAllocator=_Base,
        TensorIOMode=SimpleNamespace(INPUT="in", OUTPUT="out"),
        TensorLocation=SimpleNamespace(HOST="host", DEVICE="device"),
    )
