"""The self-describing container of bank files: named, typed, aligned, checksummed arrays.

Layout, all numbers little-endian (the C++ reader is ``backends/host/native/bank_file.cpp``)::

    header, 192 bytes
        0   8   magic  89 41 44 42 41 4E 4B 0A   (high bit and newline: text-mode damage shows)
        8   4   version, 1
       12   4   number of sections, 1 … 64
       16   8   size of the whole file
       24   8   kind, ASCII: "knn-l2", "gaussian", …
       32  64   contract id, ASCII, may be empty
       96  32   SHA-256 of what produced the content (the backbone model); zeros if unknown
      128   4   CRC-32 of header (with this field zero) and section table
      132  60   zeros
    section table, 96 bytes each
        0  32   name, ASCII
       32   4   dtype: "<f4", "<f8", "<i4", "|i1"
       36   4   rank, 1 … 4
       40  32   shape, 4 × u64, unused ones zero
       72   8   offset, multiple of 64
       80   8   bytes, product of shape times item size
       88   4   CRC-32 of the bytes
       92   4   zeros
    the sections' bytes, in table order, each padded with zeros to a multiple of 64

There is exactly one file for given content: no gaps, no unknown bytes, names unique.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from adcompile.errors import FormatError

MAGIC = b"\x89ADBANK\n"
VERSION = 1
ALIGNMENT = 64
HEADER = struct.Struct("<8sIIQ8s64s32sI60s")
ENTRY = struct.Struct("<32s4sI4QQQII")
MAX_SECTIONS = 64
DTYPES = {"<f4": 4, "<f8": 8, "<i4": 4, "|i1": 1}
"""Allowed element types and their sizes."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_KIND = re.compile(r"[a-z][a-z0-9-]{0,7}")
_CONTRACT = re.compile(r"[\x21-\x7e]{0,64}")

Array = NDArray[np.generic]


@dataclass(frozen=True, slots=True)
class Container:
    """The content of a bank file: what it is, under which contract, from what, and its arrays."""

    kind: str
    sections: Mapping[str, Array]
    contract: str = ""
    producer: bytes = field(default=bytes(32))


def _refuse(where: str, field_name: str, why: str) -> NoReturn:
    raise FormatError(
        f"bank file refused: {field_name}",
        where=where,
        why=why,
        fix="build the bank again; a damaged file cannot be repaired",
    )


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def places(content: Container) -> dict[str, int]:
    """Where :func:`pack_container` puts each section, in bytes from the start of the file."""
    offset = _padded(HEADER.size + ENTRY.size * len(content.sections))
    found: dict[str, int] = {}
    for name, array in content.sections.items():
        found[name] = offset
        offset += _padded(array.nbytes)
    return found


def pack_container(content: Container) -> bytes:
    """The file's bytes. Raises FormatError when something cannot be stored."""
    _check_identity(content)
    arrays = {name: _storable(name, array) for name, array in content.sections.items()}
    offset = _padded(HEADER.size + ENTRY.size * len(arrays))
    start, table = offset, b""
    bodies: list[bytes] = []
    for name, array in arrays.items():
        body = array.tobytes()
        shape = array.shape + (0,) * (4 - array.ndim)
        dtype = array.dtype.str.encode()
        crc = zlib.crc32(body)
        table += ENTRY.pack(name.encode(), dtype, array.ndim, *shape, offset, len(body), crc, 0)
        bodies.append(body.ljust(_padded(len(body)), b"\0"))
        offset += len(bodies[-1])
    header = _header(content, len(arrays), offset, 0)
    header = _header(content, len(arrays), offset, zlib.crc32(header + table))
    return (header + table).ljust(start, b"\0") + b"".join(bodies)


def _header(content: Container, count: int, size: int, crc: int) -> bytes:
    kind, contract = content.kind.encode(), content.contract.encode()
    return HEADER.pack(
        MAGIC, VERSION, count, size, kind, contract, content.producer, crc, bytes(60)
    )


def _check_identity(content: Container) -> None:
    if not _KIND.fullmatch(content.kind):
        _refuse("bank", "kind", f"{content.kind!r} is not 1 to 8 of a-z, 0-9, -")
    if not _CONTRACT.fullmatch(content.contract):
        _refuse("bank", "contract", "must be at most 64 printable ASCII characters")
    if len(content.producer) != 32:
        _refuse("bank", "producer", "must be the 32 bytes of a SHA-256")
    if not 1 <= len(content.sections) <= MAX_SECTIONS:
        _refuse("bank", "sections", f"{len(content.sections)} sections; 1 to {MAX_SECTIONS} fit")


