"""Element types that numpy has only through ``ml_dtypes``: bfloat16, 8-bit floats, 4-bit numbers.

ONNX Runtime's ``run`` takes and gives plain numpy types; tensors of these cross its border as raw
bytes in an ``OrtValue``. In memory here they are arrays of the ``ml_dtypes`` type; ONNX Runtime
packs two 4-bit numbers into a byte, the first in the low half.
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
    """The bytes of *array* in its shape; 4-bit numbers packed, the rest of the buffer unused."""
    if bits == 16:
        return array.view(np.uint16)
    octets = array.view(np.uint8)
    if bits == 8:
        return octets
    flat = octets.reshape(-1) & 0x0F
    pairs = np.zeros(array.size, np.uint8)
    pairs[: flat[0::2].size] = flat[0::2]
    pairs[: flat[1::2].size] |= flat[1::2] << 4
    return pairs.reshape(array.shape)


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
    if narrow.bits != 4:
        return octets.view(dtype).reshape(shape).copy()
    halves = np.stack([octets & 0x0F, octets >> 4], axis=1).reshape(-1)[:count]
    if narrow.name == "int4":  # the sign is bit 3
        return ((halves ^ 8).astype(np.int8) - 8).astype(dtype).reshape(shape)
    return halves.astype(dtype).reshape(shape)
