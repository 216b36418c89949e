"""A sanity check of a plan file's first bytes, before anything is deserialized.

A plan is executable content: it is only ever loaded when its hash is the manifest's. This check
finds the ordinary mistakes (an ONNX file, a truncated copy, another TensorRT) and names them. The
layout is not documented by the vendor; version bytes at offset 24 to 27 were seen in both families.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from adcompile.errors import FormatError

HEADER = 64
_MAGIC = {b"vtrt": "TensorRT-RTX", b"ftrt": "TensorRT"}


@dataclass(frozen=True, slots=True)
class PlanHeader:
    """``family`` is "" when the magic is unknown; ``version`` has four parts."""

    family: str
    version: tuple[int, int, int, int]
    size: int


def read_header(path: Path) -> PlanHeader:
    """Read and check. Raises FormatError for a file that cannot be a plan."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        head = stream.read(HEADER)
    if len(head) < HEADER:
        raise FormatError("plan is too short", where=path.name, why=f"{size} bytes")
    family = _MAGIC.get(head[:4], "")
    if not family:
        looks = "an ONNX file" if head[0] == 8 else "something else"
        raise FormatError(
            "not a TensorRT plan",
            where=path.name,
            why=f"it begins like {looks}",
            fix="build the plan with build.sh on the target",
        )
    stated = struct.unpack_from("<Q", head, 16)[0]
    if family == "TensorRT-RTX" and stated != size:
        raise FormatError(
            "plan is truncated",
            where=path.name,
            why=f"{size} bytes, its header says {stated}",
            fix="copy or build it again",
        )
    major, minor, patch, build = head[24:28]
    return PlanHeader(family, (major, minor, patch, build), size)


def check_version(header: PlanHeader, runtime: str, where: str) -> None:
    """Refuse a plan of another TensorRT version than *runtime* ("10.3.0")."""
    numbers = runtime.split(".")
    wanted = tuple(int(n) for n in numbers[:2] if n.isdigit())
    if len(wanted) == 2 and header.version[:2] != wanted:
        have = ".".join(map(str, header.version))
        raise FormatError(
            "plan was built by another TensorRT",
            where=where,
            why=f"plan {have}, runtime {runtime}",
            fix="run build.sh again on this machine",
        )