def _storable(name: str, array: Array) -> Array:
    if not _NAME.fullmatch(name):
        _refuse("bank", "section name", f"{name!r} is not 1 to 32 of a-z, 0-9, _")
    if array.dtype.newbyteorder("<").str not in DTYPES:
        _refuse("bank", f"{name}.dtype", f"{array.dtype} is not one of {', '.join(DTYPES)}")
    if not 1 <= array.ndim <= 4 or array.size == 0:
        _refuse("bank", f"{name}.shape", f"{array.shape} is empty or has more than 4 axes")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def read_container(source: Path | bytes) -> Container:
    """Read and check everything. Arrays are read-only views of one buffer.

    Raises FormatError naming the field at fault; memory use is bounded by the file's size.
    """
    where = "bank" if isinstance(source, bytes) else source.name
    data = source if isinstance(source, bytes) else _read(source)
    if len(data) < HEADER.size:
        _refuse(where, "header", f"{len(data)} bytes; the header alone has {HEADER.size}")
    magic, version, count, size, kind, contract, producer, crc, zeros = HEADER.unpack_from(data)
    if magic != MAGIC:
        _refuse(where, "magic", "not a bank file")
    if version != VERSION:
        _refuse(where, "version", f"version {version}; this reader knows {VERSION}")
    if size != len(data):
        _refuse(where, "file size", f"header says {size} bytes, the file has {len(data)}")
    if not 1 <= count <= MAX_SECTIONS or HEADER.size + ENTRY.size * count > len(data):
        _refuse(where, "sections", f"{count} sections do not fit")
    table = data[HEADER.size : HEADER.size + ENTRY.size * count]
    blank = data[:128] + bytes(4) + data[132 : HEADER.size]
    if zlib.crc32(blank + table) != crc or any(zeros):
        _refuse(where, "checksum", "header or section table is damaged")
    content = Container(
        kind=_text(where, "kind", kind, _KIND),
        contract=_text(where, "contract", contract, _CONTRACT),
        producer=bytes(producer),
        sections=_sections(where, data, table),
    )
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FormatError(
            "bank file cannot be read", where=path.name, why=error.strerror or str(error)
        ) from error


def _text(where: str, name: str, raw: bytes, pattern: re.Pattern[str]) -> str:
    text = raw.rstrip(b"\0").decode("ascii", errors="replace")
    if not pattern.fullmatch(text):
        _refuse(where, name, f"{text!r} is not allowed")
    return text


def _sections(where: str, data: bytes, table: bytes) -> dict[str, Array]:
    sections: dict[str, Array] = {}
    expected = _padded(HEADER.size + len(table))
    if any(data[HEADER.size + len(table) : expected]):
        _refuse(where, "padding", "bytes between table and sections are not zero")
    for fields in ENTRY.iter_unpack(table):
        name = _text(where, "section name", fields[0], _NAME)
        if name in sections:
            _refuse(where, f"{name}.name", "appears twice")
        sections[name] = _section(where, name, data, expected, fields)
        expected += _padded(int(fields[8]))
    if expected != len(data):
        _refuse(where, "file size", f"sections end at {expected}, the file at {len(data)}")
    return sections


def _section(
    where: str, name: str, data: bytes, expected: int, fields: tuple[bytes | int, ...]
) -> Array:
    raw, numbers = fields[1], [x for x in fields[2:] if isinstance(x, int)]
    rank, axes, (offset, size, crc, zero) = numbers[0], numbers[1:5], numbers[5:]
    dtype = bytes(raw).rstrip(b"\0").decode("ascii", errors="replace")
    if dtype not in DTYPES:
        _refuse(where, f"{name}.dtype", f"{dtype!r} is not one of {', '.join(DTYPES)}")
    if not 1 <= rank <= 4:
        _refuse(where, f"{name}.rank", f"{rank} is not 1 to 4")
    shape = tuple(axes[:rank])
    if 0 in shape or any(axes[rank:]) or zero:
        _refuse(where, f"{name}.shape", "empty axis, or numbers where zeros belong")
    if math.prod(shape) * DTYPES[dtype] != size:
        _refuse(where, f"{name}.bytes", f"{size} bytes do not hold shape {shape} of {dtype}")
    if offset != expected or offset + _padded(size) > len(data):
        _refuse(where, f"{name}.offset", f"{offset}; expected {expected} and inside the file")
    if any(data[offset + size : offset + _padded(size)]):
        _refuse(where, f"{name}.padding", "not zero")
    body = memoryview(data)[offset : offset + size]
    if zlib.crc32(body) != crc:
        _refuse(where, f"{name}.checksum", "the bytes are damaged")
    return np.frombuffer(body, dtype=np.dtype(dtype)).reshape(shape)
