"""The few CUDA runtime calls an executor needs, through ctypes: no Python CUDA package is required."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

from adcompile.errors import ToolMissing

_NAMES = (
    ("cudart64_13.dll", "cudart64_12.dll", "cudart64_110.dll")
    if sys.platform == "win32"
    else ("libcudart.so", "libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0")
)
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2


class Cuda:
    """Memory on the current device. Every call raises ToolMissing with CUDA's error text."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._lib = library
        library.cudaGetErrorString.restype = ctypes.c_char_p

    def _check(self, code: int, what: str) -> None:
        if code:
            text: bytes = self._lib.cudaGetErrorString(code) or b"unknown"
            raise ToolMissing(f"CUDA: {what} failed", why=text.decode("utf-8", "replace"))

    def device_count(self) -> int:
        """Number of GPUs; 0 when the driver is absent."""
        count = ctypes.c_int(0)
        code: int = self._lib.cudaGetDeviceCount(ctypes.byref(count))
        return 0 if code else count.value

    def allocate(self, size: int) -> int:
        """Device address of *size* bytes (at least one)."""
        pointer = ctypes.c_void_p()
        self._check(
            self._lib.cudaMalloc(ctypes.byref(pointer), ctypes.c_size_t(max(size, 1))),
            "allocation",
        )
        return pointer.value or 0

    def free(self, address: int) -> None:
        """Give memory back."""
        self._lib.cudaFree(ctypes.c_void_p(address))

    def copy(self, to: int, source: int, size: int, kind: int) -> None:
        """Copy and wait."""
        arguments = (ctypes.c_void_p(to), ctypes.c_void_p(source), ctypes.c_size_t(size), kind)
        self._check(self._lib.cudaMemcpy(*arguments), "copy")

    def synchronize(self) -> None:
        """Wait for everything in flight."""
        self._check(self._lib.cudaDeviceSynchronize(), "synchronisation")


def open_cuda() -> Cuda | None:
    """The CUDA runtime when it is installed and has a device, else None."""
    found = ctypes.util.find_library("cudart")
    for name in (*_NAMES, *([found] if found else [])):
        try:
            cuda = Cuda(ctypes.CDLL(name))
        except (OSError, AttributeError):
            continue
        return cuda if cuda.device_count() > 0 else None
    return None
