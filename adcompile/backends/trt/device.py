"""The few CUDA driver calls an executor needs, through ctypes.

The driver's library is wherever a GPU works; the CUDA runtime's is not: TensorRT's wheels contain
it, and torch's keep theirs outside the loader's path. The context is the first GPU's primary one,
which TensorRT and torch use as well.
"""

from __future__ import annotations

import ctypes
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from adcompile.backends.trt.driver import LIBRARY
from adcompile.errors import ToolMissing

_BLOCKING = 0  # a stream that waits for copies of the default stream, and they for it


class Memory(Protocol):
    """What an engine needs of a GPU; addresses are numbers. Calls belong inside ``current()``."""

    def current(self) -> AbstractContextManager[None]: ...
    def allocate(self, size: int) -> int: ...
    def free(self, address: int) -> None: ...
    def upload(self, to: int, source: int, size: int) -> None: ...
    def download(self, to: int, source: int, size: int) -> None: ...
    def stream(self) -> int: ...
    def synchronize(self, stream: int) -> None: ...
    def close(self) -> None: ...


class Cuda:
    """Memory of the first GPU, to be used inside :meth:`current` (but for ``close``).

    Every call raises ToolMissing with the driver's own words.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._lib = library
        self._context = ctypes.c_void_p()
        self._streams: list[int] = []
        count = ctypes.c_int()
        self._check(library.cuInit(ctypes.c_uint(0)), "start")
        self._check(library.cuDeviceGetCount(ctypes.byref(count)), "count of GPUs")
        if not count.value:
            raise ToolMissing("no NVIDIA GPU", why="the driver sees none")
        device = ctypes.c_int()
        self._check(library.cuDeviceGet(ctypes.byref(device), 0), "first GPU")
        retained = library.cuDevicePrimaryCtxRetain(ctypes.byref(self._context), device)
        self._check(retained, "context")

    def _check(self, code: int, what: str) -> None:
        if not code:
            return
        text = ctypes.c_char_p()
        self._lib.cuGetErrorString(ctypes.c_int(code), ctypes.byref(text))
        words = (text.value or b"unknown error").decode("utf-8", "replace")
        raise ToolMissing(f"CUDA: {what} failed", why=f"{words} ({code})")

    @contextmanager
    def current(self) -> Generator[None]:
        """Inside, this GPU is the calling thread's current one, for TensorRT as well; afterwards
        the GPU that was current before (torch may have chosen another)."""
        self._check(self._lib.cuCtxPushCurrent_v2(self._context), "context")
        try:
            yield
        finally:
            self._lib.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))

    def allocate(self, size: int) -> int:
        """Device address of *size* bytes (at least one)."""
        address = ctypes.c_uint64()
        wanted = ctypes.c_size_t(max(size, 1))
        code: int = self._lib.cuMemAlloc_v2(ctypes.byref(address), wanted)
        self._check(code, f"allocation of {size} bytes")
        return address.value

    def free(self, address: int) -> None:
        """Give memory back."""
        self._lib.cuMemFree_v2(ctypes.c_uint64(address))

    def upload(self, to: int, source: int, size: int) -> None:
        """Copy from the host, and wait."""
        arguments = (ctypes.c_uint64(to), ctypes.c_void_p(source), ctypes.c_size_t(size))
        self._check(self._lib.cuMemcpyHtoD_v2(*arguments), "copy to the GPU")

    def download(self, to: int, source: int, size: int) -> None:
        """Copy to the host, and wait."""
        arguments = (ctypes.c_void_p(to), ctypes.c_uint64(source), ctypes.c_size_t(size))
        self._check(self._lib.cuMemcpyDtoH_v2(*arguments), "copy from the GPU")

    def stream(self) -> int:
        """A stream of one's own; TensorRT is slower on the default one."""
        made = ctypes.c_void_p()
        self._check(self._lib.cuStreamCreate(ctypes.byref(made), _BLOCKING), "stream")
        self._streams.append(made.value or 0)
        return self._streams[-1]

    def synchronize(self, stream: int) -> None:
        """Wait for everything in *stream*."""
        self._check(self._lib.cuStreamSynchronize(ctypes.c_void_p(stream)), "execution")

    def close(self) -> None:
        """Give the streams back; closing twice is harmless. The context stays until the process
        ends: other libraries use it too, and one that is destroyed under them takes them along."""
        if not self._streams:
            return
        with self.current():
            for stream in self._streams:
                self._lib.cuStreamDestroy_v2(ctypes.c_void_p(stream))
        self._streams.clear()


def open_cuda() -> Cuda:
    """The driver with its first GPU. Raises ToolMissing where either is absent."""
    try:
        return Cuda(ctypes.CDLL(LIBRARY))
    except OSError as error:
        raise ToolMissing("no NVIDIA driver", why=str(error)) from error
