"""R0's files: the ``.pth`` that PatchCore training saves, and the ``.bin`` its board application reads.

The ``.bin`` is 30 bytes (magic ``PC``, float32 threshold, minimum, maximum and coreset ratio,
int32 neighbours, rows and columns, little-endian, unpadded) followed by the rows as float32.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np

from adcompile.anomaly.formats.record import (
    Trained,
    as_bank,
    as_float,
    as_int,
    as_names,
    as_pair,
    as_text,
    need,
    refuse_findings,
)
from adcompile.anomaly.formats.torch_file import read_torch_file
from adcompile.anomaly.formats.torch_write import write_torch_file
from adcompile.errors import FormatError

MAGIC = b"PC"
HEADER = struct.Struct("<2s4f3i")
PTH_KEYS = (
    "thresould", "min_value", "max_value", "backborn_id", "coreset_sampling_ratio",
    "num_neighbors", "input_size", "memory_bank", "layers", "n_train",
)  # fmt: skip
"""The keys of a checkpoint, with the spelling upstream uses."""

_SPELLINGS = {
    "thresould": ("thresould", "threshold"),
    "backborn_id": ("backborn_id", "backbone_id"),
}


def read_bin(path: Path) -> Trained:
    """Read a board file; refuses wrong magic, sizes that disagree, values that are not finite."""
    size = path.stat().st_size if path.is_file() else -1
    if size < HEADER.size:
        raise FormatError(
            "not a memory bank of R0",
            where=str(path),
            why="no such file" if size < 0 else f"{size} bytes, the header has {HEADER.size}",
        )
    with path.open("rb") as file:
        head = file.read(HEADER.size)
        magic, threshold, low, high, ratio, k, rows, columns = HEADER.unpack(head)
        if magic != MAGIC:
            raise FormatError("invalid file format", where=f"{path}: magic", why=repr(magic))
        if rows < 1 or columns < 1 or size != HEADER.size + 4 * rows * columns:
            raise FormatError(
                "file size and bank shape disagree",
                where=f"{path}: rows, columns",
                why=f"{rows} × {columns} needs {HEADER.size + 4 * rows * columns} bytes, has {size}",
            )
        bank = np.frombuffer(file.read(), dtype="<f4").reshape(rows, columns)
    trained = Trained(
        method="patchcore",
        source="r0-bin",
        bank=np.ascontiguousarray(bank, dtype=np.float32),
        threshold=threshold,
        minimum=low,
        maximum=high,
        ratio=ratio,
        neighbours=k,
    )
    refuse_findings(trained, "the file contradicts itself", str(path))
    return trained


def pack_bin(trained: Trained) -> bytes:
    """The bytes of the board file; refuses records that lack a value or contradict themselves."""
    names = ("threshold", "minimum", "maximum", "ratio", "neighbours", "bank")
    need(trained, names, "an R0 .bin")
    assert trained.bank is not None
    refuse_findings(trained, "cannot write an R0 .bin")
    rows, columns = trained.bank.shape
    values = [getattr(trained, name) for name in names[:4]]
    head = HEADER.pack(MAGIC, *values, trained.neighbours, rows, columns)
    return head + np.ascontiguousarray(trained.bank, dtype="<f4").tobytes()


def write_bin(path: Path, trained: Trained) -> None:
    """Write the board file, making its folder."""
    data = pack_bin(trained)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def is_pth(content: object) -> bool:
    """True when a torch file's content is R0's dict."""
    return isinstance(content, dict) and "memory_bank" in content and "num_neighbors" in content


def read_pth(path: Path) -> Trained:
    """Read a checkpoint; the upstream misspellings and the right spellings both count."""
    content = read_torch_file(path)
    if not is_pth(content):
        raise FormatError(
            "not a PatchCore checkpoint of R0",
            where=str(path),
            why="no memory_bank, num_neighbors",
        )
    return from_pth(cast("Mapping[object, object]", content), path)


def from_pth(content: Mapping[object, object], path: Path) -> Trained:
    """The record of an already read checkpoint; a key R0 does not write is refused by name."""
    known = set(PTH_KEYS).union(*_SPELLINGS.values())
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise FormatError(
            "unknown key in a checkpoint of R0",
            where=f"{path}: {unknown[0]}",
            fix="known: " + ", ".join(PTH_KEYS),
        )
    for names in _SPELLINGS.values():
        given = [name for name in names if name in content]
        if len(given) > 1:
            raise FormatError("a value is given twice", where=f"{path}: {', '.join(given)}")

    def get(key: str) -> object:
        names = _SPELLINGS.get(key, (key,))
        return next((content[name] for name in names if name in content), None)

    def number(key: str) -> float | None:
        return as_float(get(key), f"{path}: {key}")

    return Trained(
        method="patchcore",
        source="r0-pth",
        bank=as_bank(get("memory_bank"), f"{path}: memory_bank"),
        threshold=number("thresould"),
        minimum=number("min_value"),
        maximum=number("max_value"),
        ratio=number("coreset_sampling_ratio"),
        neighbours=as_int(get("num_neighbors"), f"{path}: num_neighbors"),
        input_size=as_pair(get("input_size"), f"{path}: input_size"),
        layers=as_names(get("layers"), f"{path}: layers"),
        backbone=as_text(get("backborn_id"), f"{path}: backborn_id"),
        train_rows=as_int(get("n_train"), f"{path}: n_train"),
    )


def write_pth(path: Path, trained: Trained) -> None:
    """Write a checkpoint with upstream's keys and spelling, loadable by ``torch.load``."""
    need(trained, ("bank", "ratio", "neighbours"), "an R0 .pth")
    content: dict[str, object] = {
        "thresould": _scalar(trained.threshold),
        "min_value": _scalar(trained.minimum),
        "max_value": _scalar(trained.maximum),
        "backborn_id": trained.backbone,
        "coreset_sampling_ratio": trained.ratio,
        "num_neighbors": trained.neighbours,
        "input_size": list(trained.input_size or ()),
        "memory_bank": trained.bank,
        "layers": list(trained.layers),
        "n_train": trained.train_rows or 0,
    }
    write_torch_file(path, content)


def _scalar(value: float | None) -> object:
    return None if value is None or math.isnan(value) else np.array(value, dtype=np.float32)
