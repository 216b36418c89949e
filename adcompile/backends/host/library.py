"""A compiled host library, called from Python through its C interface."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adcompile.errors import InputError, UsageError

Array = npt.NDArray[np.generic]

MAX_RANK = 8
DTYPES: dict[str, int] = {
    "float32": 1,
    "float64": 2,
    "float16": 3,
    "bfloat16": 4,
    "bool": 5,
    "int8": 6,
    "int16": 7,
    "int32": 8,
    "int64": 9,
    "uint8": 10,
    "uint16": 11,
    "uint32": 12,
    "uint64": 13,
}
_NAMES = {number: name for name, number in DTYPES.items()}


class CTensor(ctypes.Structure):
    """``adc_tensor`` of ``adc_host.h``."""

    _fields_ = (
        ("dtype", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("dims", ctypes.c_int64 * MAX_RANK),
        ("data", ctypes.c_void_p),
    )


def numpy_dtype(number: int) -> np.dtype[np.generic]:
    """The numpy type of a C interface type number (bfloat16 needs ml_dtypes)."""
    name = _NAMES[number]
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with onnx-ir

    dtype: np.dtype[np.generic] = np.dtype(ml_dtypes.bfloat16)
    return dtype


def to_c(array: Array) -> CTensor:
    """Describe *array* (C order); the caller keeps the array alive."""
    if array.ndim > MAX_RANK:
        raise UsageError("tensor of rank over 8", where=str(array.shape))
    if array.dtype.name not in DTYPES:
        raise UsageError("element type without a C number", where=array.dtype.name)
    dims = (ctypes.c_int64 * MAX_RANK)(*array.shape)
    return CTensor(DTYPES[array.dtype.name], array.ndim, dims, array.ctypes.data)


def from_c(tensor: CTensor) -> Array:
    """A copy of the tensor that *tensor* describes."""
    shape = tuple(int(d) for d in tensor.dims[: tensor.rank])
    dtype = numpy_dtype(tensor.dtype)
    count = 1
    for d in shape:
        count *= d
    raw = ctypes.string_at(tensor.data, count * dtype.itemsize) if count else b""
    return np.frombuffer(raw, dtype=dtype).reshape(shape).copy()


class HostLibrary:
    """An opened shared library; :meth:`part` opens one of its parts."""

    def __init__(self, path: Path, weights: Path | None = None) -> None:
        try:
            self._lib = ctypes.CDLL(str(path))
        except OSError as error:
            raise InputError(
                "cannot load the host library", where=str(path), why=str(error)
            ) from error
        self._weights = None if weights is None else str(weights).encode()
        _declare(self._lib)

    def names(self) -> list[str]:
        """Parts of the library, in execution order."""
        count: int = self._lib.adc_part_count()
        return [self._lib.adc_part_name(i).decode() for i in range(count)]

    def threads(self, count: int) -> None:
        """Let kernels use *count* threads."""
        self._lib.adc_set_threads(count)

    def error(self) -> str:
        """The last failure's sentence."""
        text: bytes = self._lib.adc_last_error()
        return text.decode("utf-8", "replace")

    def part(self, name: str) -> HostPart:
        """Open a part by name."""
        names = self.names()
        if name not in names:
            raise UsageError("no such host part", where=name, fix="known: " + ", ".join(names))
        handle = self._lib.adc_part_open(names.index(name), self._weights)
        if not handle:
            raise InputError("cannot open the host part", where=name, why=self.error())
        return HostPart(self, self._lib, handle)


def _declare(lib: ctypes.CDLL) -> None:
    text, handle, integer = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int
    tensors = ctypes.POINTER(CTensor)
    signatures: dict[str, tuple[object, list[object]]] = {
        "adc_last_error": (text, []),
        "adc_set_threads": (None, [integer]),
        "adc_part_count": (integer, []),
        "adc_part_name": (text, [integer]),
        "adc_part_open": (handle, [integer, text]),
        "adc_part_close": (None, [handle]),
        "adc_part_inputs": (integer, [handle]),
        "adc_part_outputs": (integer, [handle]),
        "adc_part_input_name": (text, [handle, integer]),
        "adc_part_output_name": (text, [handle, integer]),
        "adc_part_run": (integer, [handle, tensors, integer, tensors, integer]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments


class HostPart:
    """One opened part. Close it, or let it go out of scope."""

    def __init__(self, library: HostLibrary, lib: ctypes.CDLL, handle: int) -> None:
        self._library = library
        self._lib = lib
        self._handle: int | None = handle
        self.inputs = [
            lib.adc_part_input_name(handle, i).decode() for i in range(lib.adc_part_inputs(handle))
        ]
        self.outputs = [
            lib.adc_part_output_name(handle, i).decode()
            for i in range(lib.adc_part_outputs(handle))
        ]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Execute once; results are copies."""
        missing = [n for n in self.inputs if n not in feeds]
        if missing:
            raise UsageError("input not given", where=missing[0])
        arrays = [np.asarray(feeds[n], order="C") for n in self.inputs]
        results = self.call((CTensor * max(len(arrays), 1))(*map(to_c, arrays)))
        return {n: from_c(results[i]) for i, n in enumerate(self.outputs)}

    def call(self, inputs: ctypes.Array[CTensor]) -> ctypes.Array[CTensor]:
        """Execute on described tensors; results point into the part (for benchmarks)."""
        outputs = (CTensor * max(len(self.outputs), 1))()
        failed = self._lib.adc_part_run(
            self._handle, inputs, len(self.inputs), outputs, len(self.outputs)
        )
        if failed:
            raise InputError("host part failed", why=self._library.error())
        return outputs

    def close(self) -> None:
        """Free the part. Closing twice is harmless."""
        if self._handle is not None:
            self._lib.adc_part_close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()
