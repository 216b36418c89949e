"""What the NVIDIA driver says of the GPU, by ctypes: no CUDA runtime, no context."""

from __future__ import annotations

import ctypes
import sys

# TensorRT-RTX 1.7: tensorrt_rtx.ComputeCapability, and what its runtime names when it refuses a GPU
RTX_CAPABILITIES = frozenset({"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"})

LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
# CUdevice_attribute of the CUDA driver API
_MAJOR, _MINOR = 75, 76


def compute_capability() -> str:
    """Of the first GPU, for example "8.9"; "" without a driver or a GPU."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return ""
    device = ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), 0):
        return ""
    numbers: list[str] = []
    for attribute in (_MAJOR, _MINOR):
        value = ctypes.c_int()
        if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            return ""
        numbers.append(str(value.value))
    return ".".join(numbers)


def runs_rtx(capability: str) -> bool:
    """Whether TensorRT-RTX runs there; it also takes GPUs that are newer than 12.1."""
    major, _, minor = capability.partition(".")
    newer = major.isdigit() and minor.isdigit() and (int(major), int(minor)) > (12, 1)
    return newer or capability in RTX_CAPABILITIES
