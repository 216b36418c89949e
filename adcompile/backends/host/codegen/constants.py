"""Constants of a bundle's host parts: the aligned side file ``weights.bin`` and its layout.

PaDiM's mean and inverse covariances stay in their bank file (``anomaly.statistics``), one per program.

Layout, little-endian: magic ``ADCW``, u32 version 1, u64 payload bytes, 32 bytes SHA-256 of the
payload, 16 zero bytes (64 together); then the payload, every tensor at a multiple of 64. Offsets,
the payload's size and its digest are compiled into the program, which refuses any other file.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adcompile.anomaly.statistics import Statistics

Array = npt.NDArray[np.generic]

MAGIC = b"ADCW"
VERSION = 1
HEADER = 64
ALIGNMENT = 64
EMBED_LIMIT = 64  # elements; smaller tensors are written into the source


@dataclass(frozen=True, slots=True)
class Stored:
    """Place of one tensor in the payload, in bytes."""

    offset: int
    size: int


@dataclass
class StoredBank:
    """A memory bank that becomes a file: its name, rows, and the most neighbours asked for."""

    name: str
    rows: Array
    neighbours: int


@dataclass(frozen=True)
class StatisticsFile:
    """The bank file of statistics: where it lies, from the folder of ``weights.bin`` on."""

    path: str
    data: bytes
    content: Statistics

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.data)

    @property
    def sha256(self) -> str:
        """Digest of the whole file, as compiled into the program."""
        return hashlib.sha256(self.data).hexdigest()


class WeightStore:
    """Collects tensors for the side file; equal bytes are stored once. Banks and statistics are own
    files."""

    def __init__(self, statistics: Statistics | None = None) -> None:
        self.banks: list[StoredBank] = []
        self.statistics = statistics
        self._payload = bytearray()
        self._known: dict[bytes, Stored] = {}

    def add(self, array: Array) -> Stored:
        """Store *array* (C order, little-endian); returns where."""
        data = little_endian(array).tobytes()
        digest = hashlib.sha256(data).digest()
        if digest in self._known:
            return self._known[digest]
        self._payload += b"\0" * (-len(self._payload) % ALIGNMENT)
        stored = Stored(len(self._payload), len(data))
        self._payload += data
        self._known[digest] = stored
        return stored

    def bank(self, name: str, rows: Array, neighbours: int) -> int:
        """Number of the bank with these rows; it is added when it is new."""
        for number, known in enumerate(self.banks):
            if known.rows is rows or np.array_equal(known.rows, rows):
                known.neighbours = max(known.neighbours, neighbours)
                return number
        self.banks.append(StoredBank(name, rows, neighbours))
        return len(self.banks) - 1

    def places(self, found: Statistics) -> dict[str, int] | None:
        """Where the arrays lie in the file of statistics; None when that file holds others already."""
        if self.statistics is None:
            self.statistics = found
        return found.offsets() if self.statistics.equal(found) else None

    @property
    def size(self) -> int:
        """Bytes of the payload."""
        return len(self._payload)

    def sha256(self) -> bytes:
        """Digest of the payload, as compiled into the program."""
        return hashlib.sha256(self._payload).digest()

    def file(self) -> bytes:
        """The bytes of ``weights.bin``."""
        header = MAGIC + struct.pack("<IQ", VERSION, self.size) + self.sha256()
        return header + b"\0" * (HEADER - len(header)) + bytes(self._payload)


def little_endian(array: Array) -> Array:
    """*array* in C order with little-endian elements."""
    plain = np.ascontiguousarray(array).reshape(array.shape)
    if plain.dtype.byteorder == ">" or (plain.dtype.byteorder == "=" and not _little()):
        return plain.astype(plain.dtype.newbyteorder("<"))
    return plain


def _little() -> bool:
    return bool(np.array([1], dtype=np.uint16).view(np.uint8)[0])
