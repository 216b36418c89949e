"""Numbers, types and shapes as C++ text that reads back to the same bits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from adcompile.errors import Unsupported

Array = npt.NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class CppType:
    """A tensor element type: C++ name, numpy name, bytes."""

    cpp: str
    numpy: str
    size: int


TYPES: dict[ir.DataType, CppType] = {
    ir.DataType.FLOAT: CppType("float", "float32", 4),
    ir.DataType.DOUBLE: CppType("double", "float64", 8),
    ir.DataType.FLOAT16: CppType("Half", "float16", 2),
    ir.DataType.BFLOAT16: CppType("BFloat16", "bfloat16", 2),
    ir.DataType.BOOL: CppType("bool", "bool", 1),
    ir.DataType.INT8: CppType("std::int8_t", "int8", 1),
    ir.DataType.INT16: CppType("std::int16_t", "int16", 2),
    ir.DataType.INT32: CppType("std::int32_t", "int32", 4),
    ir.DataType.INT64: CppType("Index", "int64", 8),
    ir.DataType.UINT8: CppType("std::uint8_t", "uint8", 1),
    ir.DataType.UINT16: CppType("std::uint16_t", "uint16", 2),
    ir.DataType.UINT32: CppType("std::uint32_t", "uint32", 4),
    ir.DataType.UINT64: CppType("std::uint64_t", "uint64", 8),
}

_FLOATS = {
    ir.DataType.FLOAT,
    ir.DataType.DOUBLE,
    ir.DataType.FLOAT16,
    ir.DataType.BFLOAT16,
}


def cpp_type(dtype: ir.DataType | None, where: str = "") -> CppType:
    """The C++ element type; Unsupported for strings, complex and sub-byte types."""
    if dtype is None or dtype not in TYPES:
        name = "unknown" if dtype is None else dtype.name.lower()
        raise Unsupported(f"element type {name} has no C++ form", where=where)
    return TYPES[dtype]


def number(value: object, dtype: ir.DataType) -> str:
    """One number as a C++ expression of exactly type *dtype*."""
    if dtype is ir.DataType.BOOL:
        return "true" if value else "false"
    if dtype in _FLOATS:
        return _real(float(value), dtype)  # type: ignore[arg-type] # pyright: ignore[reportArgumentType]
    return _whole(int(value), dtype)  # type: ignore[call-overload] # pyright: ignore[reportArgumentType]


def _real(value: float, dtype: ir.DataType) -> str:
    cpp = TYPES[dtype].cpp
    base = "double" if dtype is ir.DataType.DOUBLE else "float"
    if np.isnan(value):
        text = f"std::numeric_limits<{base}>::quiet_NaN()"
    elif np.isinf(value):
        text = ("-" if value < 0 else "") + f"std::numeric_limits<{base}>::infinity()"
    elif base == "double":
        text = _dotted(repr(value))
    else:
        text = _dotted(str(np.float32(value))) + "f"
    return text if cpp == base else f"{cpp}({text})"


def _dotted(text: str) -> str:
    return text if any(c in text for c in ".en") else text + ".0"


def _whole(value: int, dtype: ir.DataType) -> str:
    cpp = TYPES[dtype].cpp
    if dtype is ir.DataType.INT32 and value > -(2**31):
        return str(value)
    if dtype is ir.DataType.INT64:
        return (
            index(value)
            if value != int(np.int64(value)) or abs(value) > 2**31 - 1
            else (f"Index{{{value}}}")
        )
    info = np.iinfo(TYPES[dtype].numpy)
    if value == info.min and value < 0:
        return f"std::numeric_limits<{cpp}>::min()"
    suffix = "u" if dtype in {ir.DataType.UINT32, ir.DataType.UINT64} else ""
    suffix += "ll" if abs(value) > 2**32 - 1 else ""
    return f"{cpp}{{{value}{suffix}}}"


def element(value: object, dtype: ir.DataType) -> str:
    """One number inside the braces of an array of *dtype*: the type need not be repeated."""
    text = number(value, dtype)
    inner = text[text.index("{") + 1 : -1] if text.endswith("}") else text
    return inner


def index(value: int) -> str:
    """A whole number where C++ expects an Index."""
    if value <= -(2**63):
        return "std::numeric_limits<Index>::min()"
    if value >= 2**63 - 1:
        return "kNoLimit"
    return str(value) if abs(value) < 2**31 else f"{value}ll"


def boolean(value: object) -> str:
    """``true`` or ``false``."""
    return "true" if value else "false"


def shape(dims: Iterable[int]) -> str:
    """``Shape{1, 3, 224, 224}``."""
    return "Shape{" + ", ".join(index(int(d)) for d in dims) + "}"


def braces(values: Sequence[str]) -> str:
    """``{a, b, c}``."""
    return "{" + ", ".join(values) + "}"
