"""Element types that numpy has only through ``ml_dtypes``: bfloat16, 8-bit floats, tiny integers.

ONNX Runtime's ``run`` takes and gives plain numpy types; tensors of these cross its border as raw
bytes in an ``OrtValue``. In memory here they are arrays of the ``ml_dtypes`` type; ONNX Runtime
packs two or four tiny integers into a byte, the first in the lowest bits.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np

from adcompile.runtime.executor import Array


@dataclass(frozen=True, slots=True)
class Narrow:
    """Name in ``ml_dtypes``, number in ``onnx.TensorProto``, and bits per element."""

    name: str
    number: int
    bits: int


# ONNX Runtime's name of the type -> what is known of it
NARROW: Mapping[str, Narrow] = {
    "tensor(bfloat16)": Narrow("bfloat16", 16, 16),
    "tensor(float8e4m3fn)": Narrow("float8_e4m3fn", 17, 8),
    "tensor(float8e4m3fnuz)": Narrow("float8_e4m3fnuz", 18, 8),
    "tensor(float8e5m2)": Narrow("float8_e5m2", 19, 8),
    "tensor(float8e5m2fnuz)": Narrow("float8_e5m2fnuz", 20, 8),
    "tensor(uint4)": Narrow("uint4", 21, 4),
    "tensor(int4)": Narrow("int4", 22, 4),
    "tensor(float8e8m0)": Narrow("float8_e8m0fnu", 24, 8),
    "tensor(uint2)": Narrow("uint2", 25, 2),
    "tensor(int2)": Narrow("int2", 26, 2),
}

# name in ``ml_dtypes`` -> the numpy type that holds one element's bits
NARROW_BITS = {n.name: "<u2" if n.bits == 16 else "|u1" for n in NARROW.values()}


def narrow_dtype(name: str) -> np.dtype[np.generic]:
    """The numpy dtype of an ``ml_dtypes`` name."""
    kind: type[np.generic] = getattr(importlib.import_module("ml_dtypes"), name)
    return np.dtype(kind)


class OrtValue(Protocol):
    """What we use of ``onnxruntime.OrtValue``, which has no type stubs."""

    def numpy(self) -> Array: ...
    def shape(self) -> list[int]: ...
    def data_ptr(self) -> int: ...
    def data_type(self) -> str: ...


class _OrtValueType(Protocol):
    def ortvalue_from_numpy(self, array: Array) -> OrtValue: ...
    def ortvalue_from_numpy_with_onnx_type(self, array: Array, number: int) -> OrtValue: ...


def to_ort(array: Array, kind: str) -> OrtValue:
    """*array* as a value of ONNX Runtime's type *kind* (``tensor(bfloat16)``)."""
    make = cast(_OrtValueType, importlib.import_module("onnxruntime").OrtValue)
    narrow = NARROW.get(kind)
    if narrow is None:
        return make.ortvalue_from_numpy(array)
    raw = np.ascontiguousarray(array).reshape(array.shape)
    return make.ortvalue_from_numpy_with_onnx_type(_packed(raw, narrow.bits), narrow.number)


def _packed(array: Array, bits: int) -> Array:
    """The bytes of *array* in its shape; tiny integers packed, the rest of the buffer unused."""
    if bits == 16:
        return array.view(np.uint16)
    octets = array.view(np.uint8)
    if bits == 8:
        return octets
    each = 8 // bits
    padded = np.zeros(-(-array.size // each) * each, np.uint8)
    padded[: array.size] = octets.reshape(-1) & ((1 << bits) - 1)
    shifts = np.arange(each, dtype=np.uint8) * bits
    packed = np.bitwise_or.reduce(padded.reshape(-1, each) << shifts, axis=1)
    buffer = np.zeros(array.size, np.uint8)
    buffer[: packed.size] = packed
    return buffer.reshape(array.shape)


def from_ort(value: OrtValue) -> Array:
    """A copy of *value* as an array, of an ``ml_dtypes`` type where numpy has none."""
    narrow = NARROW.get(value.data_type())
    if narrow is None:
        return value.numpy()
    shape = tuple(value.shape())
    count = int(np.prod(shape, dtype=np.int64))
    dtype = narrow_dtype(narrow.name)
    octets = np.frombuffer(
        ctypes.string_at(value.data_ptr(), (count * narrow.bits + 7) // 8), np.uint8
    )
    if narrow.bits >= 8:
        return octets.view(dtype).reshape(shape).copy()
    shifts = np.arange(8 // narrow.bits, dtype=np.uint8) * narrow.bits
    mask, sign = (1 << narrow.bits) - 1, 1 << (narrow.bits - 1)
    tiny = ((octets[:, np.newaxis] >> shifts) & mask).reshape(-1)[:count]
    if narrow.name.startswith("int"):  # the highest bit is the sign
        return ((tiny ^ sign).astype(np.int8) - sign).astype(dtype).reshape(shape)
    return tiny.astype(dtype).reshape(shape)
