"""R2's ``index.faiss``: the file of a FAISS ``IndexFlatL2``, read and written without FAISS.

Little-endian: four letters ``IxF2``, int32 columns, int64 rows, two int64 that FAISS ignores
(2^20), one byte "trained", int32 metric (1 is squared L2), uint64 number of floats, the floats.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from adcompile.anomaly.formats.record import Trained, need
from adcompile.errors import FormatError

HEADER = struct.Struct("<4siqqqbiQ")
FOURCC = b"IxF2"
METRIC_L2 = 1
_IGNORED = 1 << 20


def read_faiss(path: Path) -> Trained:
    """Read a flat L2 index; other index types and metrics are refused by name."""
    size = path.stat().st_size if path.is_file() else -1
    if size < HEADER.size:
        raise FormatError("not a FAISS flat index", where=str(path), why=f"{max(size, 0)} bytes")
    with path.open("rb") as file:
        fields = HEADER.unpack(file.read(HEADER.size))
        kind, columns, rows, _, _, _, metric, count = fields
        if kind not in (FOURCC, b"IxFl") or metric != METRIC_L2:
            raise FormatError(
                "only flat L2 indexes are read",
                where=f"{path}: type",
                why=f"type {kind!r}, metric {metric}",
                fix="rebuild it as faiss.IndexFlatL2 (exact search)",
            )
        if rows < 1 or columns < 1 or rows * columns != count or size != HEADER.size + 4 * count:
            raise FormatError(
                "index sizes disagree",
                where=f"{path}: ntotal, d",
                why=f"{rows} × {columns}, {count} floats, {size} bytes",
            )
        bank = np.frombuffer(file.read(), dtype="<f4").reshape(rows, columns)
    return Trained("patchcore", "faiss", bank=np.ascontiguousarray(bank, dtype=np.float32))


def write_faiss(path: Path, trained: Trained) -> None:
    """Write an IndexFlatL2 file, byte for byte as FAISS writes it."""
    need(trained, ("bank",), "a FAISS index")
    assert trained.bank is not None
    rows, columns = trained.bank.shape
    head = HEADER.pack(FOURCC, columns, rows, _IGNORED, _IGNORED, 1, METRIC_L2, rows * columns)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + np.ascontiguousarray(trained.bank, dtype="<f4").tobytes())
