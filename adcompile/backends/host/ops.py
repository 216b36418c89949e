"""The host backend's operators as plain records: what ``adcompile list ops --target host`` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import onnx_ir as ir

from adcompile.backends.host.codegen.anomaly import DOMAIN
from adcompile.backends.host.codegen.anomaly import TABLE as OURS
from adcompile.backends.host.codegen.registry import ANY, FLOATS, INTS, NUMBERS, Op
from adcompile.backends.host.codegen.tables import STANDARD

_GROUPS: tuple[tuple[tuple[ir.DataType, ...], str], ...] = (
    (ANY, "any number or bool"),
    (NUMBERS, "any number"),
    (FLOATS, "any float"),
    (INTS, "any integer"),
)


@dataclass(frozen=True, slots=True)
class OpRecord:
    """One operator: domain and name, first opset, element types, remark."""

    op: str
    since: int
    types: str
    note: str = ""


def operators() -> list[OpRecord]:
    """Every operator that can become host C++, sorted by name."""
    rows = [_record(name, op) for name, op in STANDARD.items()]
    rows += [_record(f"{DOMAIN}::{name}", op) for name, op in OURS.items()]
    return sorted(rows, key=lambda row: row.op)


def _record(name: str, op: Op) -> OpRecord:
    types = type_names(op.types)
    extra = [f"input {i}: {type_names(t)}" for i, t in sorted((op.others or {}).items())]
    return OpRecord(name, op.since, "; ".join([types, *extra]), op.note)


def type_names(types: Iterable[ir.DataType]) -> str:
    """A short text for a set of element types."""
    wanted = tuple(types)
    for group, text in _GROUPS:
        if set(group) == set(wanted):
            return text
    return " ".join(t.name.lower() for t in wanted)
